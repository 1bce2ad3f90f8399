"""Features are computed once, kept safely, and filed under everything that they depend on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tlx import features, freeze
from tlx.augment import NoAugmentation, Standard
from tlx.data.dataset import Dataset
from tlx.features import Features, _key, _make_room, _store, source
from tlx.lazy import keras
from tlx.models.graph import cut, weight_layers
from tlx.pipeline import Views

SIZE = (64, 64)


@pytest.fixture
def parts(tiny):
    """Return a function that cuts a fresh tiny network where `unfrozen` layers train."""

    def parts(unfrozen=0, seed=0):
        keras.utils.set_random_seed(seed)
        backbone = tiny()
        network, _ = backbone.build(SIZE)
        freeze.apply(freeze.last_layers(unfrozen), network, weight_layers(network, backbone.blocks))
        return cut(network, backbone.blocks)

    return parts


class Counter:
    """A report callback that remembers what it was told."""

    def __init__(self):
        self.calls = []

    def __call__(self, *progress):
        self.calls.append(progress)


@pytest.mark.parametrize(("unfrozen", "augment"), [(0, Standard()), (3, Standard()), (2, None)])
def test_cached_and_uncached_losses_are_the_same(draw, assemble, tmp_path, unfrozen, augment):
    dataset, policy = draw(3), freeze.last_layers(unfrozen)
    losses = []
    for cache in (True, False):
        settings = Features(cache=cache, views=2, folder=tmp_path / "features")
        made = assemble(dataset, policy, features=settings, augment=augment)
        assert made.source.cached is cache
        _, *features, boxes, labels, ignore = next(iter(made.source.batches(made.source.views.units, 6)))
        found = made.learner.losses(made.source.encode(features), (boxes, labels, ignore), training=False)
        losses.append(np.array([part.numpy() for part in found]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    assert (losses[0][0] > 0).all()


def test_half_precision_halves_the_space_and_moves_the_features_little(draw, parts, tmp_path):
    views, made = Views(draw(2), SIZE), parts()
    whole = source(views, made, Features(folder=tmp_path / "whole"))
    half = source(views, made, Features(folder=tmp_path / "half", dtype="float16"))
    sizes = [sum(np.load(f).nbytes for f in (tmp_path / name).rglob("*.npy")) for name in ("whole", "half")]
    assert sizes[1] == sizes[0] / 2
    for a, b in zip(whole.load(1, 0), half.load(1, 0), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-2)


def test_a_second_request_computes_nothing(draw, parts, tmp_path):
    views, settings = Views(draw(3), SIZE, Standard(), 2), Features(views=2, folder=tmp_path / "features")
    first, second = Counter(), Counter()
    one = source(views, parts(), settings, first)
    assert first.calls[-1] == ("caching features", 6, 6)
    # Another process would build the network again, whose layers Keras then names otherwise.
    other = source(views, parts(), settings, second)
    assert second.calls == []
    for a, b in zip(one.load(2, 1), other.load(2, 1), strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_row_belongs_to_its_unit(draw, parts, tmp_path):
    views, made = Views(draw(3), SIZE, Standard(), 2), parts()
    cached = source(views, made, Features(views=2, folder=tmp_path / "features"))
    for index, number in views.units:
        picture, *targets = views.element(index, number)
        *features, boxes, labels, ignore = cached.load(index, number)
        for a, b in zip(made.start(picture[None].astype(np.float32)), features, strict=True):
            np.testing.assert_allclose(a[0], b, atol=1e-5)
        for a, b in zip(targets, (boxes, labels, ignore), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_key_changes_with_all_that_features_depend_on(draw, parts, tmp_path):
    dataset, made, settings = draw(2), parts(), Features(folder=tmp_path)
    views = Views(dataset, SIZE, Standard(), 2)
    keys = [_key(views, made, settings)]
    assert _key(views, parts(), settings) == keys[0]
    assert _key(views, made, replace(settings, cap_gb=1.0, folder=tmp_path / "other")) == keys[0]
    keys.append(_key(replace(views, seed=1), made, settings))
    keys.append(_key(replace(views, count=3), made, settings))
    keys.append(_key(replace(views, size=(64, 96)), made, settings))
    keys.append(_key(replace(views, augment=Standard(zoom=(0.9, 1.1))), made, settings))
    keys.append(_key(replace(views, augment=NoAugmentation()), made, settings))
    keys.append(_key(replace(views, resize="stretch"), made, settings))
    keys.append(_key(views, made, replace(settings, dtype="float16")))
    keys.append(_key(views, parts(unfrozen=2), settings))
    keys.append(_key(views, parts(seed=1), settings))
    keys.append(_key(replace(views, dataset=Dataset("fewer", dataset.classes, dataset.examples[:1])), made, settings))
    variable = made.prefix.weights[3]
    variable.assign(np.nextafter(variable.numpy(), np.inf, dtype=np.float32))
    keys.append(_key(views, made, settings))
    with Image.open(dataset.examples[1].image) as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(dataset.examples[1].image)
    keys.append(_key(views, made, settings))
    assert len(set(keys)) == len(keys)


def scaled(constant, name="scaled"):
    image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(2, 3, name="conv", kernel_initializer="ones")(image / constant - np.float32([1, 2, 3]))
    network = keras.Model(image, x, name=name)
    freeze.apply(freeze.backbone(), network, weight_layers(network, r"^(none)"))
    return cut(network, r"^(none)")


def test_the_key_knows_constants_but_not_names(draw, tmp_path):
    views, settings = Views(draw(1), SIZE), Features(folder=tmp_path)
    assert _key(views, scaled(127.5), settings) == _key(views, scaled(127.5, "other"), settings)
    assert _key(views, scaled(127.5), settings) != _key(views, scaled(128.0), settings)


def test_what_is_not_cached_says_why(draw, parts, tmp_path):
    views, settings = Views(draw(2), SIZE, None, 1), Features(folder=tmp_path / "features", cap_gb=1e-7)
    over = source(views, parts(), settings)
    assert not over.cached
    assert "features.cap_gb = 1e-07" in over.note
    assert "block4_add" in over.note
    off = source(views, parts(), replace(settings, cache=False))
    assert (off.cached, off.note) == (False, "the cache is off")
    assert not source(replace(views, count=0), parts(), settings).cached
    assert not (tmp_path / "features").exists()


def test_a_network_that_trains_from_its_first_operation_is_not_cached(draw, tmp_path):
    image = keras.Input((*SIZE, 3))
    network = keras.Model(image, keras.layers.Conv2D(2, 3, name="conv")(image))
    freeze.apply(freeze.none(), network, weight_layers(network, r"^(none)"))
    made = source(Views(draw(1), SIZE), cut(network, r"^(none)"), Features(folder=tmp_path / "features"))
    assert not made.cached
    assert "every layer trains" in made.note
    assert made.encode([np.zeros((1, *SIZE, 3), np.uint8)])[0].shape == (1, *SIZE, 3)


WRITER = """
import os, signal, sys, time
from pathlib import Path
from tlx.features import Features, _store

def fill(to):
    (to / "0.npy").write_bytes(b"from " + sys.argv[2].encode())
    (Path(sys.argv[1]) / f"filled-{os.getpid()}").touch()
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)

root = Path(sys.argv[1]) / "features"
root.mkdir(exist_ok=True)
found = _store(root, "key", 10, Features(), fill)
assert "tensorflow" not in sys.modules
print((found / "0.npy").read_text())
"""


def writer(folder, name):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name], stdout=subprocess.PIPE, text=True)


def test_of_two_that_ask_at_once_one_computes(tmp_path):
    writers = [writer(tmp_path, name) for name in ("one", "two")]
    said = {process.communicate(timeout=60)[0] for process in writers}
    assert [process.returncode for process in writers] == [0, 0]
    assert len(said) == 1
    assert len(list(tmp_path.glob("filled-*"))) == 1


def test_what_a_killed_writer_left_is_replaced(tmp_path):
    killed = writer(tmp_path, "killed")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "features" / "key.partial" / "0.npy").exists()
    assert not (tmp_path / "features" / "key").exists()
    found = _store(tmp_path / "features", "key", 10, Features(), lambda to: (to / "1.npy").write_text("whole"))
    assert [file.name for file in found.iterdir()] == ["1.npy"]
    assert not (tmp_path / "features" / "key.partial").exists()


def test_a_failed_writer_leaves_nothing_that_looks_whole(tmp_path):
    def fill(to):
        (to / "0.npy").touch()
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        _store(tmp_path, "key", 10, Features(), fill)
    assert not (tmp_path / "key").exists()


@pytest.fixture
def earlier_runs(monkeypatch):
    """What is stored from here on is as if other processes had stored it."""
    monkeypatch.setattr(features, "_IN_USE", NotKept())


class NotKept(set):
    def add(self, folder):
        pass


def stored(root, name, size, age):
    folder = _store(root, name, size, Features(), lambda to: (to / "0.npy").write_bytes(bytes(size)))
    when = time.time() - age
    os.utime(folder, (when, when))


def test_the_least_recently_used_make_room(tmp_path, earlier_runs):
    for name, age in (("old", 300), ("used", 200), ("new", 100)):
        stored(tmp_path, name, 1000, age)
    _store(tmp_path, "used", 1000, Features(), lambda _: None)  # Being asked for is being used.
    settings = Features(cap_gb=3500e-9)
    _store(tmp_path, "more", 1000, settings, lambda to: (to / "0.npy").write_bytes(bytes(1000)))
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"used", "new", "more"}


def test_what_another_process_is_writing_is_not_removed(tmp_path, earlier_runs):
    def fill(to):
        (to / "0.npy").write_bytes(bytes(1000))
        # Another process, with other features, finds the folder too full.
        _make_room(tmp_path, 10)
        assert (to / "0.npy").exists()

    assert (_store(tmp_path, "key", 1000, Features(), fill) / "0.npy").exists()
    _make_room(tmp_path, 10)
    assert not (tmp_path / "key").exists()


def test_what_this_run_uses_does_not_make_room(tmp_path):
    stored(tmp_path, "train", 1000, 100)
    _store(tmp_path, "validation", 1000, Features(cap_gb=1500e-9), lambda to: (to / "0.npy").write_bytes(bytes(1000)))
    assert (tmp_path / "train").exists()

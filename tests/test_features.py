"""Features are computed once, kept safely, and filed under everything that they depend on."""

import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tlx import freeze, policies
from tlx.augment import NoAugmentation, Standard
from tlx.augment.crops import CropByOverlap
from tlx.data import recent
from tlx.data.dataset import Dataset
from tlx.data.targets import Boxes
from tlx.engines.tensorflow import TensorFlow
from tlx.features import Features, _key, _names, source
from tlx.lazy import keras
from tlx.models.graph import cut, weight_layers
from tlx.pipeline import Unit, Views

SIZE = (64, 64)


@pytest.fixture
def parts(tiny):
    """Return a function that cuts a fresh tiny network where `unfrozen` layers train."""

    def parts(unfrozen=0, seed=0):
        keras.utils.set_random_seed(seed)
        backbone = tiny()
        network, _ = backbone.build(SIZE)
        freeze.apply(policies.last_layers(unfrozen), network, weight_layers(network, backbone.blocks))
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
    dataset, policy = draw(3), policies.last_layers(unfrozen)
    losses = []
    for cache in (True, False):
        settings = Features(cache=cache, views=2, folder=tmp_path / "features")
        made = assemble(dataset, policy, features=settings, augment=augment)
        assert made.source.cached is cache
        _, inputs, targets = next(iter(made.source.batches(made.source.views.units, 6)))
        found = made.learner.losses(made.source.encode(inputs), targets, training=False)
        losses.append(np.array([found["scores"][0], *found["boxes"]]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    assert (losses[0][0] > 0).all()


def test_half_precision_halves_the_space_and_moves_the_features_little(draw, parts, tmp_path):
    views, made = Views(draw(2), SIZE), parts()
    whole = source(views, made, Features(folder=tmp_path / "whole"))
    half = source(views, made, Features(folder=tmp_path / "half", dtype="float16"))
    sizes = [sum(f.stat().st_size for f in (tmp_path / name).rglob("*.features")) for name in ("whole", "half")]
    # Both files hold two pictures, and say the same beside the numbers.
    assert sizes[0] - sizes[1] == pytest.approx(sum(a.nbytes for a in whole.load(Unit(0))[0]), abs=2)
    for a, b in zip(whole.load(Unit(1))[0], half.load(Unit(1))[0], strict=True):
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
    for a, b in zip(one.load(Unit(2, view=1))[0], other.load(Unit(2, view=1))[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_picture_added_is_all_that_is_computed(draw, parts, tmp_path):
    views, settings = Views(draw(3), SIZE, Standard(), 2), Features(views=2, folder=tmp_path / "features")
    fewer = replace(views, dataset=views.dataset.subset([0, 1], "fewer"))
    assert "(0 pictures found, 2 computed)" in source(fewer, parts(), settings).note
    more = Counter()
    found = source(views, parts(), settings, more)
    assert more.calls == [("caching features", 2, 2)]
    assert "(2 pictures found, 1 computed)" in found.note
    whole = source(views, parts(), replace(settings, folder=tmp_path / "whole"))
    for unit in views.units:
        for a, b in zip(found.load(unit)[0], whole.load(unit)[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("augment", [None, Standard()])
def test_five_folds_of_one_dataset_fill_the_cache_once(draw, parts, tmp_path, augment):
    dataset, made = draw(10), parts()
    counted = Counter()
    for fold in range(5):
        train = dataset.subset([i for i in range(10) if i % 5 != fold], f"fold {fold}")
        views = Views(train, SIZE, augment, 1)
        found = source(views, made, Features(folder=tmp_path / "features"), counted)
        (picture,), _ = views.element(Unit(3))
        computed = made.start(picture[None].astype(np.float32))
        np.testing.assert_allclose(found.load(Unit(3))[0][0], computed[0][0], atol=1e-5)
    assert [done for _, done, of in counted.calls if done == of] == [8, 2]


def test_a_released_source_makes_room_for_others_and_can_still_be_read(draw, parts, tmp_path):
    views, settings = Views(draw(2), SIZE), Features(folder=tmp_path / "features")
    first = source(views, parts(), settings)
    before = [np.array(a) for a in first.load(Unit(1))[0]]
    size = sum(f.stat().st_size for f in (tmp_path / "features").rglob("*.features"))
    first.release()
    small = replace(settings, cap_gb=1.5 * size / 1e9)
    second = source(views, parts(seed=1), small)
    assert second.cached
    assert len(list((tmp_path / "features").rglob("*.features"))) == 1
    for a, b in zip(first.load(Unit(1))[0], before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_lies_where_features_belong_is_left_alone_and_named(draw, parts, tmp_path):
    views, made, settings = Views(draw(1), SIZE), parts(), Features(folder=tmp_path / "features")
    foreign = tmp_path / "features" / f"tlx-features-{_key(views, made, settings, TensorFlow().key)}"
    foreign.mkdir(parents=True)
    (foreign / "photo.jpg").write_bytes(b"photo")
    found = source(views, made, settings)
    assert not found.cached
    assert f"not cached: {foreign} is not tlx's own" in found.note
    assert [path.name for path in foreign.iterdir()] == ["photo.jpg"]


def test_a_picture_is_decoded_once_for_all_its_views(draw, parts, tmp_path, monkeypatch):
    dataset, made, opened = draw(6), parts(), Counter()
    views = Views(dataset, SIZE, Standard(), 8)
    plain = recent.open_image
    monkeypatch.setattr(recent, "open_image", lambda path: opened(path) or plain(path))
    filled = source(views, made, Features(views=8, folder=tmp_path / "features"))
    assert sorted(opened.calls) == sorted((example.image,) for example in dataset.examples)
    monkeypatch.undo()
    for unit in views.units[::7]:
        computed = made.start(views.element(unit)[0][0][None].astype(np.float32))
        np.testing.assert_allclose(filled.load(unit)[0][0], computed[0][0], atol=1e-5)


def test_every_row_belongs_to_its_unit(draw, parts, tmp_path):
    views, made = Views(draw(3), SIZE, Standard(), 2), parts()
    cached = source(views, made, Features(views=2, folder=tmp_path / "features"))
    for unit in views.units:
        (picture,), targets = views.element(unit)
        features, loaded = cached.load(unit)
        for a, b in zip(made.start(picture[None].astype(np.float32)), features, strict=True):
            np.testing.assert_allclose(a[0], b, atol=1e-5)
        assert targets.keys() == loaded.keys()
        for name, value in targets.items():
            np.testing.assert_array_equal(value, loaded[name])


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
    keys.append(_key(views, made, settings, "another engine"))
    variable = made.prefix.weights[3]
    variable.assign(np.nextafter(variable.numpy(), np.inf, dtype=np.float32))
    keys.append(_key(views, made, settings))
    assert len(set(keys)) == len(keys)
    fewer = replace(views, dataset=Dataset("fewer", dataset.classes, dataset.examples[:1]))
    assert _key(fewer, made, settings) == keys[-1]


@pytest.mark.parametrize("augment", [None, Standard(), CropByOverlap()])
def test_a_picture_s_name_changes_with_its_content_and_with_boxes_where_views_are_drawn_by_them(draw, augment):
    dataset = draw(2)
    first, second = dataset.examples
    views = Views(dataset, SIZE, augment, 2)

    def names(*examples):
        return list(_names(replace(views, dataset=Dataset("other", dataset.classes, examples))).values())

    found = names(first, second)
    assert found == list(_names(views).values())
    assert len(set(found)) == 2
    assert names(first) == found[:1]
    truth = first.targets
    boxes = truth.boxes.copy()
    boxes[0, 0] = np.nextafter(boxes[0, 0], np.float32(np.inf))
    moved = Boxes(boxes, truth.labels, truth.ignore)
    assert (names(replace(first, targets=moved)) == found[:1]) is not isinstance(augment, CropByOverlap)
    # Targets are not stored: what an object is called changes no feature.
    assert names(replace(first, targets=Boxes(truth.boxes, 1 - truth.labels, truth.ignore))) == found[:1]
    with Image.open(first.image) as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(first.image)
    changed = names(first, second)
    assert changed[0] != found[0]
    assert changed[1] == found[1]


def scaled(constant, name="scaled"):
    image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(2, 3, name="conv", kernel_initializer="ones")(image / constant - np.float32([1, 2, 3]))
    network = keras.Model(image, x, name=name)
    freeze.apply(policies.backbone(), network, weight_layers(network, r"^(none)"))
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


def test_two_sources_of_a_run_share_the_room_that_there_is(draw, parts, tmp_path):
    made, settings = parts(), Features(views=2, folder=tmp_path / "features")
    one, other = Views(draw(3), SIZE, Standard(), 2), Views(draw(2, seed=1), SIZE)
    first = source(one, made, settings)
    assert first.bytes == sum(row.nbytes for unit in one.units for row in first.load(unit)[0])
    second = source(other, made, settings, held=first.bytes)
    assert second.cached
    first.release()
    second.release()

    cap = (first.bytes + second.bytes - 1) / 1e9
    tight = Features(views=2, folder=tmp_path / "tight", cap_gb=cap)
    first = source(one, made, tight)
    second = source(other, made, tight, held=first.bytes)
    assert (first.cached, second.cached, second.bytes) == (True, False, 0)
    assert re.search(r"beside \d\.\d GB that this run holds already, over features\.cap_gb", second.note)
    assert sum(file.stat().st_size for file in (tmp_path / "tight").rglob("*.features")) <= cap * 1e9


def test_on_a_full_disk_what_is_stored_is_used_and_nothing_more(draw, parts, tmp_path, monkeypatch):
    settings, dataset = Features(folder=tmp_path / "features", views=1), draw(2)
    source(Views(dataset, SIZE, None, 1), parts(), settings).release()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    again = source(Views(dataset, SIZE, None, 1), parts(), settings)
    assert again.cached
    assert "2 pictures found, 0 computed" in again.note
    other = source(Views(dataset, SIZE, Standard(), 1), parts(), settings)
    assert not other.cached
    assert "are free in" in other.note


def test_a_network_that_trains_from_its_first_operation_is_not_cached(draw, tmp_path):
    image = keras.Input((*SIZE, 3))
    network = keras.Model(image, keras.layers.Conv2D(2, 3, name="conv")(image))
    freeze.apply(policies.none(), network, weight_layers(network, r"^(none)"))
    made = source(Views(draw(1), SIZE), cut(network, r"^(none)"), Features(folder=tmp_path / "features"))
    assert not made.cached
    assert "every layer trains" in made.note
    assert made.encode([np.zeros((1, *SIZE, 3), np.uint8)])[0].shape == (1, *SIZE, 3)

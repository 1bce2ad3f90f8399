"""Large pictures in tiles: they cover a picture, are sampled in training, and are decoded once."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlx import config, inference
from tlx.augment import Standard
from tlx.data import recent
from tlx.data.dataset import Dataset, Example
from tlx.data.images import open_image
from tlx.data.splits.parts import Splits
from tlx.data.targets import NO_BOXES, Boxes
from tlx.devices import Devices
from tlx.errors import ConfigError, DataError, MisfitError
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.fcos import Fcos
from tlx.pipeline import Views, batches, chunks
from tlx.policies import last_layers
from tlx.run import Run, assemble, evaluate, train
from tlx.search import space
from tlx.tasks.detection import Detection, Detections
from tlx.tiles import Tiles, tiles_of

sides = st.integers(32, 700)


@given(sides, sides, st.integers(1, 3000), st.integers(1, 3000), st.floats(0, 0.9), st.booleans())
def test_tiles_cover_a_picture_and_share_as_much_as_was_asked(tall, wide, width, height, overlap, whole):
    tiles = Tiles((tall, wide), overlap, whole=whole)
    found = tiles(width, height)
    cut = found[:-1] if whole and len(found) > 1 else found
    assert cut is found or found[-1] == (0, 0, width, height)
    assert len(set(found)) == len(found)
    for length, tile, spans in (
        (width, wide, sorted({(w.x_min, w.x_max) for w in cut})),
        (height, tall, sorted({(w.y_min, w.y_max) for w in cut})),
    ):
        # As large as a tile, or as the picture where that is smaller.
        assert {stop - start for start, stop in spans} == {min(tile, length)}
        assert (spans[0][0], spans[-1][1]) == (0, length)
        shared = [before[1] - after[0] for before, after in pairwise(spans)]
        assert min(shared, default=tile) >= int(overlap * tile)
    columns = {(w.x_min, w.x_max) for w in cut}
    assert len(cut) == len(columns) * len({(w.y_min, w.y_max) for w in cut})


def test_a_number_is_a_square_tile():
    assert tiles_of(640) == Tiles(640)
    assert (Tiles(640).height_width, tiles_of((64, 96)).height_width) == ((640, 640), (64, 96))
    assert tiles_of(None) is None
    for wrong in ({"size": 31}, {"size": (64, 8)}, {"size": 64, "overlap": 0.95}, {"size": 64, "empty": -1.0}):
        with pytest.raises(ConfigError, match=r"tiles\.(size|overlap|empty) = .* makes no sense"):
            Tiles(**wrong)


MINIMAL = Path(__file__).with_name("minimal.gin")
REFUSED = {
    "run.tiles = 'large'": "expected int or tuple",
    "run.tiles = 8": "tiles.size = 8 makes no sense",
    "run.tiles = (60, 640)": None,
    "run.tiles = 64": "64 x 64 pixels would be enlarged 5.0 times to run.image_size = (320, 320)",
    "run.tiles = 640\nrun.resize = 'crop'": "run.resize = 'crop' leaves out a part of each window",
    "run.tiles = @tiles()\ntiles.size = 640\ntiles.overlap = 1.5": "tiles.overlap = 1.5 makes no sense",
    "run.tiles = @tiles()": "tiles.size is required",
    "run.tiles = 640\nrun.head = @heads.classifier()": "classification labels whole ones: leave run.tiles away",
}


@pytest.mark.parametrize("bindings", REFUSED)
def test_what_contradicts_itself_is_refused_without_data(bindings):
    fault = REFUSED[bindings]
    if fault is None:
        assert config.load([MINIMAL], bindings.split("\n")).value("run.tiles") == (60, 640)
        return
    with pytest.raises(ConfigError, match=re.escape(fault)):
        config.load([MINIMAL], bindings.split("\n"))


def test_tiles_are_configured_and_searched(tmp_path):
    experiment = config.load([MINIMAL], ["run.tiles = @tiles()", "tiles.size = 640", "tiles.overlap = 0.3"])
    assert config.build_value(experiment.value("run.tiles")) == Tiles(640, 0.3)
    # What a run folder keeps says the same.
    (tmp_path / "config.gin").write_text(experiment.text())
    again = config.load([tmp_path / "config.gin"], ["run.tiles = 320"])
    assert again.value("run.tiles") == 320
    bounds = "search.space = {'run.tiles': ('choice', None, 640), 'run.image_size': ('choice', 320, 640)}"
    searched = config.load([MINIMAL], [bounds])
    space.check(searched, config.build(searched.trees["search"]))
    # Not every size goes with all tiles, but each with some.
    bounds = "search.space = {'run.tiles': ('choice', 64, 640), 'run.image_size': ('choice', 256, 640)}"
    searched = config.load([MINIMAL], [bounds, "run.tiles = 64", "run.image_size = 256"])
    space.check(searched, config.build(searched.trees["search"]))


def sparse(sizes):
    """Return pictures that are not there, with one box each in the upper left corner."""
    box = Boxes(np.array([[2, 2, 20, 20]], np.float32), np.zeros(1, np.int32), np.zeros(1, np.bool_))
    return Dataset("sparse", ("one",), tuple(Example(f"{i}.png", *size, box) for i, size in enumerate(sizes)))


def test_as_many_empty_tiles_are_trained_on_as_are_wanted():
    dataset = sparse([(300, 200)] * 4)
    for empty, count in ((0.0, 4), (1.0, 8), (2.5, 14), (99.0, 4 * 20)):
        views = Views(dataset, (64, 64), windows=Tiles(64, 0.0), empty=empty)
        assert len(views.parts) == len(set(views.parts)) == count
        assert {(i, 0) for i in range(4)} <= set(views.parts)
        assert [unit.part for unit in views.units] == views.parts == sorted(views.parts)
    one, again, other = (Views(dataset, (64, 64), seed=s, windows=Tiles(64), empty=1.0).parts for s in (0, 0, 1))
    assert one == again != other
    # Nothing but background is all there is to learn from.
    bare = replace(dataset, examples=tuple(replace(e, targets=NO_BOXES) for e in dataset.examples))
    assert len(Views(bare, (64, 64), windows=Tiles(64, 0.0), empty=0.0).parts) == 80


def test_an_object_that_is_hardly_seen_does_not_fill_a_tile():
    dataset = sparse([(64, 32)])
    # Of its 18 columns the second tile shows two.
    views = Views(dataset, (32, 32), windows=lambda *_: [(0, 0, 32, 32), (18, 0, 50, 32)], empty=0.0)
    assert views.parts == [(0, 0)]


def test_tiles_larger_than_every_picture_are_refused(draw, tiny, tmp_path):
    data = Splits(draw(3, size=96), draw(2, size=96, seed=1), None)
    run = {"freeze": last_layers(1), "fit": Fit(), "features": Features(folder=tmp_path), "image_size": 64}
    with pytest.raises(MisfitError, match=r"run\.tiles: a tile of 128 x 96 pixels cuts none of the 3 .*96 x 96"):
        assemble(Run(data, tiny(), Fcos(), **run, tiles=(96, 128)), Devices())
    # Where some are larger, the others are seen whole.
    mixed = replace(data, train=replace(data.train, examples=(*data.train.examples, *draw(1, size=160).examples)))
    views = Run(mixed, tiny(), Fcos(), **run, tiles=Tiles(128, empty=9.0)).views
    assert [part for part in views.parts if part[0] < 3] == [(0, 0), (1, 0), (2, 0)]
    assert len(views.numbers) == 3 + 4


@st.composite
def apart(draw):
    """Boxes in a picture of 400 x 300 pixels that share no pixel, of any size."""
    columns = draw(st.lists(st.integers(0, 400), min_size=2, max_size=7, unique=True).map(sorted))
    boxes = []
    for x0, x1 in pairwise(columns):
        rows = draw(st.lists(st.integers(0, 300), min_size=2, max_size=5, unique=True).map(sorted))
        boxes += [(x0, y0, x1, y1) for y0, y1 in pairwise(rows) if min(x1 - x0, y1 - y0) >= 8]
    return np.array(boxes, np.float32).reshape(-1, 4)


def pieces(boxes, windows, least, jitter, rng):
    """Return what a detector sees in each window: the part of each box that it shows, if that is enough of it."""
    for window in windows:
        shown = np.clip(boxes, window[:2] * 2, window[2:] * 2)
        size = shown[:, 2:] - shown[:, :2]
        seen = (size.min(1) >= 2) & (size.prod(1) >= least * (boxes[:, 2:] - boxes[:, :2]).prod(1))
        off = rng.uniform(-jitter, jitter, (len(boxes), 4)) * np.tile(size, 2)
        near = np.clip(shown + off, window[:2] * 2, window[2:] * 2).astype(np.float32)[seen]
        scores = rng.uniform(0.1, 1, len(near)).astype(np.float32)
        yield Detections(near, scores, np.zeros(len(near), np.int32), window=window)


@given(apart(), st.integers(48, 200), st.integers(48, 200), st.floats(0.1, 0.7), st.booleans(), st.integers(0, 99))
def test_each_object_that_tiles_show_parts_of_is_joined_once(boxes, tall, wide, overlap, whole, seed):
    rng, windows = np.random.default_rng(seed), Tiles((tall, wide), overlap, whole=whole)(400, 300)
    found = Detection().join(list(pieces(boxes, windows, 0.0, 0.0, rng)))
    assert sorted(found.boxes.tolist()) == sorted(boxes.tolist())
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


@given(apart(), st.integers(60, 200), st.floats(0.2, 0.5), st.integers(0, 99))
def test_no_object_is_counted_twice_where_its_parts_are_found_inexactly(boxes, side, overlap, seed):
    # Of two that touch, and both go on beyond a tile, nobody could tell that they are not one.
    boxes = boxes + np.tile((boxes[:, 2:] - boxes[:, :2]) / 10, 2) * np.array([1, 1, -1, -1], np.float32)
    rng, windows = np.random.default_rng(seed), Tiles(side, overlap)(400, 300)
    seen = list(pieces(boxes, windows, 0.3, 0.03, rng))
    shown = [box for box in boxes if any(len(part) for part in pieces(box[None], windows, 0.3, 0, rng))]
    assert len(Detection().join(seen)) == len(shown)


def loosely(windows, noise, rng):
    """Return 96 objects in a grid as each window shows them, with ends that are off by a normal share of a side."""
    cells = np.stack(np.meshgrid(np.arange(12), np.arange(8)), -1).reshape(-1, 2) * 80
    size = rng.uniform(30, 70, (96, 2))
    low = cells + rng.uniform(2, 78 - size, (96, 2))
    for part in pieces(np.concatenate([low, low + size], 1).astype(np.float32), windows, 0.2, 0, rng):
        off = rng.normal(0, noise, part.boxes.shape) * np.tile(part.boxes[:, 2:] - part.boxes[:, :2], 2)
        yield replace(
            part, boxes=np.clip(part.boxes + off, part.window[:2] * 2, part.window[2:] * 2).astype(np.float32)
        )


@pytest.mark.parametrize(("noise", "most"), [(0.04, 0), (0.06, 5)])
def test_hardly_an_object_is_counted_twice_where_a_detector_places_boxes_loosely(noise, most):
    """Parts that end short of their window's end are of the object that goes on, though they agree with it less."""
    joined = [
        len(Detection().join(list(loosely(Tiles(250, 0.3)(960, 640), noise, np.random.default_rng(seed)))))
        for seed in range(6)
    ]
    assert min(joined) >= 96
    assert sum(joined) - 96 * len(joined) <= most


def test_tiles_that_are_given_for_a_prediction_must_cut_some_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "reopen", lambda *_: (SimpleNamespace(classes=("one",), task="detection"), None))
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    experiment = config.load([MINIMAL], ["run.tiles = 640"])
    with pytest.raises(MisfitError, match=r"--tiles: a tile of 640 x 640 pixels cuts none of .*a\.png, has 90 x 60"):
        inference.predict_pictures(experiment, tmp_path, [tmp_path / "a.png"], tmp_path / "out", 0.3, must_cut=True)


@pytest.fixture
def counted(monkeypatch):
    """Counts how often each file is decoded."""
    decoded = Counter()

    def counting(path):
        decoded[path] += 1
        return open_image(path)

    monkeypatch.setattr(recent, "open_image", counting)
    monkeypatch.setattr(recent, "_kept", type(recent._kept)())
    return decoded


def test_a_picture_is_decoded_once_for_all_its_windows_and_views(draw, counted, monkeypatch):
    dataset = draw(6, size=200, seed=7)
    # Two of them fit.
    monkeypatch.setattr(recent, "LIMIT", 2 * 4 * 200 * 200)
    views = Views(dataset, (64, 64), Standard(), 3, windows=Tiles(64))
    assert len(views.units) == 6 * 16 * 3
    for _ in batches(views.element, chunks(views.units, 16, 16)):
        pass
    assert set(counted.values()) == {1}
    assert len(counted) == 6
    assert len(recent._kept) <= 2


def test_one_picture_is_kept_however_large_and_an_unreadable_one_is_not(draw, counted, monkeypatch, tmp_path):
    monkeypatch.setattr(recent, "LIMIT", 1)
    one, two = (example.image for example in draw(2, seed=9).examples)
    for path in (one, one, two, two, one):
        assert np.array_equal(np.asarray(recent.open_recent(path)), np.asarray(Image.open(path)))
    assert counted == {one: 2, two: 1}
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match=r"broken\.png: not an image"):
            recent.open_recent(broken)
    assert recent.most_held([(10, 10), (20, 10)]) == 800
    monkeypatch.setattr(recent, "LIMIT", 1000)
    assert recent.most_held([(10, 10), (20, 10)]) == 1000


def test_a_changed_file_is_decoded_again(counted, tmp_path):
    path = tmp_path / "a.png"
    for side in (8, 9):
        Image.new("RGB", (side, side)).save(path)
        assert recent.open_recent(path).size == (side, side)


def test_a_tiled_run_is_judged_on_whole_pictures(draw, tiny, tmp_path):
    # Objects of 48 to 96 pixels, in tiles of 128 that are brought to 64.
    data = Splits(draw(6, size=192), draw(2, size=192, seed=1), draw(2, size=192, seed=2))
    settings = Fit(batch_size=4, epochs=2, evaluations=1, learning_rate=1e-2)
    features = Features(views=2, folder=tmp_path / "features")
    tiles = Tiles(128, overlap=0.4, empty=0.5)
    run = Run(data, tiny(), Fcos(channels=16), last_layers(1), settings, features, image_size=64, tiles=tiles)
    told = train(run, tmp_path / "run", "", Listener())
    rows = json.loads((tmp_path / "run" / "predictions-test.json").read_text())
    assert {row["image_id"] for row in rows} == {0, 1}
    corners = np.array([row["bbox"] for row in rows])
    assert (corners[:, :2] + corners[:, 2:]).max() > 128
    assert told["metrics"]["values"] == pytest.approx(evaluate(run, tmp_path / "run")["metrics"]["values"], abs=1e-4)
    assert "Tiles(size=128" in json.loads((tmp_path / "run" / "model.json").read_text())["tiles"]


def test_oversampling_counts_the_tiles_that_are_taken(tmp_path):
    Image.new("RGB", (256, 64)).save(tmp_path / "a.png")
    boxes = np.array([[4, 4, 20, 20], [70, 4, 90, 20]], np.float32)
    example = Example(tmp_path / "a.png", 256, 64, Boxes(boxes, np.array([0, 1], np.int32), np.zeros(2, bool)))
    dataset = Dataset("tiles", ("a", "b"), (example,))
    views = Views(dataset, (64, 64), windows=Tiles(64, overlap=0.0), empty=0.0)
    assert len(views.parts) == 2
    np.testing.assert_allclose(views.repeats(1.0), [2**0.5, 2**0.5])

"""Pictures cut into windows: each is seen, learnt and cached by itself, and predictions are of whole pictures."""

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx import policies
from tlx.augment import Geometry, Standard, arranged, draw_view, move
from tlx.augment.combinations import CopyPaste, Mosaic
from tlx.augment.crops import CropByOverlap
from tlx.augment.flips import Flip, QuarterTurns
from tlx.augment.zoom import Zoom
from tlx.data.dataset import Dataset, Example
from tlx.data.images import read_image
from tlx.data.targets import NO_BOXES, Boxes
from tlx.features import Features, _names, encoder, source
from tlx.fit import Fit, fit
from tlx.lazy import tf
from tlx.pipeline import Unit, Views, order
from tlx.predict import Predictor, predict
from tlx.tasks.detection import PADDING, Detection
from tlx.windows import Place, WholePicture, Window, in_pictures

SIZE = (64, 64)


@dataclass(frozen=True)
class Quarters:
    """Four windows that overlap by a quarter of the picture; a picture of up to 64 pixels is left whole."""

    def __call__(self, width, height):
        if width <= 64:
            return [(0, 0, width, height)]
        x, y = width * 5 // 8, height * 5 // 8
        return [(a, b, a + x, b + y) for b in (0, height - y) for a in (0, width - x)]


@pytest.fixture
def mixed(draw):
    """Pictures with four windows and with one, in turn."""
    large, small = draw(3, size=96), draw(2, size=64, seed=1)
    one, two, three = large.examples
    return replace(large, examples=(one, small.examples[0], two, small.examples[1], three))


def views_of(dataset, augment=None, count=1, **more):
    return Views(dataset, SIZE, augment, count, windows=Quarters(), **more)


def test_units_are_every_view_of_every_window_picture_by_picture(mixed):
    views = views_of(mixed, Standard(), 2)
    parts = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), *((2, w) for w in range(4)), (3, 0), *((4, w) for w in range(4))]
    assert views.parts == parts
    assert views.units == [(i, w, v) for i, w in parts for v in range(2)]
    assert [views.numbers[part] for part in parts] == list(range(14))


def test_a_window_is_seen_as_a_picture_of_its_own_would_be(mixed, tmp_path):
    for resize in ("letterbox", "stretch", "crop"):
        views = views_of(mixed, resize=resize)
        for number, unit in enumerate(views.units):
            example = mixed.examples[unit.picture]
            window = Quarters()(example.width, example.height)[unit.window]
            path = tmp_path / f"{number}.png"
            Image.fromarray(read_image(example.image)).crop(window).save(path)
            alone = Example(path, window[2] - window[0], window[3] - window[1], NO_BOXES)
            (expected,), _ = Views(Dataset("alone", mixed.classes, (alone,)), SIZE, resize=resize).element(Unit(0))
            (picture,), _ = views.element(unit)
            np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("augment", [None, (Flip(), Zoom()), (Mosaic(probability=1.0), CopyPaste(probability=1.0))])
def test_nothing_beside_the_window_is_seen(mixed, augment):
    views = views_of(mixed, augment, 6)
    assert not augment or len({views.view(unit).matrix.tobytes() for unit in views.units}) == len(views.units)
    for unit in views.units:
        for number, layer in enumerate(views.view(unit).layers):
            example = mixed.examples[layer.picture]
            windows = Quarters()(example.width, example.height)
            windows = [windows[unit.window]] if number == 0 and layer.picture == unit.picture else windows
            low, high = np.array(layer.crop[:2]), np.array(layer.crop[2:])
            assert any((low >= window[:2]).all() and (high <= window[2:]).all() for window in windows)


def test_labels_are_those_of_what_is_seen_in_the_window(mixed):
    example = mixed.examples[0]
    # In the window (36, 0, 96, 60): beside it, cut to a fifth, cut to a half, and whole.
    boxes = np.array([[0, 0, 30, 30], [20, 0, 40, 20], [26, 10, 46, 30], [40, 20, 70, 50]], np.float32)
    truth = Boxes(boxes, np.array([0, 1, 0, 1], np.int32), np.zeros(4, np.bool_))
    views = views_of(replace(mixed, examples=(replace(example, targets=truth),)), resize="stretch")
    arrays = views.targets(Unit(0, 1))
    scaled = np.array([[0, 0, 4, 20], [0, 10, 10, 30], [4, 20, 34, 50]]) * 64 / 60
    np.testing.assert_allclose(arrays["boxes"][:3], scaled, rtol=1e-6)
    assert arrays["labels"].tolist() == [1, 0, 1, PADDING]
    assert arrays["ignore"].tolist() == [True, False, False, False]


class Seeing(Geometry):
    """Notes what it is given."""

    sees_objects = True

    def __init__(self, seen):
        self.seen = seen

    def __repr__(self):
        return "Seeing()"

    def __call__(self, rng, scene):
        self.seen.append((scene.width, scene.height, scene.objects(), scene.pictures))
        return scene


def test_augmentations_know_the_window_as_a_picture(mixed):
    seen = []
    truth = Boxes(np.array([[20, 0, 40, 20], [26, 10, 46, 30]], np.float32), np.zeros(2, np.int32), np.zeros(2, bool))
    examples = (mixed.examples[1], replace(mixed.examples[0], targets=truth))
    views_of(replace(mixed, examples=examples), Seeing(seen)).view(Unit(1, 1))
    ((width, height, objects, pictures),) = seen
    assert (width, height) == (60, 60)
    np.testing.assert_allclose(objects, [[0, 10, 10, 30]])
    (known,) = pictures.values()
    assert (known.boxes.tolist(), known.ignore.tolist()) == ([[0, 0, 4, 20], [0, 10, 10, 30]], [True, False])


def test_windows_are_drawn_and_named_by_themselves_and_a_whole_one_as_its_picture(mixed):
    cut_up, plain = views_of(mixed, Standard(), 2), Views(mixed, SIZE, Standard(), 2)
    names = _names(cut_up)
    assert len(set(names.values())) == 14
    for index in (1, 3):
        assert names[index, 0] == _names(plain)[index, 0]
        unit = Unit(index, view=1)
        assert (cut_up.view(unit).matrix == plain.view(unit).matrix).all()
    turned = {cut_up.view(Unit(0, window)).colour.tobytes() for window in range(4)}
    assert len(turned) == 4
    # Which windows the others have matters where they may be mixed in.
    for augment, alike in ((CropByOverlap(), True), (Mosaic(), False)):
        ways = [_names(Views(mixed, SIZE, augment, windows=windows))[1, 0] for windows in (Quarters(), WholePicture())]
        assert (ways[0] == ways[1]) is alike


@pytest.mark.parametrize("windows", [[], [(0, 0, 97, 50)], [(0, 0, 96, 96), (5, 5, 5, 9)], [(-1, 0, 9, 9)]])
def test_windows_that_show_no_part_of_the_picture_are_refused(draw, windows):
    with pytest.raises(ValueError, match=r"0\.png, 96 x 96 pixels, into .* lie in it"):
        Views(draw(1, size=96), SIZE, windows=lambda *_: windows).parts  # noqa: B018


def test_a_windows_classes_are_of_what_is_seen_in_it(draw):
    data = draw(2, size=96)
    left, right = (0, 0, 48, 96), (48, 0, 96, 96)
    views = Views(data, SIZE, windows=lambda *_: [left, right])
    x0, _, x1, _ = zip(*(example.targets.boxes[0].tolist() for example in data.examples), strict=True)
    assert (x0, x1) == ((35, 41), (75, 86))
    # Of the second box, 7 of 45 columns are in the window on the left, which is too little to be learnt.
    assert [place.classes.tolist() for place in views._places] == [[0], [0], [], [1]]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 99), st.integers(0, 40))
def test_an_epoch_sees_each_window_once_each_time_another_view(windows, views, seed, start):
    parts = [(i, window) for i, count in enumerate(windows) for window in range(count)]
    units = list(islice(order(parts, views, seed), len(parts) * views))
    for epoch in range(views):
        assert sorted(unit.part for unit in units[epoch * len(parts) :][: len(parts)]) == parts
    assert len(set(units)) == len(units)
    later = list(islice(order(parts, views, seed), start + 9))[start:]
    assert list(islice(order(parts, views, seed, start), 9)) == later


def test_training_is_the_same_through_the_cache_and_without_it(mixed, assemble, arrays, tmp_path):
    after = []
    for cache in (True, False):
        settings = Fit(batch_size=5, epochs=2, evaluations=1, learning_rate=1e-2)
        features = Features(cache=cache, views=2, folder=tmp_path / "features")
        made = assemble(mixed, policies.last_layers(2), settings, features, Standard(), windows=Quarters())
        assert made.source.cached is cache
        seen, losses = [], []
        update = made.learner.update

        def noted(parts, rate, seen=seen, losses=losses, update=update):
            parts = list(parts)
            seen.extend(np.concatenate([seeds.numpy()[:, 1] for *_, seeds in parts]).tolist())
            losses.append(update(parts, rate))
            return losses[-1]

        made.learner.update = noted
        (tmp_path / str(cache)).mkdir()
        history = fit(made.learner, made.source, settings, 3, lambda: (0.0, {"values": {}}, {}), tmp_path / str(cache))
        # Two epochs of fourteen windows, five to an update.
        assert (len(losses), history.best.updates) == (6, 6)
        assert sorted(seen[:14]) == sorted(set(seen)) == list(range(14))
        after.append((losses, arrays(made.learner.variables)))
    for one, other in zip(*(losses for losses, _ in after), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for one, other in zip(*(variables for _, variables in after), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_each_window_is_cached_once_and_rows_belong_to_their_units(mixed, assemble, tmp_path):
    made = assemble(mixed, policies.backbone())
    settings, told = Features(views=2, folder=tmp_path / "features"), []
    fewer = views_of(mixed.subset([0, 1], "fewer"), Standard(), 2)
    assert "(0 windows found, 5 computed)" in source(fewer, made.cut, settings).note
    views = views_of(mixed, Standard(), 2)
    found = source(views, made.cut, settings, lambda *progress: told.append(progress))
    assert told[-1] == ("caching features", 18, 18)
    assert "(5 windows found, 9 computed)" in found.note
    for unit in views.units:
        (picture,), targets = views.element(unit)
        features, loaded = found.load(unit)
        for a, b in zip(made.cut.start(picture[None].astype(np.float32)), features, strict=True):
            np.testing.assert_allclose(a[0], b, atol=1e-5)
        for name, value in targets.items():
            np.testing.assert_array_equal(value, loaded[name])
    assert "(14 windows found, 0 computed)" in source(views, made.cut, settings).note
    # The same picture as a whole is no window of it, but where it has no other.
    plain = Views(mixed, SIZE, Standard(), 2)
    assert "(2 pictures found, 3 computed)" in source(plain, made.cut, settings).note


@pytest.mark.parametrize("count", [1, 2])
def test_every_drawn_box_is_found_once_in_whole_pictures(draw, assemble, count):
    large, small = draw(6, size=96), draw(3, size=64, seed=1)
    dataset = replace(large, examples=(*large.examples, *small.examples))
    made = assemble(dataset, policies.backbone(), features=Features(cache=False), windows=Quarters())
    views = views_of(dataset, Flip(), count)
    predictor = Predictor(made.detector, made.cut, replace(made.source, views=views, load=views.element), 4)

    def perfect(_, targets):
        seen = (targets["labels"] >= 0) & ~targets["ignore"]
        return {"boxes": targets["boxes"], "labels": targets["labels"], "scores": tf.cast(seen, tf.float32)}, {}

    predictor.run = perfect
    found, _ = predictor()
    cut_off = 0
    for index, (one, example) in enumerate(zip(found, dataset.examples, strict=True)):
        np.testing.assert_allclose(one.boxes, example.objects.boxes, atol=1e-3)
        assert one.labels.tolist() == example.objects.labels.tolist()
        shares = [move(example.objects.boxes, views.view(u))[1][0] for u in views.units if u.picture == index]
        cut_off += max(shares) < 1
    # Some boxes were whole in no window.
    assert cut_off


def test_predictions_and_losses_are_of_all_windows(mixed, assemble, monkeypatch):
    made = assemble(mixed, policies.backbone(), windows=Quarters())
    joined, join = [], Detection.join
    monkeypatch.setattr(Detection, "join", lambda self, seen: joined.append(len(seen)) or join(self, seen))
    found = predict(made.detector, made.cut, mixed, 4, windows=Quarters())
    assert (len(found), joined) == (5, [4, 4, 4])
    # A picture with one window is predicted as it would be without any.
    plain = predict(made.detector, made.cut, mixed, 4)
    assert joined == [4, 4, 4]
    for index in (1, 3):
        np.testing.assert_allclose(found[index].boxes, plain[index].boxes, atol=1e-4)
    assert (found[0].boxes[:, 2:] > 60).any()
    views = views_of(mixed)
    whole_source = replace(made.source, views=views, load=views.element, encode=encoder(made.cut, False))
    _, losses = Predictor(made.detector, made.cut, whole_source, 4)()
    _, inputs, targets = next(iter(whole_source.batches(views.units, 14)))
    for name, (total, weight) in made.learner.losses(whole_source.encode(inputs), targets, training=False).items():
        assert losses[f"loss/{name}"] == pytest.approx(float(sum(total) / sum(weight)), rel=1e-4)


places = st.tuples(st.integers(0, 60), st.integers(0, 50), st.integers(30, 80), st.integers(30, 70))
shares = st.floats(0, 1, width=32)


@settings(max_examples=200)
@given(
    places,
    st.lists(st.tuples(*[shares] * 4), min_size=1, max_size=5),
    st.sampled_from(["letterbox", "stretch"]),
    st.tuples(st.integers(32, 200), st.integers(32, 200)),
    st.integers(0, 99),
)
def test_a_box_inside_the_window_comes_back_at_its_place(place, corners, resize, size, seed):
    x, y, width, height = place
    window = Window(x, y, x + width, y + height)
    room = np.array([width, height]) - 8
    low = np.array([c[:2] for c in corners]) * room
    high = low + 8 + np.array([c[2:] for c in corners]) * (room - low)
    boxes = (np.hstack([low, high]) + np.array([x, y, x, y])).astype(np.float32)
    truth = Boxes(boxes, np.arange(len(boxes), dtype=np.int32), np.zeros(len(boxes), np.bool_))
    example, task = Example(None, 150, 130, truth), Detection()
    at, rng = Place(7, example, window), np.random.default_rng(seed)
    drawn = draw_view(arranged((Flip(), QuarterTurns())), rng, at.as_picture(0), size, resize)
    view = in_pictures(drawn, [at])
    assert (view.layers[0].picture, view.layers[0].crop) == (7, window)
    arrays = task.arrays([truth], view, len(boxes))
    assert not arrays.pop("ignore").any()
    found = task.prediction({**arrays, "scores": np.ones(len(boxes), np.float32)}, view, example)
    assert found.labels.tolist() == truth.labels.tolist()
    np.testing.assert_allclose(found.boxes, boxes, atol=0.01)
    assert found.window == window

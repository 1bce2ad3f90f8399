"""The order of training, and what a batch holds."""

from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.augment import Geometry, Standard, arranged
from tlx.augment.colours import Brightness, Contrast
from tlx.augment.combinations import CopyPaste, Mixup, Mosaic
from tlx.augment.crops import CropByOverlap
from tlx.augment.flips import Flip
from tlx.augment.pixels import Blur, Noise
from tlx.augment.zoom import Zoom
from tlx.data.dataset import Dataset
from tlx.data.images import read_image
from tlx.data.targets import UNLABELLED, Boxes, ImageClass
from tlx.errors import ConfigError, DataError
from tlx.pipeline import Unit, Views, batches, chunks, order, repeat_factors
from tlx.tasks.detection import PADDING, Detection
from tlx.tiles import Tiles
from tlx.windows import WholePicture

small = st.integers(1, 12)


def whole_ones(pictures):
    return [(i, 0) for i in range(pictures)]


@given(small, small, st.integers(0, 1000))
def test_an_epoch_sees_each_picture_once_and_every_view_before_any_again(pictures, views, seed):
    units = list(islice(order(whole_ones(pictures), views, seed), pictures * views))
    for epoch in range(views):
        seen = units[epoch * pictures : (epoch + 1) * pictures]
        assert sorted(unit.part for unit in seen) == whole_ones(pictures)
    assert len(set(units)) == pictures * views


@given(small, small, st.integers(0, 1000), st.integers(0, 60))
def test_order_goes_on_from_anywhere(pictures, views, seed, start):
    parts = whole_ones(pictures)
    whole = list(islice(order(parts, views, seed), start + 30))
    assert list(islice(order(parts, views, seed, start), 30)) == whole[start:]


def test_epochs_and_seeds_are_shuffled_differently():
    first, second = (list(islice(order(whole_ones(50), 1, seed), 100)) for seed in (0, 1))
    assert first[:50] != first[50:]
    assert first != second


repeating = st.lists(st.floats(1, 5) | st.integers(1, 4), min_size=1, max_size=9)


@given(repeating, small, st.integers(0, 1000))
def test_pictures_come_as_often_as_they_are_due_each_time_another_view(repeats, views, seed):
    wanted, pictures = 60 * len(repeats), range(len(repeats))
    units = list(islice(order(whole_ones(len(repeats)), views, seed, repeats=np.array(repeats)), wanted))
    shown = [[unit.view for unit in units if unit.picture == picture] for picture in pictures]
    for picture, due in zip(pictures, repeats, strict=True):
        # The last epoch is cut short; before it, no picture was a whole time away from what it was due.
        assert abs(len(shown[picture]) - wanted * due / sum(repeats)) <= 2 * due + 1
        assert np.ptp(np.bincount(shown[picture], minlength=views)) <= due + 1


@given(repeating, st.integers(0, 1000), st.integers(0, 200))
def test_order_with_repeats_goes_on_from_anywhere(repeats, seed, start):
    parts = whole_ones(len(repeats))
    whole = list(islice(order(parts, 3, seed, repeats=np.array(repeats)), start + 30))
    assert list(islice(order(parts, 3, seed, start, np.array(repeats)), 30)) == whole[start:]
    alike = np.ones(len(repeats))
    assert list(islice(order(parts, 3, seed, start, alike), 30)) == list(islice(order(parts, 3, seed, start), 30))


def test_a_pictures_rarest_class_decides_how_often_it_comes():
    classes = [np.array(found, int) for found in ([0], [0, 1], [0], [], [0, 2], [1, 0], [0], [0])]
    repeats = repeat_factors(classes, 0.5)
    # Of eight pictures, seven have class 0, two class 1 and one class 2.
    np.testing.assert_allclose(repeats, np.sqrt([1, 2, 1, 1, 4, 2, 1, 1]))
    assert (repeat_factors(classes, 0.1) == 1).all()
    assert (repeat_factors([np.zeros(0, int)], 1.0) == 1).all()


def test_what_is_not_learnt_makes_no_picture_rare(draw):
    data = draw(4)
    ignored = replace(data.examples[1].targets, ignore=np.array([True]), labels=np.array([-1], np.int32))
    data = replace(data, examples=(data.examples[0], replace(data.examples[1], targets=ignored), *data.examples[2:]))
    np.testing.assert_allclose(Views(data, (64, 64)).repeats(1.0), np.sqrt([2, 1, 2, 4]))
    whole = data.subset([0, 2, 3], "alike").of_whole_images()
    np.testing.assert_allclose(Views(whole, (64, 64)).repeats(1.0), np.sqrt([1.5, 1.5, 3]))


@pytest.mark.parametrize("views", [1, 3])
def test_batches_keep_the_order_and_the_short_last_one(views):
    units = [Unit(i, 0, v) for i in (5, 0, 3, 1, 4, 2, 6) for v in range(views)]

    def load(unit):
        return (np.full((2, 3), unit.picture, np.float32), np.array(unit.view)), {"index": np.array(unit.picture)}

    seen = list(batches(load, chunks(units, 4, 4)))
    assert np.concatenate([batch[0] for batch in seen]).tolist() == [list(unit) for unit in units]
    assert [len(batch[0]) for batch in seen] == [4] * (len(units) // 4) + [len(units) % 4] * (len(units) % 4 > 0)
    for numbers, (features, numbered), targets in seen:
        assert targets["index"].numpy().tolist() == numbers[:, 0].tolist()
        assert features.shape == (len(numbers), 2, 3)
        assert (features.numpy() == numbers[:, :1, None]).all()
        assert (numbered.numpy() == numbers[:, 2]).all()


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 15))
def test_chunks_fill_batches_exactly(total, batch_size, micro):
    units = [Unit(i) for i in range(total)]
    made = list(chunks(units, batch_size, micro))
    assert [unit for chunk in made for unit in chunk] == units
    assert all(0 < len(chunk) <= micro for chunk in made)
    ends = set(np.cumsum([len(chunk) for chunk in made]).tolist())
    assert set(range(batch_size, total + 1, batch_size)) <= ends
    # A part of one example alone would give a BatchNorm nothing to go by.
    if total >= batch_size:
        sizes = [len(chunk) for chunk in made[: -(-batch_size // micro)]]
        assert max(sizes) - min(sizes) <= 1


def test_nothing_is_loaded_far_ahead_of_what_is_asked_for():
    loaded = []

    def load(unit):
        loaded.append(unit)
        return (np.zeros(1),), {}

    first = next(batches(load, ([Unit(i)] for i in count())))
    assert first[0].tolist() == [[0, 0, 0]]
    assert len(loaded) < 10


def test_batches_have_the_shapes_of_their_elements(draw):
    views = Views(draw(3), (64, 96))
    of_one = {"boxes": (1, 4), "labels": (1,), "ignore": (1,)}
    sizes = []
    for units, (image,), targets in batches(views.element, chunks(views.units, 2, 2)):
        sizes.append(len(units))
        assert (units.shape, tuple(image.shape)) == ((len(units), 3), (len(units), 64, 96, 3))
        assert {name: tuple(array.shape) for name, array in targets.items()} == {
            name: (len(units), *shape) for name, shape in of_one.items()
        }
    assert sizes == [2, 1]


def test_pictures_without_labels_have_no_targets(draw):
    dataset = draw(3)
    bare = replace(dataset, examples=tuple(replace(example, targets=UNLABELLED) for example in dataset.examples))
    views = Views(bare, (64, 96))
    assert [targets for _, _, targets in batches(views.element, chunks(views.units, 2, 2))] == [{}, {}]


def test_targets_are_what_the_task_makes_of_the_view_in_the_room_that_the_fullest_picture_needs(draw):
    dataset = draw(2)
    one = dataset.examples[0]
    double = Boxes(*(np.repeat(array, 2, 0) for array in one.targets.arrays.values()))
    views = Views(replace(dataset, examples=(replace(one, targets=double), dataset.examples[1])), (64, 96), Standard())
    assert views.room == 2
    made = views.targets(Unit(1))
    expected = Detection().arrays([dataset.examples[1].targets], views.view(Unit(1)), 2)
    assert made.keys() == expected.keys()
    assert all((made[name] == expected[name]).all() for name in made)


def test_what_loading_raises_comes_out_as_it_is(draw):
    views = Views(draw(3), (64, 96))
    views.dataset.examples[1].image.write_bytes(b"no picture any more")
    with pytest.raises(DataError, match=views.dataset.examples[1].image.name):
        list(batches(views.element, chunks(views.units, 2, 2)))


def test_a_view_depends_on_seed_content_and_number_alone(draw, tmp_path):
    dataset = draw(3)
    one = Views(dataset, (64, 64), Standard(), 4, seed=1)
    # In another dataset, at another place and under another name, the same picture has the same views.
    copied = replace(dataset.examples[2], image=tmp_path / "copy.png")
    copied.image.write_bytes(dataset.examples[2].image.read_bytes())
    other = Views(Dataset("first", dataset.classes, (dataset.examples[0], copied)), (64, 64), Standard(), 9, seed=1)
    for number in (3, 0, 2):
        assert (one.view(Unit(0, view=number)).matrix == other.view(Unit(0, view=number)).matrix).all()
        assert (one.view(Unit(2, view=number)).matrix == other.view(Unit(1, view=number)).matrix).all()
    assert one.depends((2, 0)) == other.depends((1, 0))
    changed = [
        one.view(Unit(0, view=1)),
        one.view(Unit(1)),
        Views(dataset, (64, 64), Standard(), 4, seed=2).view(Unit(0)),
    ]
    assert all((view.matrix != one.view(Unit(0)).matrix).any() for view in changed)


def test_what_a_view_depends_on_tells_all_that_changes_it(draw):
    dataset = draw(5)
    plain = Views(dataset, (64, 64), Standard(), 4)
    less = dataset.subset([0, 1, 2], "less")
    assert plain.depends((0, 0)) != plain.depends((1, 0))
    assert plain.depends((0, 0)) == replace(plain, dataset=less, count=9).depends((0, 0))
    for change in ({"augment": Flip()}, {"resize": "stretch"}, {"seed": 3}, {"size": (64, 96)}):
        assert replace(plain, **change).depends((0, 0)) != plain.depends((0, 0))
    # Labels matter to those that look at them alone, and the dataset to those that mix pictures.
    first = dataset.examples[0]
    halved = Boxes(first.targets.boxes / 2, first.targets.labels, first.targets.ignore)
    moved = replace(dataset, examples=(replace(first, targets=halved), *dataset.examples[1:]))
    assert replace(plain, dataset=moved).depends((0, 0)) == plain.depends((0, 0))
    for augment, over in ((CropByOverlap(), moved), (Mosaic(), less)):
        seeing = replace(plain, augment=augment)
        assert replace(seeing, dataset=over).depends((0, 0)) != seeing.depends((0, 0))
    assert Views(dataset, (64, 64), seed=1).depends((0, 0)) == Views(dataset, (64, 64), seed=2).depends((0, 0))


@pytest.mark.parametrize("augment", [Mosaic(probability=1.0), Mixup(probability=1.0), CopyPaste(probability=1.0)])
def test_several_pictures_in_a_view_bring_their_objects_and_there_is_room_for_all(draw, augment):
    dataset = draw(6)
    three = Boxes(np.repeat(dataset.examples[0].targets.boxes, 3, 0), np.zeros(3, np.int32), np.zeros(3, bool))
    crowded = replace(dataset.examples[0], targets=three)
    views = Views(replace(dataset, examples=(crowded, *dataset.examples[1:])), (96, 96), augment, 8)
    assert views.room == 3 + augment.pictures - 1
    seen = [sorted({layer.picture for layer in views.view(unit).layers}) for unit in views.units]
    assert max(map(len, seen)) == augment.pictures
    assert {picture for pictures in seen for picture in pictures} == set(range(6))
    for unit in views.units[:24]:
        (picture,), targets = views.element(unit)
        assert (picture.shape, picture.dtype) == ((96, 96, 3), np.uint8)
        again = views.targets(unit)
        assert targets.keys() == again.keys()
        assert all((targets[name] == again[name]).all() for name in again)
    assert max((views.targets(unit)["labels"] != PADDING).sum() for unit in views.units) > 1


@pytest.mark.parametrize("augment", [Zoom((0.3, 3.0)), Mosaic(probability=1.0), CopyPaste(9, probability=1.0)])
def test_where_pictures_are_cut_there_is_room_for_the_fullest_window_of_each(draw, augment):
    """Memory is measured of batches with so much room: of a picture's objects a window has but a few."""
    dataset = draw(2, size=96)
    corners = np.stack(np.meshgrid(np.arange(0, 96, 12), np.arange(0, 96, 12)), -1).reshape(-1, 2)
    crowded = np.concatenate([corners[:32], corners[:32] + 11], 1).astype(np.float32)
    many = Boxes(crowded, np.zeros(32, np.int32), np.zeros(32, bool))
    dataset = replace(dataset, examples=(replace(dataset.examples[0], targets=many), dataset.examples[1]))
    views = Views(dataset, (64, 64), augment, 6, windows=Tiles(48, 0.0))
    # Four rows of boxes, eight in each, of which a window has four; the other picture has one box.
    assert len(views.parts) == 8
    assert views.room == 16 * -(-augment.pictures // 2) + augment.pictures // 2
    assert replace(views, windows=WholePicture()).room == 32 * -(-augment.pictures // 2) + augment.pictures // 2
    most = max((views.targets(unit)["labels"] != PADDING).sum() for unit in views.units)
    assert 16 <= most <= views.room


def test_a_dataset_of_one_picture_is_combined_with_itself(draw):
    views = Views(draw(1), (96, 96), (Mosaic(probability=1.0), Mixup(probability=1.0)), 3)
    assert (views.pictures, views.room) == (5, 5)
    assert {layer.picture for layer in views.view(Unit(0, view=1)).layers} == {0}
    assert views.element(Unit(0, view=1))[0][0].shape == (96, 96, 3)


def test_pictures_with_a_class_each_are_not_combined(draw):
    examples = tuple(replace(example, targets=ImageClass(1)) for example in draw(2).examples)
    labelled = Dataset("labelled", ("a", "b"), examples, task="classification")
    Views(labelled, (64, 64), Standard())
    with pytest.raises(ConfigError, match=r"Mixup.*combines pictures"):
        Views(labelled, (64, 64), (Flip(), Mixup()))


def test_operations_come_by_kind_and_within_a_kind_as_written():
    given = (Noise(), Contrast(), Zoom(), Blur(), Flip(), Mosaic(), Brightness())
    assert arranged(given) == (Mosaic(), Zoom(), Flip(), Contrast(), Brightness(), Noise(), Blur())
    assert arranged((Blur(), Standard())) == (*arranged(Standard()), Blur())
    assert arranged([Flip()]) == arranged(Flip()) == (Flip(),)
    assert arranged(None) == ()
    with pytest.raises(ConfigError, match="no operation"):
        arranged((Flip(), "blur"))


def test_without_augmentation_every_view_is_the_letterbox(draw):
    dataset = draw(2)
    views = Views(dataset, (64, 64), None, 2)
    (picture,), targets = views.element(Unit(1, view=1))
    np.testing.assert_array_equal(picture, read_image(dataset.examples[1].image))
    np.testing.assert_array_equal(targets["boxes"], dataset.examples[1].objects.boxes)
    assert targets["labels"].tolist() == [1]
    assert targets["ignore"].tolist() == [False]


class Flatten(Geometry):
    """What no picture can show."""

    def __call__(self, rng, scene):
        return scene.moved(np.zeros((2, 3)))


def test_a_view_that_cannot_be_drawn_is_refused(draw):
    views = Views(draw(1), (64, 64), (Flip(), Flatten()))
    with pytest.raises(ConfigError, match=r"run\.augment = \(Flip\(probability=0\.5\), .*cannot be drawn"):
        views.targets(Unit(0))

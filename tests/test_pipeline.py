"""The order of training, and what a batch holds."""

from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.augment import Standard, View
from tlx.data.dataset import Dataset, Example
from tlx.data.images import read_image
from tlx.data.targets import ANY_CLASS
from tlx.errors import DataError
from tlx.pipeline import PADDING, Views, batches, chunks, order

small = st.integers(1, 12)


@given(small, small, st.integers(0, 1000))
def test_an_epoch_sees_each_picture_once_and_every_view_before_any_again(pictures, views, seed):
    units = list(islice(order(pictures, views, seed), pictures * views))
    for epoch in range(views):
        seen = units[epoch * pictures : (epoch + 1) * pictures]
        assert sorted(index for index, _ in seen) == list(range(pictures))
    assert len(set(units)) == pictures * views


@given(small, small, st.integers(0, 1000), st.integers(0, 60))
def test_order_goes_on_from_anywhere(pictures, views, seed, start):
    whole = list(islice(order(pictures, views, seed), start + 30))
    assert list(islice(order(pictures, views, seed, start), 30)) == whole[start:]


def test_epochs_and_seeds_are_shuffled_differently():
    first, second = (list(islice(order(50, 1, seed), 100)) for seed in (0, 1))
    assert first[:50] != first[50:]
    assert first != second


@pytest.mark.parametrize("views", [1, 3])
def test_batches_keep_the_order_and_the_short_last_one(views):
    units = [(i, v) for i in (5, 0, 3, 1, 4, 2, 6) for v in range(views)]

    def load(index, view):
        return np.full((2, 3), index, np.float32), np.array(view, np.int32)

    seen = [[np.array(a) for a in batch] for batch in batches(load, chunks(units, 4, 4))]
    assert np.concatenate([batch[0] for batch in seen]).tolist() == [list(unit) for unit in units]
    assert [len(batch[0]) for batch in seen] == [4] * (len(units) // 4) + [len(units) % 4] * (len(units) % 4 > 0)
    for numbers, features, numbered in seen:
        assert features.shape == (len(numbers), 2, 3)
        assert (features == numbers[:, :1, None]).all()
        assert (numbered == numbers[:, 1]).all()


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 15))
def test_chunks_fill_batches_exactly(total, batch_size, micro):
    units = [(i, 0) for i in range(total)]
    made = list(chunks(units, batch_size, micro))
    assert [unit for chunk in made for unit in chunk] == units
    assert all(0 < len(chunk) <= micro for chunk in made)
    ends = set(np.cumsum([len(chunk) for chunk in made]).tolist())
    assert set(range(batch_size, total + 1, batch_size)) <= ends


def test_nothing_is_loaded_far_ahead_of_what_is_asked_for():
    loaded = []

    def load(index, view):
        loaded.append(index)
        return (np.zeros(1),)

    first = next(batches(load, ([(i, 0)] for i in count())))
    assert first[0].tolist() == [[0, 0]]
    assert len(loaded) < 10


def test_batches_have_the_shapes_of_their_elements(draw):
    views = Views(draw(3), (64, 96))
    shapes = [[tuple(part.shape) for part in batch] for batch in batches(views.element, chunks(views.units, 2, 2))]
    one_picture = [(2,), (64, 96, 3), (1, 4), (1,), (1,)]
    assert shapes == [[(size, *shape) for shape in one_picture] for size in (2, 1)]


def test_what_loading_raises_comes_out_as_it_is(draw):
    views = Views(draw(3), (64, 96))
    views.dataset.examples[1].image.write_bytes(b"no picture any more")
    with pytest.raises(DataError, match=views.dataset.examples[1].image.name):
        list(batches(views.element, chunks(views.units, 2, 2)))


def test_a_view_depends_on_seed_index_and_number_alone(draw):
    dataset = draw(3)
    one = Views(dataset, (64, 64), Standard(), 4, seed=1)
    # A subset that begins with the same picture shows the same views of it, in any order of asking.
    other = Views(dataset.subset([0], "first"), (64, 64), Standard(), 9, seed=1)
    for number in (3, 0, 2):
        assert (one.view(0, number).matrix == other.view(0, number).matrix).all()
    changed = [one.view(0, 1), one.view(1, 0), Views(dataset, (64, 64), Standard(), 4, seed=2).view(0, 0)]
    assert all((view.matrix != one.view(0, 0).matrix).any() for view in changed)


def test_without_augmentation_every_view_is_the_letterbox(draw):
    dataset = draw(2)
    views = Views(dataset, (64, 64), None, 2)
    picture, boxes, labels, ignore = views.element(1, 1)
    np.testing.assert_array_equal(picture, read_image(dataset.examples[1].image))
    np.testing.assert_array_equal(boxes, dataset.examples[1].objects.boxes)
    assert labels.tolist() == [1]
    assert ignore.tolist() == [False]


class Shift:
    """Everything moves 50 pixels to the left."""

    def __call__(self, rng, width, height, size):
        return View(np.array([[1.0, 0, -50], [0, 1, 0]]))


def example(boxes, labels, ignore):
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32), np.array(ignore, bool)
    return Example(Path("none.png"), 100, 100, *arrays)


def test_padding_and_boxes_that_leave_the_frame():
    boxes = [[0, 0, 40, 40], [40, 0, 60, 20], [20, 0, 60, 20], [60, 0, 90, 20], [0, 0, 100, 100]]
    full = example(boxes, [0, 1, 0, 1, ANY_CLASS], [False, False, False, False, True])
    dataset = Dataset("shifted", ("a", "b"), (full, example([], [], [])))
    views = Views(dataset, (100, 100), Shift())
    assert views.slots == 5
    moved, labels, ignore = views.targets(0, 0)
    # The first is gone; of the second half is left; of the third a quarter, too little to be learnt or punished.
    assert moved[:4].tolist() == [[0, 0, 10, 20], [0, 0, 10, 20], [10, 0, 40, 20], [0, 0, 50, 100]]
    assert labels.tolist() == [1, 0, 1, ANY_CLASS, PADDING]
    assert ignore.tolist() == [False, True, False, True, False]
    assert (moved[4] == 0).all()
    none, labels, ignore = views.targets(1, 0)
    assert none.shape == (5, 4)
    assert (labels == PADDING).all()
    assert not ignore.any()


def test_slivers_of_less_than_a_pixel_are_left_out():
    dataset = Dataset("sliver", ("a",), (example([[0, 0, 50.5, 40]], [0], [False]),))
    assert Views(dataset, (100, 100), Shift()).targets(0, 0)[1].tolist() == [PADDING]


def test_a_dataset_without_boxes_has_room_for_one():
    views = Views(Dataset("empty", (), (example([], [], []),)), (32, 32))
    assert [a.shape for a in views.targets(0, 0)] == [(1, 4), (1,), (1,)]

"""The order of training, and what a batch holds."""

from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.augment import Standard
from tlx.data.images import read_image
from tlx.data.targets import UNLABELLED, Boxes
from tlx.errors import DataError
from tlx.pipeline import Views, batches, chunks, order
from tlx.tasks.detection import Detection

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
        return (np.full((2, 3), index, np.float32), np.array(view, np.int32)), {"index": np.array(index)}

    seen = list(batches(load, chunks(units, 4, 4)))
    assert np.concatenate([batch[0] for batch in seen]).tolist() == [list(unit) for unit in units]
    assert [len(batch[0]) for batch in seen] == [4] * (len(units) // 4) + [len(units) % 4] * (len(units) % 4 > 0)
    for numbers, (features, numbered), targets in seen:
        assert targets["index"].numpy().tolist() == numbers[:, 0].tolist()
        assert features.shape == (len(numbers), 2, 3)
        assert (features.numpy() == numbers[:, :1, None]).all()
        assert (numbered.numpy() == numbers[:, 1]).all()


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
        return (np.zeros(1),), {}

    first = next(batches(load, ([(i, 0)] for i in count())))
    assert first[0].tolist() == [[0, 0]]
    assert len(loaded) < 10


def test_batches_have_the_shapes_of_their_elements(draw):
    views = Views(draw(3), (64, 96))
    of_one = {"boxes": (1, 4), "labels": (1,), "ignore": (1,)}
    sizes = []
    for units, (image,), targets in batches(views.element, chunks(views.units, 2, 2)):
        sizes.append(len(units))
        assert (units.shape, tuple(image.shape)) == ((len(units), 2), (len(units), 64, 96, 3))
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
    made = views.targets(1, 0)
    expected = Detection().arrays(dataset.examples[1].targets, views.view(1, 0), (64, 96), 2)
    assert made.keys() == expected.keys()
    assert all((made[name] == expected[name]).all() for name in made)


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
    (picture,), targets = views.element(1, 1)
    np.testing.assert_array_equal(picture, read_image(dataset.examples[1].image))
    np.testing.assert_array_equal(targets["boxes"], dataset.examples[1].objects.boxes)
    assert targets["labels"].tolist() == [1]
    assert targets["ignore"].tolist() == [False]

"""A dataset becomes batches: views of pictures, in an order that depends on nothing but the seed."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tlx.augment import Augmentation, View, letterbox, look, move
from tlx.data.dataset import Dataset, Example
from tlx.data.images import open_image
from tlx.errors import TlxError
from tlx.lazy import tf

PADDING = -2
# Less of an object than this in view is neither an object nor background.
_MIN_VISIBLE = 0.3

Unit = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a dataset at one input size: `count` of each picture, or only the whole picture.

    Which view comes out depends on `seed`, the picture's index and the view's number alone. Elements are
    (image uint8 [h, w, 3], boxes float32 [m, 4] in input pixels, labels int32 [m] with `PADDING` at unused
    places, ignore bool [m]), where m is the same for all elements.
    """

    dataset: Dataset
    size: tuple[int, int]
    augment: Augmentation | None = None
    count: int = 1
    seed: int = 0

    @cached_property
    def slots(self) -> int:
        """How many boxes an element has room for: the most that one picture has, at least one."""
        return max([1, *(len(example.boxes) for example in self.dataset.examples)])

    @property
    def units(self) -> list[Unit]:
        """Every (picture, view) there is, picture by picture."""
        return [(i, v) for i in range(len(self.dataset)) for v in range(self.count)]

    def view(self, index: int, number: int) -> View:
        """Return the view with this number of the picture at `index`."""
        example = self.dataset.examples[index]
        if self.augment is None:
            return letterbox(example.width, example.height, self.size)
        return self.augment(np.random.default_rng([self.seed, index, number]), example.width, example.height, self.size)

    def element(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return one element: the picture as the view shows it, and its padded boxes, labels and ignore flags."""
        example, view = self.dataset.examples[index], self.view(index, number)
        return look(open_image(example.image), view, self.size), *self._targets(example, view)

    def targets(self, index: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the boxes, labels and ignore flags of one element, without opening the picture."""
        return self._targets(self.dataset.examples[index], self.view(index, number))

    def _targets(self, example: Example, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        moved, visible = move(example.boxes, view, self.size)
        kept = np.flatnonzero((visible > 0) & (moved[:, 2:] - moved[:, :2] >= 1).all(1))
        boxes = np.zeros((self.slots, 4), np.float32)
        labels = np.full(self.slots, PADDING, np.int32)
        ignore = np.zeros(self.slots, np.bool_)
        boxes[: len(kept)], labels[: len(kept)] = moved[kept], example.labels[kept]
        ignore[: len(kept)] = example.ignore[kept] | (visible[kept] < _MIN_VISIBLE)
        return boxes, labels, ignore


def order(pictures: int, views: int, seed: int, start: int = 0) -> Iterator[Unit]:
    """Yield training units for ever, from position `start`: every picture once an epoch, each time another view."""
    epoch = start // pictures
    while True:
        shuffled = np.random.default_rng([seed, epoch]).permutation(pictures)
        for index in shuffled[max(0, start - epoch * pictures) :]:
            yield int(index), (int(index) + epoch) % views
        epoch += 1


def batches(load: Callable[[int, int], tuple], units: list[Unit], batch_size: int) -> Iterator[tuple]:
    """Yield what `load` gives for `units` in batches, in order, loaded ahead in parallel.

    Each batch is (units int32 [b, 2], then one tensor for each array that `load` returns). A last short
    batch is kept. What `load` raises comes out as it is.
    """
    sample = load(*units[0])
    raised: list[TlxError] = []

    def run(unit: np.ndarray) -> tuple:
        try:
            return load(int(unit[0]), int(unit[1]))
        except TlxError as error:
            # TensorFlow would turn it into an error of its own.
            raised.append(error)
            raise

    def read(unit: Any) -> Any:
        arrays = tf.numpy_function(run, [unit], [array.dtype for array in sample])
        for array, like in zip(arrays, sample, strict=True):
            array.set_shape(like.shape)
        return (unit, *arrays)

    rows = tf.data.Dataset.from_tensor_slices(np.array(units, np.int32))
    options = tf.data.Options()
    # Its tuner sleeps for up to 1.3 s at a time, and the end of every pass over the data would wait for that.
    options.autotune.enabled = False
    loaded = rows.map(read, os.cpu_count(), deterministic=True).batch(batch_size).prefetch(2)
    try:
        yield from loaded.with_options(options)
    except tf.errors.OpError:
        if raised:
            raise raised[0] from None
        raise

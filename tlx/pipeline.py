"""A dataset becomes batches: views of pictures, in an order that depends on nothing but the seed."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tlx.augment import Augmentation, View, letterbox, look, move
from tlx.data.dataset import Dataset, Example
from tlx.data.images import open_image
from tlx.lazy import tf

PADDING = -2
# Less of an object than this in view is neither an object nor background.
_MIN_VISIBLE = 0.3
# So many batches wait, loaded, for the one that is worked on.
AHEAD = 2

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


def chunks(units: Iterable[Unit], batch_size: int, micro: int) -> Iterator[list[Unit]]:
    """Yield lists of at most `micro` units which, one after another, fill batches of `batch_size` exactly."""
    batch: list[Unit] = []
    for unit in units:
        batch.append(unit)
        if len(batch) == batch_size:
            yield from (batch[i : i + micro] for i in range(0, batch_size, micro))
            batch = []
    yield from (batch[i : i + micro] for i in range(0, len(batch), micro))


def batches(load: Callable[[int, int], tuple], wanted: Iterable[list[Unit]]) -> Iterator[tuple]:
    """Yield what `load` gives for each list of units, in order, loaded ahead in parallel.

    Each batch is (units int32 [b, 2], then one tensor for each array that `load` returns). What `load`
    raises comes out as it is.
    """

    def gathered(units: list[Unit], loaded: list[Future]) -> tuple:
        columns = zip(*(one.result() for one in loaded), strict=True)
        return (np.array(units, np.int32), *(tf.convert_to_tensor(np.stack(column)) for column in columns))

    # The threads that load gather too; what a batch waits for was handed in before it, so none can wait for ever.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ahead: deque[Future] = deque()
        try:
            for units in wanted:
                ahead.append(pool.submit(gathered, units, [pool.submit(load, *unit) for unit in units]))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

"""A dataset becomes batches: views of pictures, in an order that depends on nothing but the seed."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tlx.augment import Augmentation, View, letterbox, look
from tlx.data.dataset import Dataset
from tlx.data.images import open_image
from tlx.data.targets import UNLABELLED
from tlx.lazy import tf
from tlx.tasks.task import Arrays, Task, task_of

# So many batches wait, loaded, for the one that is worked on.
AHEAD = 2

Unit = tuple[int, int]
# What a model reads of one example, and the task's arrays of it.
Element = tuple[tuple[np.ndarray, ...], Arrays]


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a dataset at one input size: `count` of each picture, or only the whole picture.

    Which view comes out depends on `seed`, the picture's index and the view's number alone. Elements are
    ((image uint8 [h, w, 3],), the arrays of `Task.arrays`); an unlabelled picture has no arrays.
    """

    dataset: Dataset
    size: tuple[int, int]
    augment: Augmentation | None = None
    count: int = 1
    seed: int = 0

    @cached_property
    def task(self) -> Task:
        """What the dataset's labels mean."""
        return task_of(self.dataset.task)

    @cached_property
    def room(self) -> Any:
        """How much room the arrays of an element have, in the task's own terms."""
        return self.task.room(self.dataset)

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

    def element(self, index: int, number: int) -> Element:
        """Return one element: the picture as the view shows it, and its targets."""
        picture = look(open_image(self.dataset.examples[index].image), self.view(index, number), self.size)
        return (picture,), self.targets(index, number)

    def targets(self, index: int, number: int) -> Arrays:
        """Return the targets of one element, without opening the picture."""
        targets = self.dataset.examples[index].targets
        if targets is UNLABELLED:
            return {}
        return self.task.arrays(targets, self.view(index, number), self.size, self.room)


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


def batches(load: Callable[[int, int], Element], wanted: Iterable[list[Unit]]) -> Iterator[tuple]:
    """Yield what `load` gives for each list of units, in order, loaded ahead in parallel.

    Each batch is (units int32 [b, 2], a tuple of inputs, a dict of targets), all of them tensors [b, ...]. What
    `load` raises comes out as it is.
    """

    def gathered(units: list[Unit], loaded: list[Future]) -> tuple:
        inputs, targets = zip(*(one.result() for one in loaded), strict=True)
        return (
            np.array(units, np.int32),
            tuple(tf.convert_to_tensor(np.stack(column)) for column in zip(*inputs, strict=True)),
            {name: tf.convert_to_tensor(np.stack([one[name] for one in targets])) for name in targets[0]},
        )

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

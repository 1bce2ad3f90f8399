"""A dataset becomes batches: views of pictures, in an order that depends on nothing but the seed."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tlx.augment import Augmentation, Operation, Picture, Resize, View, arranged, draw_view, look, pictures_of, whole
from tlx.data.dataset import Dataset
from tlx.data.images import file_hash, open_image
from tlx.data.targets import UNLABELLED
from tlx.errors import ConfigError
from tlx.lazy import tf
from tlx.tasks.task import Arrays, Task, task_of

# So many batches wait, loaded, for the one that is worked on.
AHEAD = 2

Unit = tuple[int, int]
# What a model reads of one example, and the task's arrays of it.
Element = tuple[tuple[np.ndarray, ...], Arrays]


def height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that a setting such as `run.image_size` means: one number is both."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a dataset at one input size: `count` of each picture, or only the whole picture.

    Which view comes out depends on `seed`, the picture's content and the view's number alone, but for augmentations
    that look at objects or at other pictures. Elements are ((image uint8 [h, w, 3],), the arrays of `Task.arrays`); an
    unlabelled picture has no arrays.

    Raises:
      ConfigError: `augment` holds something that is no augmentation, or combines pictures of a task that cannot.
    """

    dataset: Dataset
    size: tuple[int, int]
    augment: Augmentation | tuple[Augmentation, ...] | None = None
    count: int = 1
    seed: int = 0
    resize: Resize = "letterbox"

    def __post_init__(self):
        if self.pictures > 1 and not self.task.combines:
            combined = next(operation for operation in self.operations if operation.pictures > 1)
            what = f"{combined!r} combines pictures, and {self.task.name} cannot combine their labels"
            raise ConfigError(f"run.augment: {what}: leave it out")

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """What views are drawn by, in order."""
        return arranged(self.augment)

    @property
    def pictures(self) -> int:
        """How many pictures one view takes."""
        return pictures_of(self.operations)

    @cached_property
    def task(self) -> Task:
        """What the dataset's labels mean."""
        return task_of(self.dataset.task)

    @cached_property
    def room(self) -> Any:
        """How much room the arrays of an element have, in the task's own terms."""
        return self.task.room(self.dataset, self.pictures)

    @property
    def units(self) -> list[Unit]:
        """Every (picture, view) there is, picture by picture."""
        return [(i, v) for i in range(len(self.dataset)) for v in range(self.count)]

    def view(self, index: int, number: int) -> View:
        """Return the view with this number of the picture at `index`, without opening a picture."""
        if not self.operations:
            return whole(self._picture(index), self.size, self.resize)
        rng = np.random.default_rng([self.seed, self._content(index), number])
        others = [self._picture(other) for other in self._others(rng, index)]
        return draw_view(self.operations, rng, self._picture(index), self.size, self.resize, others)

    def depends(self, index: int) -> str:
        """Return a text of all that the views of the picture at `index` depend on, but for their numbers."""
        says = (self.size, self.resize, self.operations, self.seed if self.operations else None)
        # Which other pictures come into a view hangs on the place in the dataset, too.
        return repr(says) + (f"{index} of {self._dataset}" if self.pictures > 1 else "") + self._known(index)

    @cached_property
    def _dataset(self) -> str:
        known = "".join(self._known(i) for i in range(len(self.dataset)))
        return hashlib.sha256(known.encode()).hexdigest()

    def _known(self, index: int) -> str:
        """Return a text of what the views of any picture may depend on of the one at `index`."""
        example = self.dataset.examples[index]
        sees_objects = any(operation.sees_objects for operation in self.operations)
        objects = (example.objects.boxes.tolist(), example.objects.ignore.tolist()) if sees_objects else ()
        return repr((file_hash(example.image), objects))

    def element(self, index: int, number: int) -> Element:
        """Return one element: the picture as the view shows it, and its targets."""
        view = self.view(index, number)
        pictures = {at: open_image(self.dataset.examples[at].image) for at in {layer.picture for layer in view.layers}}
        return (look(pictures, view),), self._targets(view)

    def targets(self, index: int, number: int) -> Arrays:
        """Return the targets of one element, without opening the picture."""
        return self._targets(self.view(index, number))

    def _targets(self, view: View) -> Arrays:
        shown = [self.dataset.examples[layer.picture].targets for layer in view.layers]
        return {} if shown[0] is UNLABELLED else self.task.arrays(shown, view, self.room)

    def _picture(self, index: int) -> Picture:
        example = self.dataset.examples[index]
        return Picture(index, example.width, example.height, example.objects.boxes, example.objects.ignore)

    @cached_property
    def _contents(self) -> dict[int, int]:
        return {}

    def _content(self, index: int) -> int:
        """Return a number that stands for a picture's content; the file is read once."""
        if index not in self._contents:
            self._contents[index] = int(file_hash(self.dataset.examples[index].image)[:16], 16)
        return self._contents[index]

    def _others(self, rng: np.random.Generator, index: int) -> list[int]:
        """Draw the other pictures of a view: no picture comes twice while there are enough of them."""
        wanted, there = self.pictures - 1, len(self.dataset)
        if wanted == 0:
            return []
        drawn = (rng.choice(there - 1, min(wanted, there - 1), replace=False) + index + 1) % there if there > 1 else []
        cycle = [index, *(int(other) for other in drawn)]
        return [cycle[i % len(cycle)] for i in range(1, self.pictures)]


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

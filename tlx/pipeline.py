"""A dataset becomes batches: views of pictures' windows, in an order that depends on nothing but the seed."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice, pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np

from tlx.augment import Augmentation, Operation, Picture, Resize, View, arranged, draw_view, look, pictures_of, whole
from tlx.data.dataset import Dataset
from tlx.data.targets import UNLABELLED
from tlx.errors import ConfigError
from tlx.lazy import tf
from tlx.tasks.task import Arrays, Task, task_of
from tlx.windows import Place, WholePicture, Windows, in_pictures, places_of, sampled

# So many batches wait, loaded, for the one that is worked on.
AHEAD = 2

# The position of a picture in the dataset, and the number of one of its windows.
Part = tuple[int, int]
# What a model reads of one example, and the task's arrays of it.
Element = tuple[tuple[np.ndarray, ...], Arrays]


class Unit(NamedTuple):
    """What is computed at once: a picture's position in the dataset, and the numbers of a window of it and a view."""

    picture: int
    window: int = 0
    view: int = 0

    @property
    def part(self) -> Part:
        """The window that it is a view of."""
        return self.picture, self.window


def height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that a setting such as `run.image_size` means: one number is both."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


@dataclass(frozen=True, eq=False)
class Views:
    """The views of a dataset at one input size: `count` of each window of each picture.

    Without `augment` each view shows the window as it is; where `count` is 0, every epoch draws new ones.
    `windows` says which windows a picture has: by default, one that is all of it. A view shows nothing of a picture
    beside its window. Of the windows without objects, `empty` are taken for each that has some. Which view comes out
    depends on `seed`, the picture's content, the window and the view's number alone, but for augmentations that look
    at objects or at other pictures. Elements are ((image uint8 [h, w, 3],), the arrays of `Task.arrays`); an unlabelled
    picture has no arrays.

    Raises:
      ConfigError: `augment` holds something that is no augmentation, or combines pictures of a task that cannot.
    """

    dataset: Dataset
    size: tuple[int, int]
    augment: Augmentation | tuple[Augmentation, ...] | None = None
    count: int = 1
    seed: int = 0
    resize: Resize = "letterbox"
    windows: Windows = WholePicture()
    empty: float = inf

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
        # A view of several pictures shows one window of each.
        fullest = [max((place.seen for place in places), key=lambda one: len(one.objects)) for places in self._cut]
        return self.task.room(replace(self.dataset, examples=tuple(fullest)), self.pictures)

    @cached_property
    def _cut(self) -> list[tuple[Place, ...]]:
        return [places_of(i, self.dataset, self.windows) for i in range(len(self.dataset))]

    @cached_property
    def _places(self) -> list[Place]:
        return list(chain.from_iterable(self._cut))

    @cached_property
    def _parts(self) -> list[Part]:
        """Every (picture, window) there is, picture by picture."""
        return [(i, window) for i, places in enumerate(self._cut) for window in range(len(places))]

    @cached_property
    def parts(self) -> list[Part]:
        """Every (picture, window) that is taken, picture by picture."""
        if self.empty == inf:
            return self._parts
        return [self._parts[number] for number in sampled(self._places, self.empty, self.seed)]

    @cached_property
    def numbers(self) -> dict[Part, int]:
        """The number of each (picture, window) there is, taken or not."""
        return {part: number for number, part in enumerate(self._parts)}

    def repeats(self, share: float) -> np.ndarray:
        """Return how often an epoch is to hold each of `parts`; see `repeat_factors`."""
        classes = (self._places[self.numbers[part]].classes for part in self.parts)
        return repeat_factors([*classes], share) if share else np.ones(len(self.parts))

    @property
    def units(self) -> list[Unit]:
        """Every (picture, window, view) that is taken, picture by picture."""
        return [Unit(*part, view) for part in self.parts for view in range(self.count)]

    def view(self, unit: Unit) -> View:
        """Return the view that a unit is of its picture, without opening a picture."""
        return in_pictures(self._drawn(unit), self._places)

    def depends(self, part: Part) -> str:
        """Return a text of all that the views of a window depend on, but for their numbers."""
        says = (self.size, self.resize, self.operations, self.seed if self.operations else None)
        number = self.numbers[part]
        # Which other pictures come into a view hangs on the place in the dataset, too.
        return repr(says) + (f"{number} of {self._dataset}" if self.pictures > 1 else "") + self._known(number)

    def element(self, unit: Unit) -> Element:
        """Return one element: the window as the view shows it, and its targets."""
        drawn = self._drawn(unit)
        pictures = {number: self._places[number].open() for number in {layer.picture for layer in drawn.layers}}
        return (look(pictures, drawn),), self._targets(in_pictures(drawn, self._places))

    def targets(self, unit: Unit) -> Arrays:
        """Return the targets of one element, without opening the picture."""
        return self._targets(self.view(unit))

    def _targets(self, view: View) -> Arrays:
        shown = [self.dataset.examples[layer.picture].targets for layer in view.layers]
        return {} if shown[0] is UNLABELLED else self.task.arrays(shown, view, self.room)

    def _drawn(self, unit: Unit) -> View:
        """Return a unit's view of windows: to what it is drawn by, each is a picture, numbered as in `numbers`."""
        number = self.numbers[unit.part]
        if not self.operations:
            return whole(self._picture(number), self.size, self.resize)
        rng = np.random.default_rng([self.seed, self._content(number), unit.view])
        others = [self._picture(other) for other in self._others(rng, unit.picture)]
        return draw_view(self.operations, rng, self._picture(number), self.size, self.resize, others)

    def _picture(self, number: int) -> Picture:
        return self._places[number].as_picture(number)

    @cached_property
    def _dataset(self) -> str:
        known = "".join(map(self._known, range(len(self._places))))
        return hashlib.sha256(known.encode()).hexdigest()

    def _known(self, number: int) -> str:
        """Return a text of what the views of any window may depend on of the one with this number."""
        objects, content = self._places[number].example.objects, self._places[number].content
        sees_objects = any(operation.sees_objects for operation in self.operations)
        return repr((content, (objects.boxes.tolist(), objects.ignore.tolist()) if sees_objects else ()))

    @cached_property
    def _contents(self) -> dict[int, int]:
        return {}

    def _content(self, number: int) -> int:
        """Return a number that stands for what is to be seen in a window; the file is read once."""
        if number not in self._contents:
            self._contents[number] = int(self._places[number].content[:16], 16)
        return self._contents[number]

    def _others(self, rng: np.random.Generator, index: int) -> list[int]:
        """Draw windows of the other pictures of a view: no picture comes twice while there are enough of them."""
        wanted, there = self.pictures - 1, len(self.dataset)
        if wanted == 0:
            return []
        drawn = (rng.choice(there - 1, min(wanted, there - 1), replace=False) + index + 1) % there if there > 1 else []
        cycle = [index, *(int(other) for other in drawn)]
        return [self._window(rng, cycle[i % len(cycle)]) for i in range(1, self.pictures)]

    def _window(self, rng: np.random.Generator, index: int) -> int:
        """Draw a window of a picture, where it has several."""
        count = len(self._cut[index])
        return self.numbers[index, int(rng.integers(count)) if count > 1 else 0]


def repeat_factors(classes: Sequence[np.ndarray], share: float) -> np.ndarray:
    """Return how often an epoch is to hold each example, on average: float64 [examples], at least 1.

    `classes` are those of each example, each once. An example with a class that fewer than `share` of them have, f
    of them, comes sqrt(share / f) times; its rarest class decides.

    Source: repeat-factor sampling, Gupta et al., LVIS, CVPR 2019.
    """
    held = np.bincount(np.concatenate([np.zeros(0, np.int64), *classes]), minlength=1) / len(classes)
    rarity = np.sqrt(np.maximum(share / np.maximum(held, 1 / len(classes)), 1.0))
    return np.array([rarity[found].max(initial=1.0) for found in classes])


def order(
    parts: Sequence[Part], views: int, seed: int, start: int = 0, repeats: np.ndarray | None = None
) -> Iterator[Unit]:
    """Yield training units for ever, from position `start`: every part once an epoch, each time another view.

    `repeats` [parts], at least 1, say how often an epoch holds each of them instead. Of a fraction it holds one more
    or one fewer, so that after any number of epochs a part is less than one away from what it is due.
    """
    # In binary fractions, whole repeats add up exactly.
    ahead = np.random.default_rng(seed).integers(1 << 20, size=len(parts)) / (1 << 20)
    due = np.ones(len(parts)) if repeats is None else repeats

    def before(epoch: int) -> np.ndarray:
        return np.floor(epoch * due + ahead).astype(np.int64)

    epoch = max(0, int(start / due.sum()) - 1)
    while before(epoch + 1).sum() <= start:
        epoch += 1
    skipped = start - before(epoch).sum()
    while True:
        counts = before(epoch + 1) - before(epoch)
        numbers = np.repeat(np.arange(len(parts)), counts)
        # How often the part has come by then, all epochs together.
        times = np.arange(len(numbers)) + np.repeat(before(epoch) - (np.cumsum(counts) - counts), counts)
        for i in np.random.default_rng([seed, epoch]).permutation(len(numbers))[skipped:].tolist():
            yield Unit(*parts[numbers[i]], int(numbers[i] + times[i]) % views)
        epoch, skipped = epoch + 1, 0


def chunks(units: Iterable[Unit], batch_size: int, micro: int) -> Iterator[list[Unit]]:
    """Yield lists of at most `micro` units, few and even ones, which fill batches of `batch_size` exactly."""
    units = iter(units)
    while batch := list(islice(units, batch_size)):
        parts = -(-len(batch) // micro)
        bounds = [-(-len(batch) * part // parts) for part in range(parts + 1)]
        yield from (batch[start:stop] for start, stop in pairwise(bounds))


def batches(load: Callable[[Unit], Element], wanted: Iterable[list[Unit]]) -> Iterator[tuple]:
    """Yield what `load` gives for each list of units, in order, loaded ahead in parallel.

    Each batch is (units int32 [b, 3], a tuple of inputs, a dict of targets), all of them tensors [b, ...]. What
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
                ahead.append(pool.submit(gathered, units, [pool.submit(load, unit) for unit in units]))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

"""Windows: the parts of a picture that a model looks at one by one, each as if it were a picture of its own."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from tlx.augment import MIN_VISIBLE, Layer, Picture, View
from tlx.augment.affine import after, shifted
from tlx.augment.view import place
from tlx.data.dataset import Dataset, Example
from tlx.data.images import file_hash
from tlx.data.recent import open_recent
from tlx.data.targets import ANY_CLASS


class Window(NamedTuple):
    """A part of an upright picture in whole pixels of it, max exclusive."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int


# Returns the windows of a picture of some width and height, in pixels; there is at least one.
Windows = Callable[[int, int], Sequence[Window]]


@dataclass(frozen=True)
class WholePicture:
    """The only window is the whole picture."""

    def __call__(self, width: int, height: int) -> tuple[Window, ...]:
        return (Window(0, 0, width, height),)


@dataclass(frozen=True, eq=False)
class Place:
    """A window of the picture of an example, which is at `index` of its dataset."""

    index: int
    example: Example
    window: Window

    @property
    def size(self) -> tuple[int, int]:
        """The window's width and height."""
        return self.window.x_max - self.window.x_min, self.window.y_max - self.window.y_min

    @property
    def is_whole(self) -> bool:
        """Whether the window is all of the picture."""
        return self.window == (0, 0, self.example.width, self.example.height)

    @property
    def content(self) -> str:
        """A digest, in hexadecimal, that stands for the pixels: of the file and, where it is not whole, the window."""
        content = file_hash(self.example.image)
        return content if self.is_whole else hashlib.sha256(f"{content} {tuple(self.window)}".encode()).hexdigest()

    @property
    def classes(self) -> np.ndarray:
        """The classes of the labels that count in the window, each once: positions in `Dataset.classes`."""
        labels = self.example.targets.counted
        if not self.is_whole:
            labels = self.example.objects.labels[~self.as_picture(0).ignore]
        return np.unique(labels[labels != ANY_CLASS])

    @property
    def seen(self) -> Example:
        """The example with the labels of what is seen in the window alone."""
        if self.is_whole:
            return self.example
        boxes, window = self.example.objects.boxes, np.array(self.window)
        inside = (np.minimum(boxes[:, 2:], window[2:]) > np.maximum(boxes[:, :2], window[:2])).all(1)
        return replace(self.example, targets=self.example.targets.only(np.flatnonzero(inside)))

    def open(self) -> Image.Image:
        """Return the window's pixels, upright and in mode RGB."""
        picture = open_recent(self.example.image)
        return picture if self.is_whole else picture.crop(self.window)

    def as_picture(self, number: int) -> Picture:
        """Return the window as augmentations know it: as picture `number`, with the objects that are seen in it.

        Objects of which too little is seen to be learnt do not count, as in a crop.
        """
        x, y, width, height = self.window.x_min, self.window.y_min, *self.size
        boxes, ignore = self.example.objects.boxes, self.example.objects.ignore
        if not self.is_whole:
            clipped, visible = place(boxes, Layer(number, shifted(-x, -y), self.window), width, height)
            boxes, ignore = clipped.astype(np.float32), ignore | (visible < MIN_VISIBLE)
        return Picture(number, width, height, boxes, ignore)


def sampled(places: Sequence[Place], empty: float, seed: int) -> list[int]:
    """Return the positions of the windows that have objects which count, and of `empty` times as many that have none.

    Which of the latter depends on `seed` alone. Where no window has any object, all are returned.
    """
    full = np.array([not place.as_picture(0).ignore.all() for place in places], np.bool_)
    wanted = round(empty * full.sum())
    if not full.any() or wanted >= (~full).sum():
        return list(range(len(places)))
    drawn = np.random.default_rng([seed, len(places)]).permutation(np.flatnonzero(~full))[:wanted]
    return sorted([*np.flatnonzero(full).tolist(), *drawn.tolist()])


def places_of(index: int, dataset: Dataset, windows: Windows) -> tuple[Place, ...]:
    """Return the windows of the picture at `index`.

    Raises:
      ValueError: there is none, or one does not lie in the picture.
    """
    example = dataset.examples[index]
    found = tuple(Window(*map(int, window)) for window in windows(example.width, example.height))
    for x0, y0, x1, y1 in found or [(0, 0, 0, 0)]:
        if not (0 <= x0 < x1 <= example.width and 0 <= y0 < y1 <= example.height):
            size = f"{example.image}, {example.width} x {example.height} pixels,"
            raise ValueError(f"{windows!r} cuts {size} into {found}; expected windows that lie in it")
    return tuple(Place(index, example, window) for window in found)


def in_pictures(view: View, places: Sequence[Place]) -> View:
    """Return a view of windows, whose layers name them by their position in `places`, as one of their pictures."""

    def moved(layer: Layer) -> Layer:
        at = places[layer.picture]
        x, y = at.window[:2]
        crop = tuple(edge + shift for edge, shift in zip(layer.crop, (x, y, x, y), strict=True))
        return replace(layer, picture=at.index, matrix=after(layer.matrix, shifted(-x, -y)), crop=crop)

    return replace(view, layers=tuple(map(moved, view.layers)))

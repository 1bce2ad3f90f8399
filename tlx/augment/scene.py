"""What a view is drawn on: pictures laid on a canvas, before that is fitted into the input."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from tlx.augment.affine import Frame, Resize, after, bounds, fit, inverse, scaled, shifted
from tlx.augment.view import Box, Layer, place

# Less of an object than this in view is neither an object nor background.
MIN_VISIBLE = 0.3


class Picture(NamedTuple):
    """What an augmentation may know of a picture, or of a window of one, without opening it.

    `number` tells it from others. `boxes` [n, 4] are those of its objects in its pixels, `ignore` [n] says
    which of them do not count. Where objects have no boxes, both are empty.
    """

    number: int
    width: int
    height: int
    boxes: np.ndarray = np.zeros((0, 4), np.float32)
    ignore: np.ndarray = np.zeros(0, np.bool_)


@dataclass(frozen=True, eq=False)
class Scene:
    """Layers on a canvas of `width` x `height`, which in the end is fitted into an input of `size` (height, width).

    The matrices of `layers` map to the canvas. It begins as a picture and its pixels.
    """

    layers: tuple[Layer, ...]
    width: float
    height: float
    size: Frame
    resize: Resize = "letterbox"
    pictures: Mapping[int, Picture] = field(default_factory=dict)

    @classmethod
    def of(cls, picture: Picture, size: Frame, resize: Resize = "letterbox") -> "Scene":
        """Return the scene that is one whole picture."""
        whole = Layer(picture.number, shifted(0, 0), (0.0, 0.0, float(picture.width), float(picture.height)))
        return cls((whole,), picture.width, picture.height, size, resize, {picture.number: picture})

    @property
    def centre(self) -> tuple[float, float]:
        return self.width / 2, self.height / 2

    def moved(self, matrix: np.ndarray) -> "Scene":
        """Return it with everything mapped by `matrix`, on the same canvas."""
        return replace(self, layers=tuple(replace(la, matrix=after(matrix, la.matrix)) for la in self.layers))

    def fitted(self) -> "Scene":
        """Return it on a canvas that is the input."""
        moved = self.moved(fit(self.width, self.height, self.size, self.resize))
        return replace(moved, width=float(self.size[1]), height=float(self.size[0]))

    def limited(self, box: Box) -> "Scene":
        """Return it with nothing shown outside of `box` of the canvas, and without what is wholly outside.

        Of a picture that is turned or sheared, all in the upright box of its own around it stays.
        """
        layers = []
        for layer in self.layers:
            within = bounds(inverse(layer.matrix), np.array([box], np.float64))[0]
            low, high = np.maximum(layer.crop[:2], within[:2]), np.minimum(layer.crop[2:], within[2:])
            if (low < high).all():
                layers.append(replace(layer, crop=(*low.tolist(), *high.tolist())))
        return replace(self, layers=tuple(layers))

    def cropped(self, box: Box) -> "Scene":
        """Return what is in `box` of the canvas, which becomes the canvas; where that is nothing, the scene itself."""
        x0, y0, x1, y1 = box
        left = self.limited(box)
        return replace(left.moved(shifted(-x0, -y0)), width=x1 - x0, height=y1 - y0) if left.layers else self

    def filling(self, box: Box, share: tuple[float, float]) -> "Scene":
        """Return as large a part of it as fills `box` of another canvas; `share` (x, y) in 0..1 says which part."""
        low, room = np.array(box[:2]), np.array([box[2] - box[0], box[3] - box[1]])
        scale = max(room / (self.width, self.height))
        start = (room - scale * np.array([self.width, self.height])) * share
        return self.moved(after(shifted(*(low + start)), scaled(scale, scale))).limited(box)

    def objects(self) -> np.ndarray:
        """Return the boxes [n, 4] of the objects that count, as they are on the canvas."""
        found = []
        for layer in self.layers:
            picture = self.pictures[layer.picture]
            counts = np.flatnonzero(~picture.ignore)
            if layer.objects is not None:
                counts = np.intersect1d(counts, layer.objects)
            boxes, visible = place(picture.boxes[counts], layer, self.width, self.height)
            found.append(boxes[visible >= MIN_VISIBLE])
        return np.concatenate(found)

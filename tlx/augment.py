"""Augmentations: (image, boxes) -> (image, boxes), at the network's input size.

A view of a picture is one map of its pixels and one of its colours, so a picture is resampled once
however much happens to it, and its boxes follow by the same matrix.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tlx.errors import refuse_values
from tlx.registry import augmentations

# What stands where a view looks past the edge of its picture: about the mean colour of photographs.
_GREY = (124, 116, 104)
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class View:
    """One way to look at a picture of a given size.

    `matrix` [2, 3] maps pixel coordinates of the upright picture to those of the input: it scales, shifts and
    mirrors left to right, and does not turn. `colour` [3, 4] maps RGB1 to RGB in 0..255, or is None to leave
    colours alone.
    """

    matrix: np.ndarray
    colour: np.ndarray | None = None


class Augmentation(ABC):
    """Chooses views. Its `repr` must tell everything that they depend on: cached features are filed under it."""

    @abstractmethod
    def __call__(self, rng: np.random.Generator, width: int, height: int, size: tuple[int, int]) -> View:
        """Return a view of a picture of this width and height for an input of `size` (height, width)."""


def letterbox(width: int, height: int, size: tuple[int, int]) -> View:
    """Return the view that shows a whole picture, centred and undistorted, in `size` (height, width)."""
    scale = min(size[1] / width, size[0] / height)
    return _centred(width, height, size, scale, scale)


@augmentations.register("none")
@dataclass(frozen=True)
class NoAugmentation(Augmentation):
    """Every view shows the whole picture as it is."""

    def __call__(self, rng: np.random.Generator, width: int, height: int, size: tuple[int, int]) -> View:
        return letterbox(width, height, size)


@augmentations.register("standard")
@dataclass(frozen=True)
class Standard(Augmentation):
    """Mirrored, zoomed, stretched and shifted views, under other light; the default.

    `flip` is the probability of a mirror image. `zoom` is the range of sizes relative to the letterboxed
    picture, drawn log-uniformly. `stretch` is the greatest change of aspect, as a factor. `brightness`,
    `contrast` and `saturation` are the greatest relative changes, each drawn uniformly.
    """

    flip: float = 0.5
    zoom: tuple[float, float] = (0.6, 1.6)
    stretch: float = 1.15
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.4

    def __post_init__(self):
        sound = {
            "flip": 0 <= self.flip <= 1,
            "zoom": 0 < self.zoom[0] <= self.zoom[1],
            "stretch": self.stretch >= 1,
            **{name: 0 <= getattr(self, name) <= 1 for name in ("brightness", "contrast", "saturation")},
        }
        refuse_values("augmentations.standard", self, sound)

    def __call__(self, rng: np.random.Generator, width: int, height: int, size: tuple[int, int]) -> View:
        fit = min(size[1] / width, size[0] / height)
        zoom = fit * math.exp(rng.uniform(*np.log(self.zoom)))
        stretch = math.exp(rng.uniform(-1, 1) * math.log(self.stretch) / 2)
        view = _centred(width, height, size, zoom * stretch, zoom / stretch)
        # A small picture goes anywhere in the frame, of a large one any part is shown.
        slack = np.abs(np.array([size[1] - width * zoom * stretch, size[0] - height * zoom / stretch])) / 2
        view.matrix[:, 2] += rng.uniform(-slack, slack)
        if rng.random() < self.flip:
            view.matrix[0] = [-view.matrix[0, 0], view.matrix[0, 1], size[1] - view.matrix[0, 2]]
        return View(view.matrix, self._colour(rng))

    def _colour(self, rng: np.random.Generator) -> np.ndarray:
        brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * (self.brightness, self.contrast, self.saturation)
        mixed = saturation * np.eye(3) + (1 - saturation) * _LUMA
        return np.hstack([brightness * contrast * mixed, np.full((3, 1), 128 * (1 - contrast))])


def look(picture: Image.Image, view: View, size: tuple[int, int]) -> np.ndarray:
    """Return `picture` (upright RGB) as `view` shows it: uint8 [height, width, 3]."""
    (scale_x, _, shift_x), (_, scale_y, shift_y) = view.matrix
    mirrored = scale_x < 0
    if mirrored:
        scale_x, shift_x = -scale_x, size[1] - shift_x
    x0, x1, left, right = _span(scale_x, shift_x, picture.width, size[1])
    y0, y1, top, bottom = _span(scale_y, shift_y, picture.height, size[0])
    # Much faster than an affine transform; a gap of 2 lets large pictures be halved first, without a visible change.
    shown = picture.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, (left, top, right, bottom), reducing_gap=2.0)
    if view.colour is not None:
        shown = shown.convert("RGB", tuple(view.colour.ravel()))
    if mirrored:
        shown, x0 = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT), size[1] - x1
    if shown.size == (size[1], size[0]):
        return np.asarray(shown)
    framed = Image.new("RGB", (size[1], size[0]), _GREY)
    framed.paste(shown, (x0, y0))
    return np.asarray(framed)


def _span(scale: float, shift: float, length: int, size: int) -> tuple[int, int, float, float]:
    """Return, along one axis, the whole pixels of the input that lie in the picture, and what they show of it."""
    start, stop = max(0, math.ceil(shift)), min(size, math.floor(shift + scale * length))
    if stop <= start:
        # So thin a picture, or so little of it in view, is a line all the same.
        start = min(max(0, round(shift)), size - 1)
        stop = start + 1
    low, high = ((edge - shift) / scale for edge in (start, stop))
    low, high = max(0.0, low), min(float(length), high)
    return (start, stop, low, high) if low < high else (start, stop, 0.0, float(length))


def move(boxes: np.ndarray, view: View, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes [n, 4] as `view` shows them, clipped to the frame, and the share of each that is visible [n]."""
    corners = boxes.reshape(-1, 2, 2) @ view.matrix[:, :2].T + view.matrix[:, 2]
    whole = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    clipped = np.clip(whole, 0, [size[1], size[0], size[1], size[0]])
    visible = _area(clipped) / np.maximum(_area(whole), 1e-9)
    return clipped.astype(np.float32), visible


def restore(boxes: np.ndarray, view: View, width: int, height: int) -> np.ndarray:
    """Return boxes [n, 4] of a view in pixels of the upright picture, clipped to it: the inverse of `move`."""
    corners = (boxes.reshape(-1, 2, 2) - view.matrix[:, 2]) @ np.linalg.inv(view.matrix[:, :2]).T
    whole = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    return np.clip(whole, 0, [width, height, width, height]).astype(np.float32)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _centred(width: int, height: int, size: tuple[int, int], scale_x: float, scale_y: float) -> View:
    shift_x, shift_y = (size[1] - width * scale_x) / 2, (size[0] - height * scale_y) / 2
    return View(np.array([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y]]))

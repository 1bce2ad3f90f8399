"""A view: one way to look at one or more pictures, and what becomes of their boxes and points.

A view holds all that was drawn at random, so that targets follow without opening a picture.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw

from tlx.augment.affine import Frame, bounds, corners, inverse, is_upright
from tlx.errors import ConfigError

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Layer:
    """A picture in a view.

    `picture` is its position in the dataset; while the view is drawn, `Picture.number`. `matrix` [2, 3] maps pixel
    coordinates of the upright picture to those of the input. `crop` is the part of the picture that is shown, in its
    pixels. `opacity` in 0..1 says how much of what lies beneath it is replaced. `objects` are the positions of the
    objects that come with it, or None for all.
    """

    picture: int
    matrix: np.ndarray
    crop: Box
    opacity: float = 1.0
    objects: tuple[int, ...] | None = None


class PixelChange(Protocol):
    """A change of an input's pixels with all its parameters drawn; `hides` are the boxes of which it leaves nothing."""

    hides: tuple[Box, ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return an input, uint8 [height, width, 3], changed."""


@dataclass(frozen=True, eq=False)
class View:
    """One way to look at pictures, for an input of `size` (height, width).

    `layers` lie on top of one another, the picture that the view is of first. `colour` [3, 4] maps RGB1 to RGB in
    0..255, or is None to leave colours alone. `pixels` are changed last, one after another.

    Raises:
      ConfigError: it cannot be drawn: a map is not finite or takes a picture to a line, or nothing is shown.
    """

    size: Frame
    layers: tuple[Layer, ...]
    colour: np.ndarray | None = None
    pixels: tuple[PixelChange, ...] = ()

    def __post_init__(self):
        if not self.layers:
            raise ConfigError("a view of no picture cannot be drawn")
        for layer in self.layers:
            _refuse(layer)
        if self.colour is not None and not (self.colour.shape == (3, 4) and np.isfinite(self.colour).all()):
            raise ConfigError(f"a view cannot be drawn: its map of colours is {self.colour.tolist()}")

    @property
    def matrix(self) -> np.ndarray:
        """The map of the picture that the view is of."""
        return self.layers[0].matrix


def _refuse(layer: Layer) -> None:
    matrix = np.asarray(layer.matrix)
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise ConfigError(f"a view cannot be drawn: its map is {matrix.tolist()}, where 2 x 3 finite numbers belong")
    (a, b, _), (c, d, _) = matrix.tolist()
    if abs(a * d - b * c) <= 1e-12 * max(abs(a), abs(b), abs(c), abs(d)) ** 2:
        raise ConfigError(f"a view cannot be drawn: its map {matrix.tolist()} takes a picture to a line")
    x0, y0, x1, y1 = layer.crop
    if not (x0 < x1 and y0 < y1 and 0 <= layer.opacity <= 1):
        raise ConfigError(f"a view cannot be drawn: it shows {layer.crop} of a picture with opacity {layer.opacity}")


def move(boxes: np.ndarray, view: View, layer: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes [n, 4] of a layer's picture as `view` shows them, and the share of each that is visible [n].

    A box that is turned becomes the upright box around what is in the frame of it. What other layers and cut-outs
    cover is not visible, and does not change the box.
    """
    height, width = view.size
    clipped, visible = place(boxes, view.layers[layer], width, height)
    if layer + 1 < len(view.layers) or any(change.hides for change in view.pixels):
        visible = visible * _uncovered(clipped, view, layer)
    return clipped.astype(np.float32), visible


def place(boxes: np.ndarray, layer: Layer, width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes [n, 4] as a layer shows them in a frame, float64 [n, 4], and the share of each in view [n]."""
    boxes = boxes.astype(np.float64)
    whole = bounds(layer.matrix, boxes)
    low, high = layer.crop[:2] * 2, layer.crop[2:] * 2
    shown = np.minimum(np.maximum(boxes, low), high)
    if is_upright(layer.matrix):
        clipped = np.minimum(np.maximum(bounds(layer.matrix, shown), 0), (width, height) * 2)
    else:
        clipped = _extent(layer.matrix, shown, width, height)
    # Of a box beside the crop only a line along its edge is left, which a turn would give an area.
    return clipped, np.where(_area(shown) > 0, _area(clipped), 0.0) / np.maximum(_area(whole), 1e-9)


def _extent(matrix: np.ndarray, boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return the upright boxes [n, 4] around what is in the frame of mapped boxes; of nothing, zeros.

    The outline of what a mapped box and the frame share runs through corners of either that lie in the other, and
    through crossings of their sides.
    """
    outline = corners(boxes) @ matrix[:, :2].T + matrix[:, 2]
    steps = np.roll(outline, -1, axis=1) - outline
    edges = np.array([0.0, width]), np.array([0.0, height])
    crossings = []
    for axis in (0, 1):
        with np.errstate(divide="ignore", invalid="ignore"):
            share = (edges[axis] - outline[:, :, None, axis]) / steps[:, :, None, axis]
        share = np.where(np.isfinite(share) & (share >= 0) & (share <= 1), share, 0.0)
        crossings.append((outline[:, :, None] + share[..., None] * steps[:, :, None]).reshape(-1, 8, 2))
    frame = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    back = inverse(matrix)
    within = frame @ back[:, :2].T + back[:, 2]
    inside = ((within >= boxes[:, None, :2]) & (within <= boxes[:, None, 2:])).all(2)
    points = np.concatenate([outline, *crossings], axis=1)
    slack = 1e-9 * max(width, height)
    seen = ((points >= -slack) & (points <= np.array([width, height]) + slack)).all(2)
    points = np.concatenate([points, np.broadcast_to(frame, (len(boxes), 4, 2))], axis=1)
    seen = np.concatenate([seen, inside], axis=1)[..., None]
    extent = np.concatenate(
        [np.where(seen, points, np.inf).min(1), np.where(seen, points, -np.inf).max(1)], axis=1
    ).reshape(-1, 4)
    return np.where(np.isfinite(extent).all(1, keepdims=True), np.clip(extent, 0, [width, height] * 2), 0.0)


def _uncovered(boxes: np.ndarray, view: View, layer: int) -> np.ndarray:
    """Return the share of each box of an input that neither a later layer nor a cut-out covers, to the pixel."""
    covered = Image.new("L", view.size[::-1])
    draw = ImageDraw.Draw(covered)
    for above in view.layers[layer + 1 :]:
        if above.opacity == 1:
            outline = corners(np.array([above.crop]))[0] @ above.matrix[:, :2].T + above.matrix[:, 2]
            draw.polygon([tuple(corner) for corner in (outline - 0.5).tolist()], fill=1)
    for x0, y0, x1, y1 in (box for change in view.pixels for box in change.hides):
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=1)
    mask, shares = np.asarray(covered), np.ones(len(boxes))
    for i, box in enumerate(boxes):
        x0, y0 = np.floor(box[:2]).astype(int)
        x1, y1 = np.ceil(box[2:]).astype(int)
        if x0 < x1 and y0 < y1:
            shares[i] = 1 - mask[y0:y1, x0:x1].mean()
    return shares


def restore(boxes: np.ndarray, view: View) -> np.ndarray:
    """Return boxes [n, 4] of a view in pixels of its upright picture, clipped to it: the inverse of `move`.

    A box of a view that is turned becomes the upright box around it.
    """
    back = bounds(inverse(view.matrix), boxes.astype(np.float64))
    return np.clip(back, view.layers[0].crop[:2] * 2, view.layers[0].crop[2:] * 2).astype(np.float32)


def move_points(points: np.ndarray, view: View, layer: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points [n, k, 2] of a layer's picture as `view` shows them, and whether each is in view [n, k].

    Points are not clipped. One is in view where it lies in the frame and in the part of the picture that is shown.
    """
    crop, matrix = view.layers[layer].crop, view.layers[layer].matrix
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    shown = ((points >= crop[:2]) & (points <= crop[2:])).all(-1)
    framed = ((moved >= 0) & (moved <= view.size[::-1])).all(-1)
    return moved.astype(np.float32), shown & framed


def restore_points(points: np.ndarray, view: View) -> np.ndarray:
    """Return points [n, k, 2] of a view in pixels of its upright picture: the inverse of `move_points`."""
    back = inverse(view.matrix)
    return (points @ back[:, :2].T + back[:, 2]).astype(np.float32)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

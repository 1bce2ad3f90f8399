"""Pixels of a view: each of its pictures is resampled once, however much happens to it."""

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tlx.augment.affine import after, bounds, inverse, scaled, shifted
from tlx.augment.view import Box, Layer, View

# What stands where a view looks past the edge of its picture: about the mean colour of photographs.
GREY = (124, 116, 104)
# By so many pixels a computed edge may miss the whole pixel that it stands for.
_ROUNDING = 1e-6
# So many of its pixels around what is shown does bilinear resampling look at.
_MARGIN = 2


def look(pictures: Mapping[int, Image.Image], view: View) -> np.ndarray:
    """Return what `view` shows: uint8 [height, width, 3]; `pictures` (upright RGB) are named as its layers name them.

    A shrunk picture is antialiased. Where there is no picture, the view is grey.
    """
    size = view.size[::-1]
    framed = None
    for layer in view.layers:
        # One that is alone is in view: that need not be found out.
        if len(view.layers) > 1 and not _in_view(layer, size):
            continue
        shown, corner, mask = _shown(pictures[layer.picture], layer, view)
        if framed is None and shown.size == size and mask is None and layer.opacity == 1:
            framed = shown
            continue
        framed = framed or Image.new("RGB", size, GREY)
        if layer.opacity < 1:
            mask = (mask or Image.new("L", shown.size, 255)).point([round(layer.opacity * v) for v in range(256)])
        framed.paste(shown, corner, mask)
    pixels = np.asarray(framed or Image.new("RGB", size, GREY))
    for change in view.pixels:
        pixels = change(pixels)
    return pixels


def _in_view(layer: Layer, size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = bounds(layer.matrix, np.array([layer.crop]))[0].tolist()
    return x1 > 0 and y1 > 0 and x0 < size[0] and y0 < size[1]


def _shown(picture: Image.Image, layer: Layer, view: View) -> tuple[Image.Image, tuple[int, int], Image.Image | None]:
    """Return what a layer shows, its upper left corner in the input, and where in it there is something, or None."""
    matrix, crop = layer.matrix, layer.crop
    (a, b, _), (c, d, _) = matrix.tolist()
    if a == 0 and d == 0:
        # With the axes exchanged in the picture, what is left to do is no turn.
        picture = picture.transpose(Image.Transpose.TRANSPOSE)
        matrix, crop = matrix[:, [1, 0, 2]], (crop[1], crop[0], crop[3], crop[2])
    elif b or c:
        return _turned(picture, layer, view)
    return *_upright(picture, matrix, crop, view), None


def _upright(picture: Image.Image, matrix: np.ndarray, crop: Box, view: View) -> tuple[Image.Image, tuple[int, int]]:
    (scale_x, _, shift_x), (_, scale_y, shift_y) = matrix.tolist()
    height, width = view.size
    mirrored, upside_down = scale_x < 0, scale_y < 0
    if mirrored:
        scale_x, shift_x = -scale_x, width - shift_x
    if upside_down:
        scale_y, shift_y = -scale_y, height - shift_y
    x0, x1, left, right = _span(scale_x, shift_x, picture.width, crop[::2], width)
    y0, y1, top, bottom = _span(scale_y, shift_y, picture.height, crop[1::2], height)
    # Much faster than an affine transform; a gap of 2 lets large pictures be halved first, without a visible change.
    shown = picture.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, (left, top, right, bottom), reducing_gap=2.0)
    shown = _coloured(shown, view)
    if mirrored:
        shown, x0 = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT), width - x1
    if upside_down:
        shown, y0 = shown.transpose(Image.Transpose.FLIP_TOP_BOTTOM), height - y1
    return shown, (x0, y0)


def _span(
    scale: float, shift: float, length: int, crop: tuple[float, float], size: int
) -> tuple[int, int, float, float]:
    """Return, along one axis, the whole pixels of the input that lie in the picture, and what they show of it."""
    start, stop = math.ceil(shift - _ROUNDING), math.floor(shift + scale * length + _ROUNDING)
    # Where a picture goes on past what is shown of it, neighbours meet at the nearest pixel.
    if crop[0] > 0:
        start = max(start, round(shift + scale * crop[0]))
    if crop[1] < length:
        stop = min(stop, round(shift + scale * crop[1]))
    start, stop = max(0, start), min(size, stop)
    if stop <= start:
        # So thin a picture, or so little of it in view, is a line all the same.
        start = min(max(0, round(shift + scale * crop[0])), size - 1)
        stop = start + 1
    low, high = ((edge - shift) / scale for edge in (start, stop))
    low, high = max(0.0, low), min(float(length), high)
    return (start, stop, low, high) if low < high else (start, stop, *crop)


def _turned(picture: Image.Image, layer: Layer, view: View) -> tuple[Image.Image, tuple[int, int], Image.Image]:
    """Resample by an affine transform what is in view of a picture, shrunk before where it is to be smaller."""
    height, width = view.size
    matrix = layer.matrix
    seen = bounds(inverse(matrix), np.array([[0.0, 0.0, width, height]]))[0]
    x0, y0 = (max(math.floor(low), math.floor(v) - _MARGIN, 0) for low, v in zip(layer.crop[:2], seen[:2], strict=True))
    x1, y1 = (
        min(math.ceil(high), math.ceil(v) + _MARGIN, side)
        for high, v, side in zip(layer.crop[2:], seen[2:], picture.size, strict=True)
    )
    if x0 >= x1 or y0 >= y1:
        return Image.new("RGB", (1, 1)), (0, 0), Image.new("L", (1, 1), 0)
    sides = np.array([x1 - x0, y1 - y0])
    # A column's length is by how much one pixel along that axis grows. An enlarged picture is resampled once.
    small = np.maximum(1, np.ceil(sides * np.minimum(1.0, np.linalg.norm(matrix[:, :2], axis=0)) - _ROUNDING))
    part = _coloured(
        picture.resize(
            tuple(small.astype(int).tolist()), Image.Resampling.BILINEAR, (x0, y0, x1, y1), reducing_gap=2.0
        ),
        view,
    )
    back = inverse(after(after(matrix, shifted(x0, y0)), scaled(*(sides / small))))
    way = (view.size[::-1], Image.Transform.AFFINE, tuple(back.ravel().tolist()))
    shown = part.transform(*way, Image.Resampling.BILINEAR, fillcolor=GREY)
    return shown, (0, 0), Image.new("L", part.size, 255).transform(*way, Image.Resampling.NEAREST, fillcolor=0)


def _coloured(shown: Image.Image, view: View) -> Image.Image:
    return shown if view.colour is None else shown.convert("RGB", tuple(view.colour.ravel()))

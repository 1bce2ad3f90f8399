"""The boxes around outlines and masks, none of which is ever unpacked: run lengths stay run lengths."""

import re
from collections.abc import Sequence

import numpy as np

from tlx.data.objects import Box

# More than any decoder of images gives; it bounds every sum below to 64 bits.
_MAX_PIXELS = 1_000_000_000
# A polygon's outer ring comes first, behind a bracket, and its holes behind commas.
_RING = re.compile(r"([(,])\s*\(([^()]*)\)")


def around(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """Return the box around points, of which there is at least one."""
    return (min(xs), min(ys), max(xs), max(ys))


def polygon_bounds(polygons: Sequence[Sequence[float]]) -> Box | None:
    """Return the box around polygons, each x, y, x, y, ... in pixels; what has fewer than 3 points is none.

    Raises:
      ValueError: a polygon has an odd number of coordinates.
    """
    boxes = []
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} coordinates, which are no pairs of x and y")
        if len(polygon) >= 6:
            boxes.append(around(polygon[::2], polygon[1::2]))
    if len(boxes) < 2:
        return boxes[0] if boxes else None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return (min(lefts), min(tops), max(rights), max(bottoms))


def run_bounds(counts: Sequence[int] | str, size: Sequence[int]) -> Box | None:
    """Return the box around a COCO mask's pixels, max exclusive, or None where it has none.

    Args:
      counts: the lengths of its runs down the columns, background first, or COCO's compressed text of them.
      size: (height, width) in pixels.

    Raises:
      ValueError: the text is none, the size is senseless, or the runs do not fill it.
    """
    if len(size) != 2 or min(size) < 1 or size[0] * size[1] > _MAX_PIXELS:
        raise ValueError(f"a mask cannot have the size {list(size)[:3]}")
    if isinstance(counts, str):
        counts = _unpacked(counts)
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"the runs of a mask do not fill its size {list(size)}")
    edges = np.cumsum(np.array(counts, np.int64))
    first, last = edges[0:-1:2], edges[1::2] - 1
    first, last = first[first <= last], last[first <= last]
    if not len(first):
        return None
    rows = size[0]
    # A run that goes on in the next column touches the bottom of one and the top of the other.
    wraps = (first // rows != last // rows).any()
    top, bottom = (0, rows) if wraps else ((first % rows).min(), (last % rows).max() + 1)
    return (float(first.min() // rows), float(top), float(last.max() // rows + 1), float(bottom))


def _unpacked(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed text: 5 bits a character, differences from the third on."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError(f"a mask's counts hold {letter!r}, which no run length has here")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (code & 16 and 1) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            if counts[-1] > _MAX_PIXELS:
                raise ValueError(f"a mask has a run of {counts[-1]} pixels")
            value = shift = 0
    return counts


def pixel_bounds(pixels: np.ndarray) -> Box | None:
    """Return the box around what is not 0 in an image, max exclusive, or None where all of it is.

    Args:
      pixels: [height, width] or [height, width, channels], of any type.
    """
    where = pixels.any(axis=2) if pixels.ndim == 3 else pixels != 0
    xs, ys = np.flatnonzero(where.any(axis=0)), np.flatnonzero(where.any(axis=1))
    return (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)) if len(xs) else None


def is_polygon_text(text: str) -> bool:
    """Return whether a text claims to be a POLYGON or MULTIPOLYGON in WKT."""
    return text[:40].lstrip().upper().startswith(("POLYGON", "MULTIPOLYGON"))


def text_bounds(text: str) -> list[Box]:
    """Return the box around each polygon of a POLYGON or MULTIPOLYGON in WKT; holes do not matter.

    Raises:
      ValueError: the text is none, or a point is not numbers.
    """
    if text.rstrip().upper().endswith("EMPTY"):
        return []
    rings = [ring for before, ring in _RING.findall(text) if before == "("]
    if not rings or text.count("(") != text.count(")"):
        raise ValueError(f"{text[:40]!r} is not a whole polygon in WKT")
    return [_ring_bounds(ring) for ring in rings]


def _ring_bounds(ring: str) -> Box:
    points = [point.split() for point in ring.split(",")]
    try:
        return around([float(point[0]) for point in points], [float(point[1]) for point in points])
    except (ValueError, IndexError) as error:
        raise ValueError(f"{ring[:40]!r} is not a list of points in WKT") from error

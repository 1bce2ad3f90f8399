"""The boxes of COCO annotations, and whether each bbox agrees with its segmentation."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Literal

import numpy as np

from tlx.data.formats.cocofile import Annotation, Image, Mask, shape
from tlx.data.formats.masks import polygon_bounds, run_bounds
from tlx.data.objects import Box

BoxesFrom = Literal["bbox", "segmentation"]

# Sides of a bbox and its outline may differ by rounding, and by the last pixel that some tools count.
_TOLERANCE = 2.0
_NONE = (np.nan,) * 4
# So many annotations' outlines are laid out at once: few enough to stay in the processor's cache.
_BLOCK = 500


def bboxes(annotations: Sequence[Annotation]) -> np.ndarray:
    """Return the bboxes as float64 [n, 4] (x_min, y_min, x_max, y_max), NaN where there is none of four numbers."""
    told = [box if (box := annotation.bbox) and len(box) == 4 else _NONE for annotation in annotations]
    boxes = np.fromiter(chain.from_iterable(told), np.float64, 4 * len(annotations)).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def outlines(annotations: Sequence[Annotation]) -> np.ndarray:
    """Return the bounds of the segmentations, as `bboxes` does; NaN where there is none or a broken one."""
    bounds = np.full((len(annotations), 4), np.nan)
    for start in range(0, len(annotations), _BLOCK):
        polygons, owners = [], []
        for i, annotation in enumerate(annotations[start : start + _BLOCK], start):
            try:
                parts = shape(annotation)
                if isinstance(parts, list) and len(parts) == 1 and _is_polygon(parts[0]):
                    polygons.append(parts[0])
                    owners.append(i)
                elif parts:
                    bounds[i] = _bounds(parts) or _NONE
            except ValueError:
                continue  # `complaint` and `disagreement` say so.
        if owners:
            bounds[owners] = _polygon_bounds(polygons)
    return bounds


def _is_polygon(part: list[float] | float) -> bool:
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0


def _polygon_bounds(polygons: list[list[float]]) -> np.ndarray:
    lengths = np.array([len(polygon) for polygon in polygons])
    points = np.fromiter(chain.from_iterable(polygons), np.float64, lengths.sum()).reshape(-1, 2)
    starts = (np.cumsum(lengths) - lengths) // 2
    return np.hstack([np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)])


def complaint(annotation: Annotation, classes: Mapping[str, str], boxes_from: BoxesFrom) -> str:
    """Return what keeps an annotation from being an object of one of the classes (names by ids), or ""."""
    if str(annotation.category_id) not in classes:
        return f"its category_id {annotation.category_id!r} is not among the file's categories"
    if annotation.bbox and boxes_from == "bbox":
        fine = len(annotation.bbox) == 4 and all(map(math.isfinite, annotation.bbox))
        return "" if fine else f"its bbox must be [x, y, width, height], not {annotation.bbox[:5]}"
    try:
        if _bounds(shape(annotation)):
            return ""
    except ValueError as error:
        return f"its segmentation is broken ({error})"
    missing = "segmentation" if annotation.bbox else "bbox [x, y, width, height] and no segmentation"
    return f"it has no {missing} to take a box from"


def disagreement(annotation: Annotation, image: Image) -> str:
    """Return how a bbox differs from its own segmentation, or "" where it does not or cannot be told.

    Raises:
      ValueError: the segmentation is broken.
    """
    parts = shape(annotation)
    outline = _bounds(parts)
    if outline is None or len(annotation.bbox or ()) != 4:
        return ""
    x, y, width, height = annotation.bbox
    x0, y0, x1, y1 = outline
    sides = max(abs(x - x0), abs(x + width - x1))
    off = max(sides, abs(y - y0), abs(y + height - y1))
    if off <= 0.5:
        return ""
    text = f"the bbox ({x:g}, {y:g}, {x + width:g}, {y + height:g}) is "
    ours = f"segmentation's ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    # A mirrored box near the middle of the image is hardly off, and yet tells that its file is wrong.
    if image.height and max(sides, abs(image.height - y1 - y), abs(image.height - y0 - y - height)) < 0.01:
        return f"{text}upside down against the {ours}"
    if isinstance(parts, Mask) and image.width and image.height:
        rows, columns = parts.size
        if (rows, columns) != (image.height, image.width):
            ours += f", whose mask is for {columns} x {rows} px and not {image.width:g} x {image.height:g}"
    return f"{text}{off:g} px off the {ours}" if off > _TOLERANCE else ""


def are_fractions(boxes: np.ndarray) -> bool:
    """Return whether all boxes lie within 0 to 1 and not all are whole numbers, as some tools count pixels."""
    known = boxes[np.isfinite(boxes).all(axis=1)]
    # A sum may pass 1 by rounding.
    return len(known) > 0 and bool(known.max() < 1.001 and ((known > 0) & (known < 1)).any())


def _bounds(segmentation: list | Mask | None) -> Box | None:
    if isinstance(segmentation, Mask):
        return run_bounds(segmentation.counts, segmentation.size)
    if not segmentation:
        return None
    if not isinstance(segmentation[0], list):
        segmentation = [segmentation]
    if not all(isinstance(polygon, list) for polygon in segmentation):
        raise ValueError("it mixes numbers and polygons")
    return polygon_bounds(segmentation)

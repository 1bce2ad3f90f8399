"""COCO instances files: one JSON for many images."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from tlx.data.assemble import Box, Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, relative, spellings, subfolders
from tlx.errors import DataError
from tlx.registry import readers

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testdev": "test",
}
# Sides of a bbox and its outline may differ by rounding, and by the last pixel that some tools count.
_TOLERANCE = 2.0
_MAX_MASK_PIXELS = 1_000_000_000


class _Image(msgspec.Struct, gc=False):
    id: int | str
    file_name: str
    height: float | None = None


class _Category(msgspec.Struct, gc=False):
    id: int | str
    name: str


class _Mask(msgspec.Struct, gc=False):
    counts: str | list[int]
    size: list[int]


class _Annotation(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int | str
    id: int | str | None = None
    bbox: list[float] | None = None
    segmentation: list[list[float] | float] | _Mask | None = None
    iscrowd: int | bool | None = None


class _Coco(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@readers.register("coco")
def coco(
    path: Path,
    images: Path | None = None,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    boxes_from: Literal["bbox", "segmentation"] = "bbox",
) -> Dataset:
    """COCO: an instances JSON, or a folder with `annotations/instances_*.json`.

    A folder's files are its splits: train2017 is train, val2017 is validation. The images are in
    `images/SPLIT`, `SPLIT`, `images` or beside the JSON; a file_name that is a URL means its last segment.
    Crowds become ignore regions; images without annotations are background. Format: cocodataset.org/#format-data.

    Args:
      path: the JSON file or the folder.
      images: the folder with the images, where it is none of the usual ones.
      classes: the classes to keep, in this order; None keeps all that have boxes, sorted by name.
      merge: class names to replace, each by the name to use instead.
      boxes_from: where a box comes from: its bbox, or the bounds of its segmentation.

    Raises:
      DataError: a JSON file is not COCO (the message says where), no image or box is found, or a class
        that is asked for does not occur.
    """
    path = existing(path, "coco")
    findings: list[Finding] = []
    root, files = _files(path, findings)
    records: list[Record] = []
    declared: set[str] = set()
    for file, split in files.items():
        folders = [existing(images, "coco")] if images else _image_folders(root, file)
        pictures = ImageFiles(folders[0] if images else root, folders[:1], findings, deep=True)
        content = _decode(file)
        declared.update(category.name.strip() for category in content.categories)
        records += _records(content, relative(file, root), split, pictures, boxes_from, findings)
    return assemble("coco", records, root, classes, merge, findings, declared)


def _files(path: Path, findings: list[Finding]) -> tuple[Path, dict[Path, str]]:
    """Return the dataset's folder, and its JSON files with the split that each is."""
    if path.is_file():
        return path.parent.parent if path.parent.name.lower() == "annotations" else path.parent, {path: ""}
    files: list[Path] = []
    for folder in subfolders(path, "annotations", "."):
        there = listing(path, folder, ".json", findings)
        files = files or [file for file in there if file.name.startswith("instances")] or there
    for folder in subfolders(path, *_SPLITS) if not files else ():
        files += listing(path, folder, ".json", findings)
    if not files:
        raise DataError(f"readers.coco: no JSON file in {path}, its annotations or its folders {', '.join(_SPLITS)}")
    splits = {file: _split(file) for file in files}
    if len(files) > 1 and len(set(splits.values()) - {""}) < len(files):
        names = ", ".join(relative(file, path) for file in files)
        raise DataError(f"readers.coco: {path} has several JSON files that are not one split each ({names}): name one")
    return path, splits if len(files) > 1 else {files[0]: ""}


def _split(file: Path) -> str:
    words = re.findall(r"[a-z]+", f"{file.parent.name} {file.stem}".lower())
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")


def _image_folders(root: Path, file: Path) -> list[Path]:
    split = file.stem.rpartition("_")[2]
    beside = [file.parent] if file.parent.name.lower() != "annotations" else []
    there = subfolders(root, f"images/{split}", split, "images")
    return [*there[:1], *beside, root]


def _decode(file: Path) -> _Coco:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Coco)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise DataError(f"readers.coco: {file} is not a COCO instances file: {error}; repair or replace it") from error


def _records(
    content: _Coco,
    file: str,
    split: str,
    pictures: ImageFiles,
    boxes_from: Literal["bbox", "segmentation"],
    findings: list[Finding],
) -> list[Record]:
    # Tools mix numbers and strings for the same id, so that ids are compared as text.
    names = {str(category.id): category.name.strip() for category in content.categories}
    by_image: dict[str, list[_Annotation]] = defaultdict(list)
    for annotation in content.annotations:
        by_image[str(annotation.image_id)].append(annotation)
    records = []
    for image in content.images:
        where = f"image {image.id}"
        annotations = by_image.pop(str(image.id), [])
        if picture := pictures.locate(spellings(image.file_name), file, where, findings):
            objects = []
            for annotation in annotations:
                try:
                    objects.append(_object(annotation, names, boxes_from))
                except ValueError as error:
                    message = f"{error}; left out: repair or remove it"
                    record = f"{where}, annotation {annotation.id}"
                    findings.append(Finding("broken-annotation", "error", file, record, message))
                if boxes_from == "bbox" and (odd := _disagreement(annotation, image.height)):
                    message = f"{odd}; if the segmentation is right: readers.coco.boxes_from = 'segmentation'"
                    record = f"{where}, annotation {annotation.id}"
                    findings.append(Finding("bbox-segmentation", "warning", file, record, message))
            records.append(Record(picture, file, objects, where, split=split))
    for key, annotations in by_image.items():
        message = f"{len(annotations)} annotations are of this image, which the file does not list; left out"
        findings.append(Finding("unknown-image", "warning", file, f"image {key}", message))
    return records


def _object(annotation: _Annotation, names: dict[str, str], boxes_from: Literal["bbox", "segmentation"]) -> Object:
    if str(annotation.category_id) not in names:
        raise ValueError(f"its category_id {annotation.category_id!r} is not among the file's categories")
    if boxes_from == "segmentation":
        box = _bounds(annotation.segmentation)
        if box is None:
            raise ValueError("it has no segmentation to take a box from")
    elif len(annotation.bbox or ()) == 4:
        x, y, width, height = annotation.bbox
        box = (x, y, x + width, y + height)
    else:
        raise ValueError(f"its bbox must be [x, y, width, height], not {annotation.bbox}")
    return Object(names[str(annotation.category_id)], box, bool(annotation.iscrowd), f"annotation {annotation.id}")


def _disagreement(annotation: _Annotation, height: float | None) -> str:
    """Return how the bbox differs from its own segmentation, or "" where it does not or cannot be told."""
    try:
        outline = _bounds(annotation.segmentation)
    except ValueError as error:
        return f"the segmentation is broken ({error})"
    if outline is None or len(annotation.bbox or ()) != 4:
        return ""
    x, y, w, h = annotation.bbox
    box = (x, y, x + w, y + h)
    off = _furthest(box, outline)
    text = "the bbox ({:g}, {:g}, {:g}, {:g})".format(*box) + " is {}segmentation's ({:g}, {:g}, {:g}, {:g})"
    # A mirrored box near the middle of the image is hardly off, and yet tells that its file is wrong.
    if (
        height
        and off > 0.5
        and _furthest(box, (outline[0], height - outline[3], outline[2], height - outline[1])) < 0.01
    ):
        return text.format("upside down against the ", *outline)
    return text.format(f"{off:g} px off the ", *outline) if off > _TOLERANCE else ""


def _furthest(a: Box, b: Box) -> float:
    return max(abs(p - q) for p, q in zip(a, b, strict=True))


def _bounds(segmentation: list | _Mask | None) -> Box | None:
    """Return the box around polygons or a mask, or None where there are neither; ValueError for a broken mask."""
    if isinstance(segmentation, _Mask):
        return _mask_bounds(segmentation)
    if not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    xs = [x for polygon in polygons if isinstance(polygon, list) for x in polygon[::2]]
    ys = [y for polygon in polygons if isinstance(polygon, list) for y in polygon[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)) if ys else None


def _mask_bounds(mask: _Mask) -> Box | None:
    counts = _unpacked(mask.counts) if isinstance(mask.counts, str) else mask.counts
    if len(mask.size) != 2 or min(mask.size) < 1 or mask.size[0] * mask.size[1] > _MAX_MASK_PIXELS:
        raise ValueError(f"a mask cannot have the size {mask.size}")
    if min(counts, default=0) < 0 or sum(counts) != mask.size[0] * mask.size[1]:
        raise ValueError(f"the runs of a mask do not fill its size {mask.size}")
    # Runs go down the columns, background first: every second one ends where the object begins.
    edges = np.cumsum(np.array(counts, np.int64))
    first, last = edges[0:-1:2], edges[1::2] - 1
    first, last = first[first <= last], last[first <= last]
    if not len(first):
        return None
    rows = mask.size[0]
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
            value = shift = 0
    return counts

"""Labelbox exports: v1 JSON, its 2018 dialects, and v2 NDJSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from tlx.data.assemble import Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, subfolders
from tlx.data.formats import labelboxfile
from tlx.data.formats.labelboxfile import Row, Shape
from tlx.data.formats.masks import pixel_bounds
from tlx.data.images import image_size, read_image
from tlx.data.objects import Box
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

# So many JSON files in one folder are looked into.
_MOST = 100


def _sniff(path: Path) -> Sniff:
    try:
        file = path if path.is_file() else _export(path, [])
        fits = labelboxfile.looks_like(file)
    except (DataError, OSError) as error:
        return Sniff(False, str(error))
    return Sniff(fits, f"{'Labelbox' if fits else 'no Labelbox'} rows in {file.name}")


@readers.register("labelbox", sniff=_sniff)
def labelbox(
    path: Path,
    images: Path | None = None,
    masks: Path | None = None,
    resized: Literal["report", "scale"] = "report",
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
) -> Dataset:
    """Labelbox: a v1 JSON or v2 NDJSON export with its images as local files.

    An image is found by the last segment of its URL, percent-encoded or decoded, by its external id or its
    global key, under any image extension; nothing is downloaded. Its size is the file's. Polygons become
    the boxes around them, and so do masks, whose files are found by the last segment of their URLs or by
    their feature ids; lines, points and nested classifications are left out. A labelled row without objects
    is background; a skipped or unlabelled one is left out. The 2018 dialects (WKT text, or x/y lists by
    class) count y from the image's bottom and are turned over. Formats: docs.labelbox.com, export v2;
    github.com/Labelbox/labelbox-python for v1.

    Args:
      path: the export, or the folder that has exactly one.
      images: the folder with the images; None means `images` beside the export, or the export's own.
      masks: the folder with the masks' pictures; None means `masks` beside the export, or the images' folder.
      resized: what to do with an image that has the proportions but not the size that the export tells:
        take its boxes as its own pixels and say so, or scale them, as is right where the files were resized
        after they were labelled.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.

    Raises:
      DataError: there is no export, no image or box is found, or a class that is asked for does not occur.
    """
    path = existing(path, "labelbox")
    findings: list[Finding] = []
    file = path if path.is_file() else _export(path, findings)
    root = file.parent
    pictures = _pictures(root, images, "images", findings) or ImageFiles(root, [root], findings, deep=True)
    mask_files = _pictures(root, masks, "masks", findings) or pictures
    rows = labelboxfile.rows(file)
    records = [
        record
        for where, row, picture in _found(rows, file.name, pictures, findings)
        if (record := _record(row, picture, mask_files, file.name, where, findings))
    ]
    empty = [record.record for record in records if not record.objects]
    _note("background-row", empty, "are labelled and have no object; taken as background", file.name, findings)
    records = _rescaled(records, resized, file.name, findings)
    return assemble("labelbox", records, root, classes, merge, findings)


def _export(folder: Path, findings: list[Finding]) -> Path:
    files = [file for suffix in (".json", ".ndjson") for file in listing(folder, folder, suffix, findings)]
    exports = [file for file in files[:_MOST] if labelboxfile.looks_like(file)]
    if len(exports) == 1:
        return exports[0]
    names = ", ".join(file.name for file in (exports or files)[:10]) or "no JSON file"
    raise DataError(f"readers.labelbox: {folder} must hold exactly one Labelbox export, found {names}; name the file")


def _pictures(root: Path, given: Path | None, usual: str, findings: list[Finding]) -> ImageFiles | None:
    if given:
        folder = existing(given, "labelbox")
        return ImageFiles(folder, [folder], findings, deep=True)
    folders = subfolders(root, usual)
    return ImageFiles(root, folders, findings, deep=True) if folders else None


def _found(
    texts: list[bytes], file: str, pictures: ImageFiles, findings: list[Finding]
) -> Iterator[tuple[str, Row, Path]]:
    """Yield each labelled row with its place in the export and its image; what else there is leaves a finding."""
    unlabelled = []
    first: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        where = f"row {number}"
        try:
            row = labelboxfile.read(text)
        except labelboxfile.BROKEN as error:
            message = f"{error}; the row is left out: repair or remove it"
            findings.append(Finding("broken-annotation", "error", file, where, message))
            continue
        if row.other:
            message = f"it is {row.other}, and only images are read; left out"
            findings.append(Finding("not-an-image", "warning", file, where, message))
        elif not row.labelled:
            unlabelled.append(where)
        elif row.key and row.key in first:
            message = f"it labels the same image as {first[row.key]}, as another person's opinion; the first is taken"
            findings.append(Finding("several-labels", "warning", file, where, message))
        elif picture := pictures.locate(row.names, file, where, findings):
            first[row.key] = where
            yield where, row, picture
    _note("unlabelled-row", unlabelled, "are skipped or not yet labelled; left out", file, findings)


def _record(
    row: Row, picture: Path, masks: ImageFiles, file: str, where: str, findings: list[Finding]
) -> Record | None:
    """Return a row's record, or None where a mask cannot be read: the image would be taken to lack that object."""
    if row.oddity:
        findings.append(Finding("several-labels", "warning", file, where, row.oddity))
    objects = []
    for number, shape in enumerate(row.shapes, 1):
        try:
            box = shape.box or _masked(shape, masks)
        except DataError as error:
            message = f"{shape.name!r}: {error}; the image is left out"
            findings.append(Finding("broken-mask", "warning", file, f"{where}, object {number}", message))
            return None
        if box:
            objects.append(Object(shape.name, box, where=f"object {number}"))
        else:
            message = f"{shape.name!r} is {shape.kind or 'an empty mask'}, no box, polygon or mask; left out"
            findings.append(Finding("no-box", "warning", file, f"{where}, object {number}", message))
    record = Record(picture, file, objects, where, annotated=row.annotated)
    return _turned_over(record) if row.y_up else record


def _masked(shape: Shape, files: ImageFiles) -> Box | None:
    """Return the box around an object's pixels in the first of its masks that there is; None of no or empty masks.

    Raises:
      DataError: none of the masks is there, or it is damaged or has no background.
    """
    for mask in shape.masks:
        found = {path for name in mask.names for path in files.find(name)}
        if len(found) == 1:
            return _bounds(found.pop(), mask.colour)
    if not shape.masks:
        return None
    names, folders = shape.masks[0].names, ", ".join(map(str, files.folders))
    raise DataError(f"no single mask {names[0]!r} in {folders}; export its file to there")


def _bounds(path: Path, colour: tuple[int, int, int] | None) -> Box | None:
    pixels = read_image(path)
    if colour is not None:
        return pixel_bounds((pixels == np.array(colour)).all(axis=2))
    if pixels.any(axis=2).all():
        raise DataError(f"{path}: the mask has no black background; save it as black and white")
    return pixel_bounds(pixels)


def _sized(record: Record) -> Record:
    try:
        return record._replace(size=image_size(record.image))
    except DataError:
        return record  # assemble meets the same error and reports it.


def _turned_over(record: Record) -> Record:
    record = _sized(record)
    height = record.size[1] if record.size else 0
    turned = [
        obj._replace(box=(obj.box[0], height - obj.box[3], obj.box[2], height - obj.box[1])) for obj in record.objects
    ]
    return record._replace(objects=turned)


def _rescaled(
    records: list[Record], resized: Literal["report", "scale"], file: str, findings: list[Finding]
) -> list[Record]:
    records = [_sized(record) if record.annotated else record for record in records]
    smaller = [record.record for record in records if _is_resized(record)]
    if resized == "scale":
        _note("resized-image", smaller, "have resized images; their boxes are scaled with them", file, findings)
        return [_scaled(record) if _is_resized(record) else record for record in records]
    question = "have images of other sizes than the export tells; resized since? readers.labelbox.resized = 'scale'"
    _note("resized-image", smaller, question, file, findings)
    return records


def _is_resized(record: Record) -> bool:
    """Return whether an image has the proportions that the export tells, to 1%, and another size."""
    if not record.annotated or not record.size or record.annotated == record.size:
        return False
    (width, height), (wide, high) = record.size, record.annotated
    return abs(width * high - height * wide) <= 0.01 * height * wide


def _scaled(record: Record) -> Record:
    x, y = (true / told for true, told in zip(record.size, record.annotated, strict=True))
    objects = [
        obj._replace(box=(obj.box[0] * x, obj.box[1] * y, obj.box[2] * x, obj.box[3] * y)) for obj in record.objects
    ]
    return record._replace(objects=objects, annotated=None)


def _note(code: str, rows: list[str], what: str, file: str, findings: list[Finding]) -> None:
    if rows:
        findings.append(Finding(code, "info", file, rows[0], f"{len(rows)} rows {what} (this is the first)"))

"""Labelbox exports: v1 JSON, its 2018 dialects, and v2 NDJSON."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tlx.data.assemble import Box, Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, spellings, subfolders
from tlx.data.images import image_size
from tlx.errors import DataError
from tlx.registry import readers

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_POINT = re.compile(rf"({_NUMBER})\s+({_NUMBER})")
# The first ring of each polygon; the others are its holes.
_OUTER_RING = re.compile(r"\(\s*\(([^()]+)\)")


class _Point(msgspec.Struct):
    x: float
    y: float


class _Rectangle(msgspec.Struct):
    top: float
    left: float
    height: float
    width: float


class _Object(msgspec.Struct):
    """One object of either version: v1 says bbox, v2 bounding_box; the class is `value`."""

    value: str = ""
    title: str = ""
    name: str = ""
    bbox: _Rectangle | None = None
    bounding_box: _Rectangle | None = None
    polygon: list[_Point] | None = None


class _DataRow(msgspec.Struct):
    id: str = ""
    external_id: str | None = None
    global_key: str | None = None
    row_data: str | None = None


class _Annotations(msgspec.Struct):
    objects: list[_Object] = []
    frames: dict[str, Any] | None = None


class _LabelV2(msgspec.Struct):
    annotations: _Annotations


class _Project(msgspec.Struct):
    labels: list[_LabelV2] = []


class _RowV2(msgspec.Struct):
    data_row: _DataRow
    projects: dict[str, _Project] = {}


class _RowV1(msgspec.Struct):
    url: str = msgspec.field(name="Labeled Data", default="")
    external_id: str | None = msgspec.field(name="External ID", default=None)
    label: dict[str, Any] | str | None = msgspec.field(name="Label", default=None)


@readers.register("labelbox")
def labelbox(
    path: Path,
    images: Path | None = None,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
) -> Dataset:
    """Labelbox: a v1 JSON or v2 NDJSON export with its images as local files.

    An image is found by the last segment of its URL, percent-encoded or decoded, by its external id or its
    global key, under any image extension; nothing is downloaded. Its size is the file's. Polygons become
    the boxes around them; nested classifications are ignored. A labelled row without objects is
    background; a skipped or unlabelled one is left out. The 2018 dialects (WKT text, or x/y lists by
    class) count y from the image's bottom and are turned over. Formats: docs.labelbox.com, export v2;
    github.com/Labelbox/labelbox-python for v1.

    Args:
      path: the export, or the folder that has exactly one.
      images: the folder with the images; None means `images` beside the export, or the export's own.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.

    Raises:
      DataError: there is no export, no image or box is found, or a class that is asked for does not occur.
    """
    path = existing(path, "labelbox")
    findings: list[Finding] = []
    file = path if path.is_file() else _export(path, findings)
    root = file.parent
    folder = existing(images, "labelbox") if images else (subfolders(root, "images") or [root])[0]
    pictures = ImageFiles(folder if images else root, [folder], findings, deep=True)
    records: list[Record] = []
    unlabelled = []
    for number, text in enumerate(_rows(file), 1):
        where = f"row {number}"
        try:
            row = _read(text)
            picture = pictures.locate(row.names, file.name, where, findings) if row.labelled else None
            if picture:
                records.append(_record(row, picture, file.name, where, findings))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            message = f"{error}; the row is left out: repair or remove it"
            findings.append(Finding("broken-annotation", "error", file.name, where, message))
        else:
            if not row.labelled:
                unlabelled.append(where)
    empty = [record.record for record in records if not record.objects]
    _note("unlabelled-row", unlabelled, "are skipped or not yet labelled; left out", file.name, findings)
    _note("background-row", empty, "are labelled and have no object; taken as background", file.name, findings)
    return assemble("labelbox", records, root, classes, merge, findings)


class _Row(NamedTuple):
    """One row of any version: `names` its image may have, and the objects, unless it is not `labelled`."""

    names: list[str]
    labelled: bool
    objects: list[tuple[str, Box | None]]
    y_up: bool = False
    oddity: str = ""


def _export(folder: Path, findings: list[Finding]) -> Path:
    files = [f for suffix in (".json", ".ndjson") for f in listing(folder, folder, suffix, findings)]
    exports = []
    for file in files:
        with open(file, "rb") as stream:
            head = stream.read(100_000)
        if b'"Labeled Data"' in head or b'"data_row"' in head:
            exports.append(file)
    if len(exports) == 1:
        return exports[0]
    names = ", ".join(file.name for file in exports or files) or "no JSON file"
    raise DataError(f"readers.labelbox: {folder} must hold exactly one Labelbox export, found {names}; name the file")


def _rows(file: Path) -> list[bytes]:
    """Return each row's JSON text, undecoded, so that a broken row costs only itself."""
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    if content.startswith(b"{"):
        return [line for line in content.splitlines() if line.strip()]
    try:
        return [bytes(row) for row in msgspec.json.decode(content, type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        text = "is neither a JSON list of rows nor one JSON object a line"
        raise DataError(f"readers.labelbox: {file} {text}: {error}; export it again") from error


def _read(text: bytes) -> _Row:
    if b'"data_row"' in text:
        return _read_v2(msgspec.json.decode(text, type=_RowV2))
    row = msgspec.json.decode(text, type=_RowV1)
    names = [*spellings(row.url), row.external_id or ""]
    label = row.label
    if not isinstance(label, dict):
        return _Row(names, False, [])
    if "objects" in label or "classifications" in label:
        objects = msgspec.convert(label.get("objects", []), list[_Object])
        return _Row(names, True, [_outlined(obj) for obj in objects])
    outlined = [(name, _around(outline)) for name, value in label.items() for outline in _outlines(value)]
    return _Row(names, True, outlined, y_up=True)


def _read_v2(row: _RowV2) -> _Row:
    data = row.data_row
    names = [name for text in (data.row_data, data.external_id, data.global_key) if text for name in spellings(text)]
    # Several labels in one project are several people's opinions; several projects label different things.
    chosen = [project.labels[0].annotations for project in row.projects.values() if project.labels]
    if any(annotations.frames for annotations in chosen):
        raise ValueError("it is a video, whose frames are not read")
    several = any(len(project.labels) > 1 for project in row.projects.values())
    oddity = "it has several labels in one project; the first is taken" if several else ""
    outlined = [_outlined(obj) for annotations in chosen for obj in annotations.objects]
    return _Row(names or [data.id], bool(chosen), outlined, oddity=oddity)


def _outlined(obj: _Object) -> tuple[str, Box | None]:
    name = (obj.value or obj.title or obj.name).strip()
    if rectangle := obj.bbox or obj.bounding_box:
        left, top = rectangle.left, rectangle.top
        return name, (left, top, left + rectangle.width, top + rectangle.height)
    return name, _around([(point.x, point.y) for point in obj.polygon]) if obj.polygon else None


def _outlines(value: Any) -> Iterator[list[tuple[float, float]]]:
    """Yield the outlines in a 2018 label: WKT, {"geometry": ...}, [{"x", "y"}], lists of these; answers have none."""
    if isinstance(value, dict):
        yield from _outlines(value.get("geometry"))
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "x" in value[0]:
        yield [(point.x, point.y) for point in msgspec.convert(value, list[_Point])]
    elif isinstance(value, list):
        for item in value:
            yield from _outlines(item)
    elif isinstance(value, str) and "POLYGON" in value:
        rings = [[(float(x), float(y)) for x, y in _POINT.findall(ring)] for ring in _OUTER_RING.findall(value)]
        if not rings or not all(rings):
            raise ValueError(f"{value[:40]!r} is not a polygon in WKT")
        yield from rings


def _around(points: list[tuple[float, float]]) -> Box:
    xs, ys = zip(*points, strict=True)
    return (min(xs), min(ys), max(xs), max(ys))


def _record(row: _Row, picture: Path, file: str, where: str, findings: list[Finding]) -> Record:
    if row.oddity:
        findings.append(Finding("several-labels", "warning", file, where, row.oddity))
    objects = []
    for number, (name, box) in enumerate(row.objects, 1):
        if box:
            objects.append(Object(name, box, where=f"object {number}"))
        else:
            message = f"{name!r} is neither a box nor a polygon; left out"
            findings.append(Finding("no-box", "warning", file, f"{where}, object {number}", message))
    record = Record(picture, file, objects, where)
    return _turned_over(record) if row.y_up else record


def _turned_over(record: Record) -> Record:
    try:
        size = image_size(record.image)
    except DataError:
        return record  # assemble meets the same error and reports it.
    turned = [
        obj._replace(box=(obj.box[0], size[1] - obj.box[3], obj.box[2], size[1] - obj.box[1])) for obj in record.objects
    ]
    return record._replace(objects=turned, size=size)


def _note(code: str, rows: list[str], what: str, file: str, findings: list[Finding]) -> None:
    if rows:
        findings.append(Finding(code, "info", file, rows[0], f"{len(rows)} rows {what} (this is the first)"))

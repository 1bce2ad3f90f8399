"""What a row of a Labelbox export says, whatever the export's version: v1, v2, or the dialects of 2018."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tlx.data.formats.masks import around, is_polygon_text, text_bounds
from tlx.data.formats.uploads import image_names
from tlx.data.objects import Box
from tlx.errors import DataError

BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)
_HEAD = 100_000
_OTHER_TEXT = re.compile(r"\s*(MULTI)?(POINT|LINESTRING|GEOMETRYCOLLECTION)\b", re.IGNORECASE)
# Version 2 ends the address of every mask so; what comes before tells one from another.
_MASK_TAIL = re.compile(r"/index/\d+(/mask)?/?(?=$|[?#])")


class MaskFile(NamedTuple):
    """A mask's picture: the `names` that its file can have, and the object's `colour` in it, None being not black."""

    names: list[str]
    colour: tuple[int, int, int] | None = None


class Shape(NamedTuple):
    """One object: its `box`, or the `masks` that can tell it, or what `kind` of thing it is that has neither."""

    name: str
    box: Box | None = None
    masks: tuple[MaskFile, ...] = ()
    kind: str = ""


class Row(NamedTuple):
    """One row: `names` its image's file can have, and the shapes, of a row that is `labelled`.

    `y_up` says that y counts from the image's bottom. `key` is the same for several labels of one image.
    `annotated` is the image's (width, height) as the row has it. `other` says what a row is that is no image,
    and `oddity` what else there is to say.
    """

    names: list[str]
    shapes: list[Shape]
    labelled: bool = True
    y_up: bool = False
    key: str = ""
    annotated: tuple[float, float] | None = None
    other: str = ""
    oddity: str = ""


class _Point(msgspec.Struct):
    x: float
    y: float


class _Rectangle(msgspec.Struct):
    top: float
    left: float
    height: float
    width: float


class _Mask(msgspec.Struct):
    url: str = ""
    instance_uri: str = msgspec.field(name="instanceURI", default="")
    color_rgb: tuple[int, int, int] | None = None
    colour: tuple[int, int, int] | None = msgspec.field(name="colorRGB", default=None)


class _Object(msgspec.Struct):
    """One object of either version: v1 says bbox, v2 bounding_box; the class is `value`."""

    value: str = ""
    title: str = ""
    name: str = ""
    annotation_kind: str = ""
    feature_id: str = ""
    feature: str = msgspec.field(name="featureId", default="")
    bbox: _Rectangle | None = None
    bounding_box: _Rectangle | None = None
    polygon: list[_Point] | None = None
    line: Any = None
    point: Any = None
    mask: _Mask | None = None
    composite_mask: _Mask | None = None
    instance_uri: str | None = msgspec.field(name="instanceURI", default=None)


class _DataRow(msgspec.Struct):
    id: str = ""
    external_id: str | int | None = None
    global_key: str | int | None = None
    row_data: Any = None


class _Media(msgspec.Struct):
    width: float | None = None
    height: float | None = None
    asset_type: str | None = None
    exif_rotation: str | int | None = None


class _Annotations(msgspec.Struct):
    objects: list[_Object] = []
    frames: Any = None


class _Performance(msgspec.Struct):
    skipped: bool | None = None


class _Label(msgspec.Struct):
    annotations: _Annotations
    performance_details: _Performance | None = None


class _Project(msgspec.Struct):
    labels: list[_Label] = []


class _RowV2(msgspec.Struct):
    data_row: _DataRow
    media_attributes: _Media | None = None
    projects: dict[str, _Project] | None = None


class _RowV1(msgspec.Struct):
    url: str = msgspec.field(name="Labeled Data", default="")
    key: str | None = msgspec.field(name="DataRow ID", default=None)
    external_id: str | int | None = msgspec.field(name="External ID", default=None)
    global_key: str | int | None = msgspec.field(name="Global Key", default=None)
    skipped: bool | None = msgspec.field(name="Skipped", default=None)
    label: dict[str, Any] | str | None = msgspec.field(name="Label", default=None)


def looks_like(file: Path) -> bool:
    """Return whether a file begins as a Labelbox export does."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
    return b'"Labeled Data"' in head or b'"data_row"' in head


def rows(file: Path) -> list[bytes]:
    """Return each row's JSON text, undecoded, so that a broken row costs only itself.

    Raises:
      DataError: the file is neither a JSON list nor JSON objects, one a line.
    """
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    try:
        if content.startswith(b"{"):
            return _lines(content)
        return [bytes(row) for row in msgspec.json.decode(content, type=list[msgspec.Raw])]
    except BROKEN as error:
        text = "is neither a JSON list of rows nor one JSON object a line"
        raise DataError(f"readers.labelbox: {file} {text}: {error}; export it again") from error


def _lines(content: bytes) -> list[bytes]:
    try:
        return [bytes(msgspec.json.decode(content, type=msgspec.Raw))]  # A single row may be on many lines.
    except BROKEN:
        return [line for line in content.splitlines() if line.strip()]


def read(text: bytes) -> Row:
    """Return what a row's JSON text says.

    Raises:
      one of BROKEN: it is no row, or one of its objects is damaged.
    """
    if b'"data_row"' in text:
        return _read_v2(msgspec.json.decode(text, type=_RowV2))
    row = msgspec.json.decode(text, type=_RowV1)
    names = _names(row.url, row.external_id, row.global_key, row.key)
    label = row.label
    if isinstance(label, str) and label.lstrip().startswith("{"):
        label = msgspec.json.decode(label, type=dict[str, Any])
    key = row.key or ""
    if row.skipped or not isinstance(label, dict):
        return Row(names, [], labelled=False, key=key)
    if "frames" in label:
        return Row(names, [], key=key, other="a video")
    if "objects" in label or "classifications" in label:
        objects = msgspec.convert(label.get("objects", []), list[_Object])
        return Row(names, [_shape(obj) for obj in objects], key=key)
    shapes = [shape for name, value in label.items() for shape in _shapes(name.strip(), value)]
    return Row(names, shapes, y_up=True, key=key)


def _names(*texts: Any) -> list[str]:
    names = [name for text in texts if text and isinstance(text, str | int) for name in image_names(str(text))]
    return names or [""]


def _read_v2(row: _RowV2) -> Row:
    data, media = row.data_row, row.media_attributes or _Media()
    names = _names(data.row_data, data.external_id, data.global_key, data.id)
    if media.asset_type not in (None, "image"):
        return Row(names, [], other=f"of the kind {media.asset_type!r}")
    # Several labels in one project are several people's opinions; several projects label different things.
    opinions = [
        [label.annotations for label in project.labels if not (label.performance_details or _Performance()).skipped]
        for project in (row.projects or {}).values()
    ]
    chosen = [annotations[0] for annotations in opinions if annotations]
    if any(annotations.frames for annotations in chosen):
        return Row(names, [], other="a video")
    several = any(len(annotations) > 1 for annotations in opinions)
    oddity = "it has several labels in one project; the first is taken" if several else ""
    shapes = [_shape(obj) for annotations in chosen for obj in annotations.objects]
    # Whether the size of a turned image is that before or after turning is not told.
    upright = str(media.exif_rotation or 1) in "1234" and media.width and media.height
    size = (media.width, media.height) if upright else None
    return Row(names, shapes, bool(chosen), annotated=size, oddity=oddity)


def _shape(obj: _Object) -> Shape:
    name = (obj.value or obj.title or obj.name).strip()
    if rectangle := obj.bbox or obj.bounding_box:
        left, top = rectangle.left, rectangle.top
        return Shape(name, (left, top, left + rectangle.width, top + rectangle.height))
    if obj.polygon:
        return Shape(name, _around(obj.polygon))
    if obj.line is not None or obj.point is not None:
        return Shape(name, kind="a line" if obj.line is not None else "a point")
    told = [(mask, mask.color_rgb or mask.colour) for mask in (obj.mask, obj.composite_mask) if mask]
    told = [(mask.url or mask.instance_uri, colour) for mask, colour in told] + [(obj.instance_uri, None)]
    masks = tuple(MaskFile(_mask_names(obj, url, colour), colour) for url, colour in told if url)
    return Shape(name, masks=masks, kind="" if masks else obj.annotation_kind or "of an unknown kind")


def _mask_names(obj: _Object, url: str, colour: tuple[int, int, int] | None) -> list[str]:
    names = image_names(_MASK_TAIL.sub("", url, count=1))
    # One picture holds the colours of many objects, so that none of them can give it its name.
    feature = obj.feature_id or obj.feature
    return [*names, feature] if feature and not colour else names


def _shapes(name: str, value: Any) -> Iterator[Shape]:
    """Yield the shapes in a 2018 label: WKT, {"geometry": ...}, [{"x", "y"}], lists of these; answers are none."""
    if isinstance(value, dict) and "geometry" in value:
        yield from _shapes(name, value["geometry"])
    elif isinstance(value, dict):
        yield Shape(name, kind="a point" if {"x", "y"} <= value.keys() else "no geometry")
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "x" in value[0]:
        yield Shape(name, _around(msgspec.convert(value, list[_Point])))
    elif isinstance(value, list):
        for item in value:
            yield from _shapes(name, item)
    elif isinstance(value, str) and is_polygon_text(value):
        yield from (Shape(name, box) for box in text_bounds(value))
    elif isinstance(value, str) and (other := _OTHER_TEXT.match(value)):
        yield Shape(name, kind=f"a {other[0].strip()}")


def _around(points: list[_Point]) -> Box:
    return around([point.x for point in points], [point.y for point in points])

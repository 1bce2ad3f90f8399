"""What a COCO JSON file says: all at once where it is sound, record by record where it is not."""

import re
from pathlib import Path
from typing import Any

import msgspec

from tlx.data.dataset import Finding
from tlx.errors import DataError, suggest

_BOM = b"\xef\xbb\xbf"
_MAX_BYTES = 2_000_000_000
_HEAD = 65_536
_LISTS = ("images", "annotations", "categories")
_SEEN = re.compile(rb'"(images|annotations|categories)"\s{0,20}:\s{0,20}\[')
_OTHERS = {
    "caption": "captions of whole images",
    "segments_info": "panoptic segments",
    "question_id": "answers to questions",
}
# Strings are matched, too, so that what they hold is left alone; one that never ends is a single match.
_NO_NUMBER = re.compile(rb'"(?:[^"\\]+|\\.)*+"?|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_BROKEN = (msgspec.MsgspecError, RecursionError, UnicodeError)


class Image(msgspec.Struct, gc=False):
    """One image; tools that know no `file_name` give a `coco_url`."""

    id: int | str
    file_name: str | None = None
    coco_url: str | None = None
    width: float | None = None
    height: float | None = None


class Category(msgspec.Struct, gc=False):
    """One class."""

    id: int | str
    name: str | int


class Mask(msgspec.Struct, gc=False):
    """Run lengths, or COCO's compressed text of them, for an image of `size` (height, width)."""

    counts: str | list[int]
    size: list[int]


class Annotation(msgspec.Struct, gc=False):
    """One object: `bbox` is x, y, width, height in pixels; `segmentation` is JSON, which `shape` decodes."""

    image_id: int | str
    category_id: int | str
    id: int | str | None = None
    bbox: list[float] | None = None
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    iscrowd: bool | float | None = None
    ignore: bool | float | None = None


# Decoded one by one and forgotten, outlines take little memory; most of a file is their numbers.
_SHAPE = msgspec.json.Decoder(list[list[float] | float] | Mask | None, strict=False)


class Content(msgspec.Struct, gc=False):
    """The three lists of an instances file."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


class _Named(msgspec.Struct):
    id: Any


def decode(file: Path, name: str, findings: list[Finding]) -> Content:
    """Return what a COCO instances file says; a record that is broken is left out and leaves a finding.

    Args:
      file: the file.
      name: what findings are to call it.
      findings: more is added.

    Raises:
      DataError: the file is no JSON (the message says where it ends to be), or not of this kind.
    """
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(f"readers.coco: {file} has more than {_MAX_BYTES:,} bytes; divide it")
    text = file.read_bytes().removeprefix(_BOM)
    try:
        content = msgspec.json.decode(text, type=Content)
    except _BROKEN:
        content = _row_by_row(file, text, name, findings)
    if content.annotations and not any(a.bbox or outlined(a) for a in content.annotations):
        raise _other(file, f"none of its {len(content.annotations)} annotations has a bbox or a segmentation")
    return content


def outlined(annotation: Annotation) -> bool:
    """Return whether an annotation has a segmentation, be it a broken one."""
    return bytes(annotation.segmentation) not in (b"null", b"[]")


def shape(annotation: Annotation) -> list[list[float] | float] | Mask | None:
    """Return an annotation's segmentation: polygons, the numbers of one polygon, or a mask.

    Raises:
      ValueError: it is none of these.
    """
    try:
        return _SHAPE.decode(annotation.segmentation)
    except RecursionError as error:
        raise ValueError(error) from error


def looks_like(file: Path) -> bool:
    """Return whether a file's beginning and end look like COCO instances; never raises for what they hold."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD)
        stream.seek(max(len(head), file.stat().st_size - _HEAD))
        sample = head + stream.read(_HEAD)
    lists = len(set(_SEEN.findall(sample)))
    rows = b'"image_id"' in sample or b'"file_name"' in sample
    others = any(f'"{key}"'.encode() in sample for key in _OTHERS)
    return head.removeprefix(_BOM).lstrip().startswith(b"{") and lists + rows > 1 and lists > 0 and not others


def _row_by_row(file: Path, text: bytes, name: str, findings: list[Finding]) -> Content:
    try:
        sections = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except _BROKEN as error:
        sound = _without_nan(text)
        if sound == text:
            raise _other(file, _what_it_is(text) or str(error)) from error
        message = "holds NaN or Infinity, which JSON has no numbers for; each is taken as null"
        findings.append(Finding("not-a-number", "warning", name, "", message))
        return _row_by_row(file, sound, name, findings)
    for key in _LISTS:
        if key not in sections:
            found = ", ".join(repr(found) for found in list(sections)[:10])
            raise _other(file, f"it has no {key!r}, only {found or 'nothing'}{suggest(key, sections)}")
    rows = {key: _rows(file, key, sections[key]) for key in _LISTS}
    if kind := _kind(rows["annotations"]):
        raise _other(file, f"its annotations are {kind}")
    return Content(
        _sound_rows(rows, "images", Image, name, findings),
        _sound_rows(rows, "annotations", Annotation, name, findings),
        _sound_rows(rows, "categories", Category, name, findings),
    )


def _without_nan(text: bytes) -> bytes:
    if b"NaN" not in text and b"Infinity" not in text:
        return text
    return _NO_NUMBER.sub(lambda found: found[0] if found[0].startswith(b'"') else b"null", text)


def _rows(file: Path, key: str, section: msgspec.Raw) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(section, type=list[msgspec.Raw])
    except _BROKEN as error:
        raise _other(file, f"its {key!r} is no list: {error}") from error


def _kind(rows: list[msgspec.Raw]) -> str:
    try:
        keys = msgspec.json.decode(rows[0], type=dict[str, msgspec.Raw]) if rows else {}
    except _BROKEN:
        return ""
    return next((kind for key, kind in _OTHERS.items() if key in keys), "")


def _sound_rows(
    rows: dict[str, list[msgspec.Raw]], key: str, kind: type, name: str, findings: list[Finding]
) -> list[Any]:
    sound = []
    for number, row in enumerate(rows[key]):
        try:
            # Not strict: tools write numbers as strings, and ids as 1.0.
            sound.append(msgspec.json.decode(row, type=kind, strict=False))
        except _BROKEN as error:
            where = f"{key}[{number}]{_id(row)}"
            message = f"{error}; left out: repair or remove it"
            findings.append(Finding("broken-annotation", "error", name, where, message))
    return sound


def _id(row: msgspec.Raw) -> str:
    try:
        return f", id {str(msgspec.json.decode(row, type=_Named).id)[:80]}"
    except _BROKEN:
        return ""


def _what_it_is(text: bytes) -> str:
    head = text[:_HEAD]
    if b'"Labeled Data"' in head or b'"data_row"' in head:
        return "it is a Labelbox export, which readers.labelbox reads"
    if head.lstrip().startswith(b"["):
        what = "detections with scores (COCO results), which are guesses" if b'"score"' in head else "records"
        return f"it is a list of {what}, not an object with {', '.join(map(repr, _LISTS))}"
    return ""


def _other(file: Path, why: str) -> DataError:
    return DataError(f"readers.coco: {file} is not a COCO instances file: {why}; repair or replace it")

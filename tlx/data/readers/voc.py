"""Pascal VOC annotation folders: one XML file per image."""

import re
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from tlx.data.assemble import Object, Record, assemble
from tlx.data.bulk import bulk
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, entries, existing, file_names, subfolders
from tlx.data.formats.imagesets import FOLDERS, declared_splits, image_sets
from tlx.data.formats.pairs import Bad, Labels, paired
from tlx.data.images import named_format
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

_ANNOTATIONS = ("Annotations", "Annotations/xmls", "annots", "xmls", "xml", "labels", "JPEGImages", "images", ".")
_IMAGES = ("JPEGImages", "images", "imgs", "image")
_YEAR = re.compile(r"VOC\d{4}", re.IGNORECASE)
_ROOT = re.compile(rb"<annotation[\s>]")


class _Part(NamedTuple):
    """A folder with XML files, the folders that may have its images, the one with `ImageSets`, and its split."""

    annotations: Path
    images: list[Path]
    base: Path
    split: str


def _sniff(path: Path) -> Sniff:
    try:
        parts = _parts(path)
    except DataError as error:
        return Sniff(False, str(error).removeprefix("readers.voc: "))
    for part in parts:
        heads = [_head(part.annotations / name) for name in islice(filter(_is_xml, entries(part.annotations)), 5)]
        if not any(_ROOT.search(head) for head in heads):
            return Sniff(False, f"the XML files in {part.annotations} do not begin with <annotation>")
        if not any(map(named_format, (name for folder in part.images for name in entries(folder)))):
            return Sniff(False, f"no image goes with the XML files in {part.annotations}")
    return Sniff(True, f"XML files with <annotation> in {', '.join(str(part.annotations) for part in parts)}")


@readers.register("voc", sniff=_sniff)
def voc(
    path: Path,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    unlabelled: Literal["skip", "background", "error"] = "skip",
) -> Dataset:
    """Pascal VOC: a folder with an XML file for each image, as LabelImg and most labelling tools write it.

    The XML files are in `Annotations`, `annotations/xmls` or beside the images; the images in `JPEGImages`,
    `images` or the folder itself, found by the annotation's own name, then by its <filename>; <path> is
    never followed. VOC counts pixels from 1 and includes the last one, so 1 is taken from xmin and ymin
    alone. Objects marked difficult become ignore regions; parts of objects are left out. The lists in
    `ImageSets/Main` become the examples' splits, as do folders `train`, `valid` and `test` that each hold a
    part of the data; `VOCdevkit` and its years are read as one. Format: the VOC2012 development kit,
    host.robots.ox.ac.uk/pascal/VOC.

    Args:
      path: the dataset's folder.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, such as {'r2-d2': 'r2d2'}.
      unlabelled: what an image without XML means: leave it out, train on it as background, or refuse.

    Raises:
      DataError: no annotation or no box is found, a class that is asked for does not occur, or an image
        has no annotation under unlabelled = 'error'.
    """
    root = existing(path, "voc")
    findings: list[Finding] = []
    with bulk():
        records = (record for part in _parts(root) for record in _read(root, part, unlabelled, findings))
        return assemble("voc", records, root, classes, merge, findings)


def _parts(root: Path) -> list[_Part]:
    if whole := _whole(root, ""):
        return [whole]
    halves = [(folder, split) for name, split in FOLDERS.items() for folder in subfolders(root, name)]
    kit = next(iter(subfolders(root, "VOCdevkit")), root)
    years = [(folder, "") for folder in subfolders(kit, *filter(_YEAR.fullmatch, entries(kit)))]
    parts = [part for folder, split in halves + years if (part := _whole(folder, split))]
    parts = parts or [part for name in FOLDERS for part in _divided(root, name)]
    if not parts:
        places = ", ".join(_ANNOTATIONS[:-1])
        raise DataError(f"readers.voc: no XML file in {root}, nor in its folders {places} or {', '.join(FOLDERS)}")
    return parts


def _whole(base: Path, split: str) -> _Part | None:
    for folder in subfolders(base, *_ANNOTATIONS):
        if any(map(_is_xml, entries(folder))):
            return _Part(folder, [*subfolders(base, *_IMAGES), folder, base], base, split)
    return None


def _divided(root: Path, name: str) -> list[_Part]:
    # Such as annotations/train with images/train.
    images = subfolders(root, *(f"{place}/{name}" for place in _IMAGES))
    folders = subfolders(root, *(f"{place}/{name}" for place in _ANNOTATIONS[:-1]))
    return [
        _Part(folder, [*images, folder], root, FOLDERS[name])
        for folder in folders
        if any(map(_is_xml, entries(folder)))
    ]


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")


def _head(file: Path) -> bytes:
    # A pipe would be waited for without end.
    if not file.is_file():
        return b""
    try:
        with file.open("rb") as content:
            # UTF-16 is ASCII with zeros between.
            return content.read(4096).replace(b"\0", b"")
    except OSError:
        return b""


def _read(
    root: Path, part: _Part, unlabelled: Literal["skip", "background", "error"], findings: list[Finding]
) -> list[Record]:
    images = ImageFiles(root, part.images, findings)
    files = {name[:-4]: name for name in file_names(root, part.annotations, ".xml", findings)}
    splits = declared_splits(image_sets(root, part.base, findings), files, findings)
    pairs = paired("voc", root, part.annotations, files, images, _parse, unlabelled, findings)
    return [record._replace(split=splits.get(key, part.split)) for key, record in pairs]


def _parse(content: bytes) -> Labels:
    tree = _tree(content)
    if tree.tag != "annotation":
        raise ValueError(f"expected <annotation>, found <{tree.tag}>")
    objects = (_object(element, f"object {number}") for number, element in enumerate(tree.findall("object"), 1))
    return Labels(objects, ((tree.findtext("filename") or "").strip(),), _size(tree))


def _tree(content: bytes) -> ElementTree.Element:
    text = content
    if content[:2] in (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<"):
        text = content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16")
    # In all other encodings that the parser takes, ASCII is ASCII.
    if b"<!DOCTYPE" in content or (isinstance(text, str) and "<!DOCTYPE" in text):
        raise ValueError("has a document type declaration, which annotations never need")
    try:
        parser = ElementTree.XMLParser()
        parser.feed(text)
        return parser.close()
    except (ElementTree.ParseError, LookupError) as error:
        raise ValueError(error) from error


def _size(tree: ElementTree.Element) -> tuple[float, float] | None:
    size = tree.find("size")
    try:
        return None if size is None else (float(size.findtext("width") or 0), float(size.findtext("height") or 0))
    except ValueError:
        return None


def _object(element: ElementTree.Element, where: str) -> Object | Bad:
    bounds = element.find("bndbox")
    if bounds is None:
        return Bad(where, "it has no <bndbox>")
    side = bounds.findtext
    try:
        x0, y0 = float(side("xmin", "")), float(side("ymin", ""))
        x1, y1 = float(side("xmax", "")), float(side("ymax", ""))
    except ValueError as error:
        return Bad(where, f"its <bndbox> needs numbers for xmin, ymin, xmax, ymax ({str(error)[:100]})")
    name = (element.findtext("name") or "").strip()
    difficult = (element.findtext("difficult") or "").strip().lower() in ("1", "true")
    # Equal corners are a click without a drag in the tools that write VOC, not a box of one pixel.
    return Object(name, (x0 - (x0 < x1), y0 - (y0 < y1), x1, y1), difficult, where)

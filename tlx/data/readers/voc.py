"""Pascal VOC annotation folders: one XML file per image."""

from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from tlx.data.assemble import Box, Object, Record, assemble, unlabelled_records
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, relative, subfolders
from tlx.errors import DataError
from tlx.registry import readers

_ANNOTATIONS = ("Annotations", "Annotations/xmls", "JPEGImages", "images", ".")
_IMAGES = ("JPEGImages", "images")
# In order of precedence: an image that two lists name is not trained on where it should judge.
_LISTS = {"test": "test", "val": "validation", "train": "train", "trainval": "train"}
_FOLDERS = {"train": "train", "valid": "validation", "val": "validation", "validation": "validation", "test": "test"}
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_MAX_BYTES = 16_000_000


@readers.register("voc")
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
    `ImageSets/Main` become the examples' splits, as do the folders `train`, `valid` and `test` where each
    holds a part of the data. Format: the VOC2012 development kit, host.robots.ox.ac.uk/pascal/VOC.

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
    records: list[Record] = []
    for part, split in _parts(root):
        records += _read_part(root, part, split, unlabelled, findings)
    return assemble("voc", records, root, classes, merge, findings)


def _parts(root: Path) -> list[tuple[Path, str]]:
    if _annotations(root):
        return [(root, "")]
    parts = [(folder, split) for name, split in _FOLDERS.items() for folder in subfolders(root, name)]
    parts = [(folder, split) for folder, split in parts if _annotations(folder)]
    if not parts:
        places = ", ".join(_ANNOTATIONS[:-1])
        raise DataError(f"readers.voc: no XML file in {root}, nor in its folders {places} or {', '.join(_FOLDERS)}")
    return parts


def _annotations(root: Path) -> Path | None:
    return next((folder for folder in subfolders(root, *_ANNOTATIONS) if any(map(_is_xml, folder.iterdir()))), None)


def _is_xml(path: Path) -> bool:
    return path.suffix.lower() == ".xml"


def _read_part(
    root: Path, part: Path, split: str, unlabelled: Literal["skip", "background", "error"], findings: list[Finding]
) -> list[Record]:
    folder = _annotations(part)
    images = ImageFiles(root, [*subfolders(part, *_IMAGES), folder, part], findings)
    files = listing(root, folder, ".xml", findings)
    splits = _image_sets(root, part, {file.stem for file in files}, findings)
    records, labelled = [], set()
    for file in files:
        name = relative(file, root)
        try:
            filename, objects = _parse(file)
        except (ElementTree.ParseError, LookupError, ValueError, OSError) as error:
            message = f"{error}; the image is left out: repair the file or remove it"
            findings.append(Finding("broken-annotation", "error", name, "", message))
            labelled.update(images.find(file.stem))
            continue
        image = images.locate([file.stem, filename], name, "", findings)
        if image:
            labelled.add(image)
            records.append(Record(image, name, objects, split=splits.get(file.stem, split)))
    orphans = [image for image in images.images() if image not in labelled]
    return records + unlabelled_records("voc", orphans, root, unlabelled, findings)


def _image_sets(root: Path, part: Path, stems: set[str], findings: list[Finding]) -> dict[str, str]:
    splits: dict[str, str] = {}
    lists = {
        file.stem.lower(): file
        for folder in subfolders(part, "ImageSets/Main")
        for file in listing(root, folder, ".txt", findings)
    }
    for name, split in _LISTS.items():
        if name not in lists:
            continue
        file = relative(lists[name], root)
        listed = {line.strip() for line in lists[name].read_text("utf-8-sig", "replace").splitlines()} - {""}
        taken = {stem: splits.setdefault(stem, split) for stem in sorted(listed)}
        # That trainval lists the validation images again is its purpose.
        twice = [s for s, other in taken.items() if other != split and (name, other) != ("trainval", "validation")]
        if twice:
            message = f"{len(twice)} of its images are in another list too; each is taken as that list says"
            findings.append(Finding("in-two-splits", "warning", file, twice[0], message))
        if unknown := sorted(listed - stems):
            message = f"{len(unknown)} listed images have no annotation"
            findings.append(Finding("no-annotation", "warning", file, unknown[0], message))
    return splits


def _parse(file: Path) -> tuple[str, list[Object]]:
    """Return the <filename> and the objects of one annotation; anything unexpected raises."""
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"the file has more than {_MAX_BYTES:,} bytes")
    parser = ElementTree.XMLParser(target=_NoDoctype())
    parser.feed(file.read_bytes())
    tree = parser.close()
    if tree.tag != "annotation":
        raise ValueError(f"expected <annotation>, found <{tree.tag}>")
    objects = []
    for number, element in enumerate(tree.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        difficult = (element.findtext("difficult") or "").strip().lower() in ("1", "true")
        objects.append(Object(name, _box(element, number), difficult, f"object {number}"))
    return (tree.findtext("filename") or "").strip(), objects


class _NoDoctype(ElementTree.TreeBuilder):
    """Builds the tree in C, and stops before a document type could declare an entity."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("has a document type declaration, which annotations never need")


def _box(element: ElementTree.Element, number: int) -> Box:
    bounds = element.find("bndbox")
    if bounds is None:
        raise ValueError(f"object {number} has no <bndbox>")
    sides = {side.tag: side.text for side in bounds}
    try:
        x0, y0, x1, y1 = (float(sides.get(side) or "") for side in _SIDES)
    except ValueError as error:
        raise ValueError(f"object {number}: <bndbox> needs numbers for {', '.join(_SIDES)} ({error})") from error
    # Equal corners are a click without a drag in the tools that write VOC, not a box of one pixel.
    return (x0 - (x0 < x1), y0 - (y0 < y1), x1, y1)

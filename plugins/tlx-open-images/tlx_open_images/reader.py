"""The tlx reader of Open Images folders."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tlx.data.assemble import Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, relative
from tlx.data.images import image_size
from tlx.data.sniff import Sniff
from tlx.errors import DataError, suggest
from tlx.registry import readers
from tlx_open_images import tables
from tlx_open_images.tables import Row, Table

_LEFT_OUT = {
    "other-class": ("info", "boxes are of classes that are not asked for"),
    "unknown-label": ("warning", "boxes have a label that the class descriptions do not list"),
    "image-not-here": ("info", "boxes are of images that are not here"),
    "depiction": ("info", "boxes are of depictions"),
}


def _sniff(path: Path) -> Sniff:
    try:
        root, boxes = tables.find_boxes(path, [])
        names = tables.class_names(root)
    except (DataError, OSError) as error:
        return Sniff(False, str(error))
    files = ", ".join(relative(table.file, root) for table in boxes)
    return Sniff(True, f"Open Images boxes in {files}, of {len(names)} classes")


@readers.register("open_images", sniff=_sniff)
def open_images(
    path: Path,
    images: Path | None = None,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    depictions: Literal["keep", "ignore", "drop"] = "keep",
    unlabelled: Literal["skip", "background"] = "skip",
) -> Dataset:
    """Open Images: a folder with a CSV of boxes for each split, the classes' names, and images named by their ids.

    Coordinates are fractions of the upright image. A box around a group becomes an ignore region. Boxes of
    other classes, and of images that are not there, are counted and left out. The rows are read one by one,
    so that a file of 14 million takes no memory. Format: storage.googleapis.com/openimages/web/download_v7.html.

    Args:
      path: the folder, or one CSV file of boxes.
      images: the folder with the images, where it is not under `path`.
      classes: the classes to keep, by name and in this order; None keeps all, sorted by name.
      merge: class names to replace, such as {'Man': 'Person'}.
      depictions: what to do with drawings, toys and the like: keep them as objects, make them ignore regions,
        or leave them out.
      unlabelled: what an image without a box of these classes means: leave it out, since only classes that
        a person confirmed are boxed, or train on it as background.

    Raises:
      DataError: the boxes or the classes' names are missing or of another format, a class that is asked
        for does not exist, or no image or box is left.
    """
    findings: list[Finding] = []
    root, boxes = tables.find_boxes(existing(path, "open_images"), findings)
    names = tables.class_names(root)
    kept = _kept(names, classes, merge or {})
    folder = existing(images, "open_images") if images else root
    listed = ImageFiles(folder, [folder], findings, deep=True).images()
    # Tools that sort images into folders by class have several copies of one.
    pictures = {picture.stem: picture for picture in sorted(listed, reverse=True)}
    records: list[Record] = []
    for table in boxes:
        records += _records(table, pictures, names, kept, depictions, root, findings)
    records += _without_boxes(set(pictures.values()) - {record.image for record in records}, unlabelled, root, findings)
    return assemble("open_images", records, root, classes, merge, findings, declared=set(names.values()))


def _kept(names: dict[str, str], classes: tuple[str, ...] | None, merge: dict[str, str]) -> set[str]:
    """Return the labels of the classes to keep."""
    if classes is None:
        return set(names)
    after = {label: merge.get(name, name) for label, name in names.items()}
    for name in classes:
        if name not in after.values():
            raise DataError(f"readers.open_images.classes: no class is named {name!r}{suggest(name, after.values())}")
    return {label for label, name in after.items() if name in classes}


def _records(
    table: Table,
    pictures: dict[str, Path],
    names: dict[str, str],
    kept: set[str],
    depictions: Literal["keep", "ignore", "drop"],
    root: Path,
    findings: list[Finding],
) -> list[Record]:
    file = relative(table.file, root)
    left_out = _Tally(file)
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in tables.rows(table, pictures.keys(), file, findings, left_out.count):
        if row.label not in kept:
            left_out.count("other-class" if row.label in names else "unknown-label", row.line, row.label)
        elif row.depiction and depictions == "drop":
            left_out.count("depiction", row.line, row.image)
        else:
            rows[row.image].append(row)
    findings += left_out.findings()
    ignored = depictions == "ignore"
    return [_record(pictures[key], found, names, ignored, file, table.split) for key, found in rows.items()]


def _record(
    picture: Path, rows: list[Row], names: dict[str, str], depictions_ignored: bool, file: str, split: str
) -> Record:
    record = Record(picture, file, (), f"image {picture.stem}", split=split)
    try:
        width, height = size = image_size(picture)
    except DataError:
        return record  # assemble meets the same error and reports it.
    objects = []
    for row in rows:
        x0, y0, x1, y1 = row.box
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        ignore = row.group or (row.depiction and depictions_ignored)
        objects.append(Object(names[row.label], box, ignore, f"line {row.line}"))
    return record._replace(objects=objects, size=size)


def _without_boxes(
    pictures: Iterable[Path], unlabelled: Literal["skip", "background"], root: Path, findings: list[Finding]
) -> list[Record]:
    pictures = sorted(pictures)
    if not pictures:
        return []
    taken = "left out, since they may show some" if unlabelled == "skip" else "taken as background"
    message = f"{len(pictures)} images (such as this one) have no box of these classes; {taken}"
    findings.append(Finding("unlabelled-image", "info", relative(pictures[0], root), "", message))
    if unlabelled == "skip":
        return []
    return [Record(image, name := relative(image, root), (), split=tables.split_of(name)) for image in pictures]


class _Tally:
    """Counts what is left out of one file, so that 14 million rows leave a finding for each kind and not for each."""

    def __init__(self, file: str):
        self.file = file
        self.counts: dict[str, int] = defaultdict(int)
        self.first: dict[str, tuple[int, str]] = {}

    def count(self, kind: str, line: int, example: str) -> None:
        self.counts[kind] += 1
        if kind not in self.first:
            self.first[kind] = (line, example)

    def findings(self) -> list[Finding]:
        found = []
        for kind, (line, example) in self.first.items():
            severity, what = _LEFT_OUT[kind]
            message = f"{self.counts[kind]:,} {what} (the first is of {example[:80]!r}); left out"
            found.append(Finding(kind, severity, self.file, f"line {line}", message))
        return found

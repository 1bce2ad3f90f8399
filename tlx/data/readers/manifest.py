"""Manifests: tables of images by URL or path, with their classes or their boxes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from tlx.data.assemble import Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import existing, listing, relative, subfolders
from tlx.data.formats import manifest as manifests
from tlx.data.formats.local import LocalImages
from tlx.data.formats.manifest import Row
from tlx.data.formats.splitnames import named_split
from tlx.data.images import image_size
from tlx.data.objects import Box
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

_PARTS = ("train", "valid", "val", "validation", "test")
_SUFFIXES = (".csv", ".tsv", ".txt")
# Whoever has these has another format, beside which the same labels often lie as a table too.
_OTHERS = (".xml", ".json", ".ndjson", ".record", ".tfrecord")
_OTHER_FOLDERS = ("annotations", "label_2", "labels")
# In pixels no box lies within the first two of its image in every row.
_LARGEST_SHARE = 2.0
_NAMED = 100
_MOST_TABLES = 20


class _Part(NamedTuple):
    """One table of the data: its file's `name` relative to the root, and the split that it is, or ""."""

    file: Path
    name: str
    split: str


class _Labelled(NamedTuple):
    """One row, and where it stands."""

    row: Row
    part: _Part
    form: Literal["corners", "edge", "centre"]

    @property
    def where(self) -> str:
        return f"line {self.row.line}"


def _sniff(path: Path) -> Sniff:
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            return Sniff(False, f"a file whose name does not end in {', '.join(_SUFFIXES)}")
        return _sniff_tables([path])
    try:
        parts = _parts(path) if path.is_dir() else []
        for folder in {part.file.parent for part in parts}:
            names = sorted(entry.name.lower() for entry in folder.iterdir())
            if other := next((name for name in names if name.endswith(_OTHERS) or name in _OTHER_FOLDERS), None):
                return Sniff(False, f"{parts[0].name} stands beside {other}; name the file to read it as a manifest")
    except (DataError, OSError) as error:
        return Sniff(False, str(error).removeprefix("readers.manifest: "))
    return _sniff_tables(part.file for part in parts)


def _sniff_tables(files: Iterable[Path]) -> Sniff:
    layouts = {}
    for file in files:
        try:
            layouts[file.name] = layout = manifests.head(file)
        except (DataError, OSError) as error:
            return Sniff(False, str(error))
        if layout.label is None:
            return Sniff(False, f"{file.name} names images but not their classes")
    if not layouts:
        return Sniff(False, "no CSV file that names images")
    what = "boxes" if any(layout.box for layout in layouts.values()) else "classes"
    return Sniff(True, f"{', '.join(layouts)}: rows that name images and their {what}")


def _names_images(file: Path) -> bool:
    try:
        manifests.head(file)
    except (DataError, OSError):
        return False
    return True


@readers.register("manifest", sniff=_sniff)
def manifest(
    path: Path,
    images: Path | None = None,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    label: str = "",
    coordinates: Literal["auto", "pixels", "normalized"] = "auto",
    columns: dict[str, str] | None = None,
) -> Dataset:
    """A table of image URLs or paths with classes or boxes, as image downloaders and labelling tools write it.

    Columns are known by the usual names: url, image_url, link, filename, path, image; label, class,
    category, tag; xmin, ymin, xmax, ymax or x, y, width, height or x_center, y_center, width, height, or
    one column bbox with [x, y, width, height]; split; image_width, image_height. Without a header, by what
    they hold: image,label; keras-retinanet's path,x1,y1,x2,y2,class; Make Sense's
    label,x,y,width,height,image,width,height. Boxes are taken as they stand, as canonical pixels; with
    `coordinates` = 'auto' as parts of the image where no number in the whole file passes 2. A row without
    box or class is an image without objects. Without box columns the data is for classification.

    Nothing is downloaded: `tlx fetch` does that. An image is found by the index that it wrote, by the path
    relative to the table, or by the last segment of its URL or path, under any image extension.

    Args:
      path: the table, or the folder that has exactly one, or one for each split.
      images: the folder with the images; None means the one that `tlx fetch` fills, `images`, or the table's own.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.
      label: the class of every row, for a table without a column of classes.
      coordinates: what boxes are measured in.
      columns: the table's own column names by the usual ones, such as {'Foto': 'url', 'Rasse': 'label'}.

    Raises:
      DataError: no column names images or classes, no image or box is found, or a class that is asked for
        does not occur.
    """
    path = existing(path, "manifest")
    root = path if path.is_dir() else path.parent
    findings: list[Finding] = []
    parts = _parts(path) if path.is_dir() else [_Part(path, path.name, "")]
    if not parts:
        raise DataError(f"readers.manifest: no CSV file in {root}, nor in its folders {', '.join(_PARTS)}")
    rows = [row for part in parts for row in _read(part, label, columns, findings)]
    located = _located(rows, parts, root, images, findings)
    if any(labelled.row.box for labelled in rows):
        shares = coordinates == "normalized" or (coordinates == "auto" and _are_shares(rows, findings))
        records = [record for group in located for record in _boxes(*group, label, shares, findings)]
        return assemble("manifest", records, root, classes, merge, findings)
    records = [record for group in located for record in _whole(*group, label, findings)]
    return assemble("manifest", records, root, classes, merge, findings).of_whole_images()


def _parts(root: Path) -> list[_Part]:
    """Return a folder's tables that name images; raises DataError where they are several and not one a split."""
    for folders in ([root], subfolders(root, *_PARTS)):
        files = [
            file for folder in folders for suffix in (".csv", ".tsv") for file in listing(root, folder, suffix, [])
        ]
        if len(files) > _MOST_TABLES:
            raise DataError(f"readers.manifest: {root} has {len(files)} tables, such as {files[0].name}; name the file")
        names = [relative(file, root) for file in files if _names_images(file)]
        splits = [named_split(name.rpartition(".")[0]) for name in names]
        if len(names) > 1 and None in splits:
            several = ", ".join(names)
            raise DataError(f"readers.manifest: {root} has several tables, {several}; name the one that is meant")
        if names:
            # One table alone is all of the data, whatever it is called.
            named = zip(names, splits if len(names) > 1 else [""], strict=True)
            return [_Part(root / name, name, split or "") for name, split in named]
    return []


def _read(part: _Part, label: str, columns: dict[str, str] | None, findings: list[Finding]) -> Iterable[_Labelled]:
    rows, layout = manifests.read(part.file, part.name, findings, columns)
    if layout.label is None and not label:
        raise DataError(
            f"readers.manifest: {part.file} has no column of classes; add one called label, or where all of its "
            "images show one class, set readers.manifest.label to it (`tlx fetch` needs none)"
        )
    if structured := next((row for row in rows if row.label.startswith(("{", "["))), None):
        raise DataError(
            f"readers.manifest: {part.file} (line {structured.line}): the class is JSON, {structured.label[:40]!r}; "
            "export the labels as JSON and use that format's reader, or as one row a box"
        )
    return (_Labelled(row, part, layout.form) for row in rows)


def _located(
    rows: list[_Labelled], parts: list[_Part], root: Path, images: Path | None, findings: list[Finding]
) -> list[tuple[Path, list[_Labelled]]]:
    """Return the rows of each image that is there; what is missing is a finding, or an error where all are."""
    folder = images and existing(images, "manifest")
    local = {part: LocalImages(part.file, root, folder, findings) for part in parts}
    groups: dict[tuple[_Part, tuple[str, ...]], list[_Labelled]] = {}
    for labelled in rows:
        groups.setdefault((labelled.part, labelled.row.names), []).append(labelled)
    by_image: dict[Path, list[_Labelled]] = {}
    missing = []
    for (part, names), group in groups.items():
        image = local[part].find(names, part.name, group[0].where)
        if isinstance(image, Path):
            by_image.setdefault(image, []).extend(group)
        elif image:
            findings.append(image)
        else:
            missing.append(group[0])
    if missing and not by_image:
        raise DataError(
            f"readers.manifest: none of the {len(missing)} images of {root} is there, such as "
            f"{missing[0].row.names[0]!r}; {_advice(missing)}"
        )
    for labelled in missing[:_NAMED]:
        message = f"no image {labelled.row.names[0]!r}; left out: {_advice([labelled])}"
        findings.append(Finding("missing-image", "warning", labelled.part.name, labelled.where, message))
    if more := missing[_NAMED:]:
        message = f"{len(more)} more images from here on are missing; left out: {_advice(more)}"
        findings.append(Finding("missing-image", "warning", more[0].part.name, more[0].where, message))
    return list(by_image.items())


def _advice(missing: list[_Labelled]) -> str:
    if any(labelled.row.url for labelled in missing):
        return f"`tlx fetch {missing[0].part.file}` downloads what its rows name"
    return "put it beside the table, or name its folder by readers.manifest.images"


def _are_shares(rows: list[_Labelled], findings: list[Finding]) -> bool:
    boxed = [labelled for labelled in rows if labelled.row.box]
    if not all(abs(value) <= _LARGEST_SHARE for labelled in boxed for value in labelled.row.box):
        return False
    message = "no box in the whole table passes 2, so all are taken as parts of the image's width and height"
    findings.append(Finding("normalized-boxes", "info", boxed[0].part.name, boxed[0].where, message))
    return True


def _boxes(image: Path, group: list[_Labelled], label: str, shares: bool, findings: list[Finding]) -> Iterable[Record]:
    objects = []
    for row, part, form in group:
        where = f"line {row.line}"
        if row.box:
            objects.append(Object(label or row.label, _corners(row.box, form), where=where))
        elif row.label:
            message = f"has the class {row.label!r} but no box; left out"
            findings.append(Finding("no-box", "warning", part.name, where, message))
    if objects or not any(labelled.row.label for labelled in group):
        yield _record(image, group, objects, shares, findings)


def _whole(image: Path, group: list[_Labelled], label: str, findings: list[Finding]) -> Iterable[Record]:
    named = {label or labelled.row.label: labelled for labelled in reversed(group)}
    first = group[0]
    if len(named) > 1:
        message = f"{first.row.names[0]!r} has several classes ({', '.join(sorted(named))[:200]}); left out: keep one"
        findings.append(Finding("several-classes", "error", first.part.name, first.where, message))
    elif "" in named:
        message = f"{first.row.names[0]!r} has no class; left out"
        findings.append(Finding("unlabelled-row", "warning", first.part.name, first.where, message))
    else:
        yield _record(image, group[:1], [Object(*named, (0.0, 0.0, 1.0, 1.0), where=first.where)], True, findings)


def _record(
    image: Path, group: list[_Labelled], objects: list[Object], shares: bool, findings: list[Finding]
) -> Record:
    first = group[0]
    splits = {labelled.row.split or labelled.part.split: labelled for labelled in reversed(group)}
    if len(splits) > 1:
        message = f"{first.row.names[0]!r} is in several splits ({', '.join(sorted(splits))}); taken as the first says"
        findings.append(Finding("in-two-splits", "warning", first.part.name, first.where, message))
    split = first.row.split or first.part.split
    record = Record(image, first.part.name, objects, first.where, split=split, annotated=first.row.size)
    return _in_pixels(record) if shares else record


def _in_pixels(record: Record) -> Record:
    try:
        width, height = size = image_size(record.image)
    except DataError:
        return record  # assemble meets the same error and reports it.
    scaled = [
        obj._replace(box=(obj.box[0] * width, obj.box[1] * height, obj.box[2] * width, obj.box[3] * height))
        for obj in record.objects
    ]
    return record._replace(objects=scaled, size=size)


def _corners(box: Box, form: Literal["corners", "edge", "centre"]) -> Box:
    if form == "corners":
        return box
    x, y, width, height = box
    if form == "centre":
        x, y = x - width / 2, y - height / 2
    return (x, y, x + width, y + height)

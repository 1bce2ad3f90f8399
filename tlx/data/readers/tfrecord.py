"""TFRecord files of the TF Object Detection API."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlx.data.assemble import Object, Record, assemble
from tlx.data.container import inside
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import entries, existing, listing, relative, subfolders
from tlx.data.formats import labelmap, tfrecords
from tlx.data.formats.labelmap import LabelMap
from tlx.data.formats.notes import Notes
from tlx.data.formats.odapi import Labels, labels
from tlx.data.formats.splitnames import named_split
from tlx.data.formats.tfexample import decode
from tlx.data.images import image_size
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

_NAME = re.compile(r"\.(tf_?records?|records?|tfrec)([-_.]|$)|-\d{5,}-of-\d{5,}", re.IGNORECASE)
_SHARD = re.compile(r"(.*)-(\d{5,6})-of-(\d{5,6})(.*)", re.DOTALL)
# No normalized coordinate of a box that touches its image comes near it.
_PLAINLY_PIXELS = 2.0


class _Entry(NamedTuple):
    """One record's labels, and where they stand."""

    image: Path
    file: str
    where: str
    split: str
    labels: Labels
    map: LabelMap


def _sniff(path: Path) -> Sniff:
    try:
        files = [path] if path.is_file() else _record_files(path, [])
        if not files:
            return Sniff(False, "no file that is named like train.record or data.tfrecord-00000-of-00010")
        if not tfrecords.starts_well(files[0]):
            return Sniff(False, f"{files[0].name} does not start as a TFRecord does")
    except (OSError, DataError) as error:
        return Sniff(False, f"{path.name}: {error}")
    return Sniff(True, f"{files[0].name} starts as a TFRecord does")


@readers.register("tfrecord", sniff=_sniff)
def tfrecord(
    path: Path,
    label_map: Path | None = None,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
) -> Dataset:
    """TFRecord: the TF Object Detection API's examples, with their label map; images are read in place.

    A folder's files are those named like `train.record`, `val.tfrecord` or `train-00000-of-00010`, in it or in
    its folders `train`, `valid` and `test`; their names tell the splits. A class is the record's text, or its
    number, as the label map shows it: by the display_name. Objects marked difficult, is_crowd or group_of
    become ignore regions; masks are left out. Records that have no objects but an image's class, as TF-Slim
    writes them, make a dataset for classification. Format: object_detection/g3doc/using_your_own_dataset.md
    of github.com/tensorflow/models.

    Args:
      path: a file, a folder, or a pattern of files such as `train.record-?????-of-00010`.
      label_map: the label map, where it is not the .pbtxt beside the records or in the folder.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.

    Raises:
      DataError: there are no records, the label map is broken, no image or no box is found, or a class that
        is asked for does not occur.
    """
    findings: list[Finding] = []
    notes = Notes()
    path = Path(path).expanduser()
    root, files = _files(path, findings)
    given = existing(label_map, "tfrecord") if label_map else None
    maps = {folder: _map_for(folder, root, given, notes) for folder in {file.parent for file in files}}
    alone = len(files) == 1 and path != root
    entries = [
        entry
        for file in files
        for entry in _read(file, root, "" if alone else _split(file, root), maps[file.parent], findings)
    ]
    declared = {name for known in maps.values() for name in known.by_id.values()}
    whole = bool(entries) and not any(entry.labels.texts for entry in entries) and any(e.labels.whole for e in entries)
    records = list(_whole_images(entries, notes) if whole else _objects(entries, notes))
    findings += notes.findings()
    dataset = assemble("tfrecord", records, root, classes, merge, findings, declared)
    return dataset.of_whole_images() if whole else dataset


def _files(path: Path, findings: list[Finding]) -> tuple[Path, list[Path]]:
    pattern = any(letter in path.name for letter in "*?")
    files = sorted(path.parent.glob(path.name)) if pattern and path.parent.is_dir() else []
    if files:
        return path.parent, files
    path = existing(path, "tfrecord")
    if path.is_file():
        return path.parent, [path]
    files = _record_files(path, findings)
    if not files:
        advice = "name the file itself where it is called otherwise"
        raise DataError(f"readers.tfrecord: {path} holds no file like train.record or data.tfrecord; {advice}")
    _report_missing_shards(files, path, findings)
    return path, files


def _record_files(root: Path, findings: list[Finding]) -> list[Path]:
    parts = subfolders(root, *(name for name in sorted(entries(root)) if named_split(name) is not None))
    return [
        file for folder in (root, *parts) for file in listing(root, folder, None, findings) if _NAME.search(file.name)
    ]


def _split(file: Path, root: Path) -> str:
    own = named_split(file.name)
    return (named_split(file.parent.name) if own is None and file.parent != root else own) or ""


def _report_missing_shards(files: list[Path], root: Path, findings: list[Finding]) -> None:
    numbers: dict[tuple[str, int, str], set[int]] = defaultdict(set)
    for file in files:
        if found := _SHARD.fullmatch(relative(file, root)):
            numbers[found[1], int(found[3]), found[4]].add(int(found[2]))
    for (name, total, rest), there in numbers.items():
        missing = [number for number in range(total) if number not in there]
        if missing:
            first = f"{name}-{missing[0]:05d}-of-{total:05d}{rest}"
            message = f"{len(missing)} of {total} shards are not there, this one first; add them or use what there is"
            findings.append(Finding("missing-shard", "warning", first, "", message))


def _map_for(folder: Path, root: Path, given: Path | None, notes: Notes) -> LabelMap:
    file = given
    for place in dict.fromkeys((folder, root)) if not given else ():
        there = listing(root, place, ".pbtxt", [])
        named = [one for one in there if "label" in one.name.lower()] or there
        if len(named) == 1:
            file = named[0]
            break
        if named:
            names = ", ".join(one.name for one in named[:10])
            message = f"several label maps ({names}); none is used: name one in readers.tfrecord.label_map"
            notes.add("several-label-maps", "warning", relative(place, root), "", message)
    if file is None:
        return LabelMap({}, {})
    found = labelmap.read(file)
    for problem in found.problems:
        notes.add("label-map", "warning", relative(file, root), "", problem)
    return found


def _read(file: Path, root: Path, split: str, known: LabelMap, findings: list[Finding]) -> Iterator[_Entry]:
    name = relative(file, root)
    try:
        with file.open("rb") as opened:
            for raw in tfrecords.scan(opened):
                try:
                    if raw.problem:
                        raise ValueError(raw.problem)
                    said = labels(decode(raw.data))
                except ValueError as error:
                    findings.append(Finding("broken-record", "error", name, raw.where, f"{error}; left out"))
                else:
                    start = raw.start + raw.data.find(said.image)
                    image = inside(file, start, len(said.image), said.name)
                    yield _Entry(image, name, raw.where, split, said._replace(image=b""), known)
    except OSError as error:
        message = f"cannot be read ({error.strerror}); change its permissions or restore it"
        findings.append(Finding("unreadable-file", "error", name, "", message))


def _objects(entries: list[_Entry], notes: Notes) -> Iterator[Record]:
    pixels = _in_pixels(entries)
    for entry in entries:
        said = entry.labels
        if pixels and len(said.boxes):
            message = (
                "a record with boxes in pixels where the format has parts of the width and height; taken as pixels"
            )
            notes.add("pixel-coordinates", "warning", entry.file, entry.where, message)
        if said.masks:
            message = "a record with masks, which are left out; its boxes stand"
            notes.add("masks", "info", entry.file, entry.where, message)
        size = _size(entry.image)
        boxes = said.boxes * (1 if pixels or not size else (*size, *size))
        # Without a size, the image is unreadable, which assemble reports.
        objects = [
            Object(_class(entry, text, number, notes), tuple(box), bool(ignore), f"object {i}")
            for i, (text, number, box, ignore) in enumerate(
                zip(said.texts, said.ids, boxes.tolist(), said.ignore, strict=True), 1
            )
        ]
        yield Record(entry.image, entry.file, objects, entry.where, "", entry.split, size, said.size)


def _whole_images(entries: list[_Entry], notes: Notes) -> Iterator[Record]:
    for entry in entries:
        if not entry.labels.whole:
            notes.add("no-class", "warning", entry.file, entry.where, "an image without a class; left out")
            continue
        width, height = size = _size(entry.image) or (1, 1)
        named = Object(_class(entry, *entry.labels.whole, notes), (0, 0, width, height))
        size = size if size != (1, 1) else None
        yield Record(entry.image, entry.file, [named], entry.where, "", entry.split, size, entry.labels.size)


def _in_pixels(entries: list[_Entry]) -> bool:
    boxes = np.concatenate([entry.labels.boxes for entry in entries] or [np.zeros((0, 4))])
    return len(boxes) > 0 and bool((boxes.max(axis=1) > _PLAINLY_PIXELS).mean() > 0.5)


def _size(image: Path) -> tuple[int, int] | None:
    try:
        return image_size(image)
    except DataError:
        return None


def _class(entry: _Entry, text: str, number: int, notes: Notes) -> str:
    by_number = entry.map.by_id.get(number, "")
    name = entry.map.by_name.get(text, text) if text else by_number
    if text and by_number and name != by_number:
        message = f"a text and a label that disagree, {name!r} and {number} for {by_number!r}; the text is taken"
        notes.add("label-disagrees", "warning", entry.file, entry.where, message)
    if not name and number:
        message = "a label that no label map names, called by its number; name the map in readers.tfrecord.label_map"
        notes.add("unnamed-label", "warning", entry.file, entry.where, message)
        return str(number)
    return name

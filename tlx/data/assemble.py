"""What all readers share: plain records in, one checked Dataset out."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.files import relative
from tlx.data.images import image_header, named_format
from tlx.data.names import near_misses
from tlx.data.objects import Columns, Object, columns
from tlx.data.oddities import clipped_counted, doubt, oddity
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.errors import DataError, suggest

# The label of an object whose class is not wanted.
_LEFT_OUT = ANY_CLASS - 1


class Record(NamedTuple):
    """One image's labels as a reader found them: in `file` (relative to the root), at `record` inside it.

    `size` is the upright image's (width, height) where the reader had to look already, and `annotated` the
    one that the annotation tells, which is never trusted, only compared.
    """

    image: Path
    file: str
    objects: Sequence[Object]
    record: str = ""
    group: str = ""
    split: str = ""
    size: tuple[int, int] | None = None
    annotated: tuple[float, float] | None = None


def assemble(
    reader: str,
    records: Iterable[Record],
    root: Path,
    classes: Sequence[str] | None,
    merge: Mapping[str, str] | None,
    findings: list[Finding],
    declared: Collection[str] = (),
    clipping: Literal["report", "expected"] = "report",
    objects: Columns | None = None,
) -> Dataset:
    """Return the Dataset that `records` amount to, with every oddity as a located Finding.

    Args:
      reader: the reader's registered name, for messages.
      records: one per image.
      root: the dataset's folder; findings name files relative to it.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.
      findings: what the reader found so far; more is added.
      declared: class names that the format lists, whether any object has them or not.
      clipping: whether a box that passes the image's edge by more than a pixel is worth a warning each
        ("report") or is the format's habit and worth one note ("expected").
      objects: the objects of all records at once, instead of those in the records.

    Raises:
      DataError: a class in `classes` does not occur, or no image or no box is left.
    """
    records = list(records)
    objects = columns([record.objects for record in records]) if objects is None else objects
    records, sizes, objects = _settled(records, objects, root, findings)
    _refuse_none(len(records), "image with labels", reader, root, findings)
    objects = _renamed(reader, objects, merge or {}, declared, findings)
    counts = Counter(objects.names.tolist())
    names = _choose(reader, counts, classes, {(merge or {}).get(name, name) for name in declared})
    _report_names(reader, records, objects, counts, names, findings)
    ids = dict.fromkeys(counts, _LEFT_OUT) | {name: i for i, name in enumerate(names)} | {None: ANY_CLASS}
    before = len(findings)
    examples = tuple(_examples(records, sizes, objects, ids, findings))
    if clipping == "expected":
        findings[before:] = clipped_counted(findings[before:])
    else:
        doubt(len(objects.names), findings[before:], findings)
    boxes = sum(len(example.targets.counted) for example in examples)
    _refuse_none(boxes, "box to learn from", reader, root, findings)
    return Dataset(root.resolve().name, names, examples, tuple(findings))


def unlabelled_records(
    reader: str,
    images: Sequence[Path],
    root: Path,
    unlabelled: Literal["skip", "background", "error"],
    findings: list[Finding],
) -> list[Record]:
    """Return the records of images without an annotation file: none, or empty ones where they are background.

    Raises:
      DataError: there are such images and `unlabelled` is "error".
    """
    if not images:
        return []
    first = relative(images[0], root)
    message = f"{len(images)} images have no annotation file (such as this one)"
    if unlabelled == "error":
        raise DataError(
            f"readers.{reader}: {first}: {message}; label them, or set unlabelled to 'skip' or 'background'"
        )
    taken, severity = ("left out", "warning") if unlabelled == "skip" else ("taken as background", "info")
    findings.append(Finding("unlabelled-image", severity, first, "", f"{message}; {taken}"))
    return [Record(image, relative(image, root), ()) for image in images] if unlabelled == "background" else []


def _settled(
    records: list[Record], objects: Columns, root: Path, findings: list[Finding]
) -> tuple[list[Record], list[tuple[int, int]], Columns]:
    """Return one record for each readable image, the images' (width, height), and the objects in that order."""
    records, firsts = _one_per_image(records, findings)
    sizes = [record.size or _looked_up(record, root, findings) for record in records]
    readable = np.array([size is not None for size in sizes], np.bool_)
    places = np.where(readable, np.cumsum(readable) - 1, -1)
    records, sizes = list(compress(records, readable)), list(filter(None, sizes))
    for record, size in zip(records, sizes, strict=True):
        if record.annotated and record.annotated != size:
            _compare_sizes(record, size, findings)
    return records, sizes, objects.moved(places[firsts])


def _one_per_image(records: list[Record], findings: list[Finding]) -> tuple[list[Record], np.ndarray]:
    """Return the first record of each image, and of each record the position of its image's first."""
    positions: dict[Path, int] = {}
    kept: list[Record] = []
    firsts = np.empty(len(records), np.int64)
    for number, record in enumerate(records):
        firsts[number] = first = positions.setdefault(record.image, len(kept))
        if first == len(kept):
            kept.append(record)
        else:
            place = _place(kept[first])
            message = f"labels {record.image.name} once more, after {place}; their objects are put together"
            findings.append(Finding("image-twice", "warning", record.file, record.record, message))
    return kept, firsts


def _looked_up(record: Record, root: Path, findings: list[Finding]) -> tuple[int, int] | None:
    try:
        width, height, true = image_header(record.image)
    except DataError as error:
        findings.append(Finding("unreadable-image", "error", relative(record.image, root), "", str(error)))
        return None
    named = named_format(record.image)
    if named and named != true and (named, true) != ("JPEG", "MPO"):
        message = f"is named like {named} but holds {true}; it is read as what it is: rename it for other programs"
        findings.append(Finding("image-format", "info", relative(record.image, root), "", message))
    return width, height


def _compare_sizes(record: Record, size: tuple[int, int], findings: list[Finding]) -> None:
    # Tools that never opened the image write 0 x 0, which claims nothing.
    if any(record.annotated):
        said, true = ("{:g} x {:g}".format(*one) for one in (record.annotated, size))
        turned = "; was it turned after it was labelled?" if record.annotated == size[::-1] else ""
        message = f"the annotation says {said} px where the upright image has {true}{turned}; boxes are taken as pixels"
        findings.append(Finding("annotated-size", "warning", record.file, record.record, message))


def _renamed(
    reader: str, objects: Columns, merge: Mapping[str, str], declared: Collection[str], findings: list[Finding]
) -> Columns:
    if not merge:
        return objects
    names = objects.names.tolist()
    known = {name for name in names if name} | set(declared)
    for name in merge:
        if name not in known:
            # No error: an experiment may be used on other data of its format, where nothing is misspelt.
            message = f"readers.{reader}.merge has no effect: {_no_such_class(name, known)}"
            findings.append(Finding("unused-merge", "warning", "", "", message))
    return objects._replace(names=np.array([merge.get(name, name) for name in names], np.object_))


def _choose(
    reader: str, counts: Mapping[str | None, int], classes: Sequence[str] | None, declared: Collection[str]
) -> tuple[str, ...]:
    if classes is None:
        return tuple(sorted(name for name in counts if name))
    known = {name for name in counts if name} | set(declared)
    for name in classes:
        if name not in known:
            raise DataError(f"readers.{reader}.classes: {_no_such_class(name, known)}")
    if len(set(classes)) < len(classes):
        raise DataError(f"readers.{reader}.classes: {tuple(classes)} names a class twice")
    return tuple(classes)


def _no_such_class(name: str, known: Collection[str]) -> str:
    return f"the data has no class {name!r}{suggest(name, known)} (it has {', '.join(sorted(known)[:100])})"


def _report_names(
    reader: str,
    records: list[Record],
    objects: Columns,
    counts: Counter,
    names: tuple[str, ...],
    findings: list[Finding],
) -> None:
    last = len(objects.names) - 1
    first = {name: last - i for i, name in enumerate(reversed(objects.names.tolist()))}
    for name in sorted(name for name in counts if name is not None and name not in names):
        if name:
            code, severity, why = "other-class", "info", f"{name!r}, which is not in readers.{reader}.classes"
        else:
            code, severity, why = "unnamed-object", "warning", "an object without a class name"
        message = f"{counts[name]} x {why}; left out (first seen here)"
        findings.append(_at(records, objects, first[name], code, severity, message))
    for rare, common in near_misses({name: counts[name] for name in names if name in counts}):
        message = (
            f"{counts[rare]} x {rare!r} (first seen here) looks like {common!r} ({counts[common]} x); "
            f"if they are one class: readers.{reader}.merge = {{{rare!r}: {common!r}}}"
        )
        findings.append(_at(records, objects, first[rare], "near-miss-class", "warning", message))


def _examples(
    records: list[Record],
    sizes: list[tuple[int, int]],
    objects: Columns,
    ids: Mapping[str | None, int],
    findings: list[Finding],
) -> Iterator[Example]:
    labels = np.array([ids[name] for name in objects.names.tolist()], np.int32)
    objects, labels = objects.take(labels != _LEFT_OUT), labels[labels != _LEFT_OUT]
    kept = _distinct(records, objects, labels, findings)
    objects, labels = objects.take(kept), labels[kept]
    raw = objects.boxes
    clipped = np.clip(raw, 0, np.array(sizes, np.float64)[objects.owners][:, [0, 1, 0, 1]])
    boxes = clipped.astype(np.float32)
    kept = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & np.isfinite(raw).all(axis=1)
    moved = (np.abs(raw - clipped) > 1).any(axis=1)
    for i in np.flatnonzero(moved | ~kept).tolist():
        code, message = oddity(raw[i].tolist(), sizes[objects.owners[i]], bool(kept[i]))
        findings.append(_at(records, objects, i, code, "warning", message))
    had = np.bincount(objects.owners, minlength=len(records)).tolist()
    boxes, labels, ignore = boxes[kept], labels[kept], objects.ignore[kept]
    stops = np.cumsum(np.bincount(objects.owners[kept], minlength=len(records))).tolist()
    for record, size, own, (start, stop) in zip(records, sizes, had, pairwise([0, *stops]), strict=True):
        if own and start == stop:
            message = f"none of its {own} boxes is sound; the image is left out, since it would count as background"
            findings.append(Finding("no-sound-box", "warning", record.file, record.record, message))
            continue
        truth = Boxes(boxes[start:stop], labels[start:stop], ignore[start:stop])
        yield Example(record.image, *size, truth, _place(record), record.group, record.split)


def _distinct(records: list[Record], objects: Columns, labels: np.ndarray, findings: list[Finding]) -> np.ndarray:
    """Return a mask of the objects without those that an earlier one of their image equals."""
    kept = np.ones(len(labels), np.bool_)
    keys = np.column_stack([objects.owners, objects.boxes[:, 0]])
    order = np.lexsort(keys.T[::-1])
    alike = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1))
    first: dict[tuple, int] = {}
    for i in np.union1d(order[alike], order[alike + 1]).tolist():
        earlier = first.setdefault((objects.owners[i], labels[i], *objects.boxes[i].tolist()), i)
        if earlier != i:
            kept[i] = False
            where = objects.wheres[earlier]
            message = f"the same {objects.names[i] or 'ignore region'} box as {where}; left out"
            findings.append(_at(records, objects, i, "duplicate-box", "warning", message))
    return kept


def _at(
    records: list[Record], objects: Columns, i: int, code: str, severity: Literal["warning", "info"], message: str
) -> Finding:
    record, where = records[objects.owners[i]], objects.wheres[i]
    return Finding(code, severity, record.file, ", ".join(filter(None, (record.record, where))), message)


def _place(record: Record) -> str:
    return f"{record.file} ({record.record})" if record.record else record.file


def _refuse_none(count: int, what: str, reader: str, root: Path, findings: list[Finding]) -> None:
    if count:
        return
    codes = ", ".join(f"{n} x {code}" for code, n in Counter(finding.code for finding in findings).most_common())
    detail = f": {codes}; first of all {findings[0]}" if findings else ""
    raise DataError(f"readers.{reader}: no {what} is left in {root}{detail}", findings)

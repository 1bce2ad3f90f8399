"""What all readers share: plain records in, one checked Dataset out."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tlx.data.dataset import ANY_CLASS, Dataset, Example, Finding
from tlx.data.files import relative
from tlx.data.images import image_header, named_format
from tlx.data.names import near_misses
from tlx.errors import DataError, suggest

Box = tuple[float, float, float, float]


class Object(NamedTuple):
    """One labelled object: `box` in canonical pixels but unchecked, `name` None for an ignore region of no class."""

    name: str | None
    box: Box
    ignore: bool = False
    where: str = ""


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

    Raises:
      DataError: a class in `classes` does not occur, or no image or no box is left.
    """
    records = _with_sizes(_one_per_image(records, findings), root, findings)
    _refuse_none(len(records), "image with labels", reader, root, findings)
    records = _renamed(reader, records, merge or {}, declared, findings)
    counts = Counter(obj.name for record in records for obj in record.objects)
    names = _choose(reader, counts, classes, {(merge or {}).get(name, name) for name in declared})
    _report_names(reader, records, counts, names, findings)
    ids = {name: i for i, name in enumerate(names)} | {None: ANY_CLASS}
    before = len(findings)
    examples = tuple(_examples(records, ids, findings))
    if clipping == "expected":
        findings[before:] = _clipped_counted(findings[before:])
    boxes = sum(int((~example.ignore).sum()) for example in examples)
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


def _one_per_image(records: Iterable[Record], findings: list[Finding]) -> list[Record]:
    by_image: dict[Path, Record] = {}
    for record in records:
        earlier = by_image.get(record.image)
        if earlier:
            message = f"labels {record.image.name} once more, after {_place(earlier)}; their objects are put together"
            findings.append(Finding("image-twice", "warning", record.file, record.record, message))
        both = earlier._replace(objects=[*earlier.objects, *record.objects]) if earlier else record
        by_image[record.image] = both
    return list(by_image.values())


def _with_sizes(records: list[Record], root: Path, findings: list[Finding]) -> list[Record]:
    sized = []
    for record in records:
        try:
            known = record if record.size else record._replace(size=_looked_up(record, root, findings))
        except DataError as error:
            findings.append(Finding("unreadable-image", "error", relative(record.image, root), "", str(error)))
            continue
        sized.append(known)
        if known.annotated and known.annotated != known.size:
            _compare_sizes(known, findings)
    return sized


def _looked_up(record: Record, root: Path, findings: list[Finding]) -> tuple[int, int]:
    width, height, true = image_header(record.image)
    named = named_format(record.image)
    if named and named != true and (named, true) != ("JPEG", "MPO"):
        message = f"is named like {named} but holds {true}; it is read as what it is: rename it for other programs"
        findings.append(Finding("image-format", "info", relative(record.image, root), "", message))
    return width, height


def _compare_sizes(record: Record, findings: list[Finding]) -> None:
    # Tools that never opened the image write 0 x 0, which claims nothing.
    if any(record.annotated):
        said, true = ("{:g} x {:g}".format(*size) for size in (record.annotated, record.size))
        turned = "; was it turned after it was labelled?" if record.annotated == record.size[::-1] else ""
        message = f"the annotation says {said} px where the upright image has {true}{turned}; boxes are taken as pixels"
        findings.append(Finding("annotated-size", "warning", record.file, record.record, message))


def _renamed(
    reader: str, records: list[Record], merge: Mapping[str, str], declared: Collection[str], findings: list[Finding]
) -> list[Record]:
    if not merge:
        return records
    known = {obj.name for record in records for obj in record.objects if obj.name} | set(declared)
    for name in merge:
        if name not in known:
            # No error: an experiment may be used on other data of its format, where nothing is misspelt.
            message = f"readers.{reader}.merge has no effect: {_no_such_class(name, known)}"
            findings.append(Finding("unused-merge", "warning", "", "", message))
    return [
        record._replace(objects=[obj._replace(name=merge.get(obj.name, obj.name)) for obj in record.objects])
        for record in records
    ]


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
    reader: str, records: list[Record], counts: Counter, names: tuple[str, ...], findings: list[Finding]
) -> None:
    first: dict[str | None, tuple[Record, Object]] = {}
    for record in records:
        for obj in record.objects:
            first.setdefault(obj.name, (record, obj))
    for name in sorted(name for name in counts if name is not None and name not in names):
        if name:
            message = f"{counts[name]} x {name!r}, which is not in readers.{reader}.classes; left out (first seen here)"
            findings.append(_at(*first[name], "other-class", "info", message))
        else:
            message = f"{counts[name]} x an object without a class name; left out (first seen here)"
            findings.append(_at(*first[name], "unnamed-object", "warning", message))
    for rare, common in near_misses({name: counts[name] for name in names if name in counts}):
        message = (
            f"{counts[rare]} x {rare!r} (first seen here) looks like {common!r} ({counts[common]} x); "
            f"if they are one class: readers.{reader}.merge = {{{rare!r}: {common!r}}}"
        )
        findings.append(_at(*first[rare], "near-miss-class", "warning", message))


def _examples(records: list[Record], ids: Mapping[str | None, int], findings: list[Finding]) -> Iterator[Example]:
    wanted = [_wanted(record, ids, findings) for record in records]
    objects = list(chain.from_iterable(wanted))
    # All boxes at once: a call of NumPy takes longer than reading an object.
    owners = np.repeat(np.arange(len(records)), [len(own) for own in wanted])
    limits = np.array([record.size * 2 for record in records], np.float64)[owners]
    raw = np.array([obj.box for obj in objects], np.float64).reshape(-1, 4)
    clipped = np.clip(raw, 0, limits)
    boxes = clipped.astype(np.float32)
    kept = (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & np.isfinite(raw).all(axis=1)
    moved = (np.abs(raw - clipped) > 1).any(axis=1)
    for i in np.flatnonzero(moved | ~kept):
        findings.append(_odd_box(records[owners[i]], objects[i], bool(kept[i])))
    boxes = boxes[kept]
    labels = np.array([ids[obj.name] for obj in objects], np.int32)[kept]
    ignore = np.array([obj.ignore for obj in objects], np.bool_)[kept]
    stops = np.cumsum(np.bincount(owners[kept], minlength=len(records))).tolist()
    for record, (start, stop) in zip(records, pairwise([0, *stops]), strict=True):
        truth = boxes[start:stop], labels[start:stop], ignore[start:stop]
        yield Example(record.image, *record.size, *truth, _place(record), record.group, record.split)


def _wanted(record: Record, ids: Mapping[str | None, int], findings: list[Finding]) -> list[Object]:
    return _without_duplicates(record, [obj for obj in record.objects if obj.name in ids], findings)


def _without_duplicates(record: Record, objects: list[Object], findings: list[Finding]) -> list[Object]:
    if len({(obj.name, obj.box) for obj in objects}) == len(objects):
        return objects
    first = {(obj.name, obj.box): obj for obj in reversed(objects)}
    kept = []
    for obj in objects:
        if first[obj.name, obj.box] is obj:
            kept.append(obj)
        else:
            message = f"the same {obj.name or 'ignore region'} box as {first[obj.name, obj.box].where}; left out"
            findings.append(_at(record, obj, "duplicate-box", "warning", message))
    return kept


def _odd_box(record: Record, obj: Object, kept: bool) -> Finding:
    x0, y0, x1, y1 = obj.box
    width, height = record.size
    text = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if kept:
        message = f"{text} passes the edge of the {width} x {height} image; clipped"
        return _at(record, obj, "clipped-box", "warning", message)
    if not all(map(math.isfinite, obj.box)):
        code, message = "non-finite-box", "is not finite"
    elif x1 < x0 or y1 < y0:
        code, message = "inverted-box", "has its minimum beyond its maximum"
    elif x0 < x1 and y0 < y1 and (x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height):
        code, message = "box-outside", f"lies outside of the {width} x {height} image"
    else:
        code, message = "zero-area-box", "has no area"
    return _at(record, obj, code, "warning", f"{text} {message}; left out")


def _clipped_counted(findings: list[Finding]) -> list[Finding]:
    clipped = [finding for finding in findings if finding.code == "clipped-box"]
    if not clipped:
        return findings
    message = f"{len(clipped)} boxes pass the edge of their image, as this format's may; clipped (first seen here)"
    note = replace(clipped[0], severity="info", message=message)
    return [finding for finding in findings if finding.code != "clipped-box"] + [note]


def _at(record: Record, obj: Object, code: str, severity: Literal["warning", "info"], message: str) -> Finding:
    return Finding(code, severity, record.file, ", ".join(filter(None, (record.record, obj.where))), message)


def _place(record: Record) -> str:
    return f"{record.file} ({record.record})" if record.record else record.file


def _refuse_none(count: int, what: str, reader: str, root: Path, findings: list[Finding]) -> None:
    if count:
        return
    codes = ", ".join(f"{n} x {code}" for code, n in Counter(finding.code for finding in findings).most_common())
    detail = f": {codes}; first of all {findings[0]}" if findings else ""
    raise DataError(f"readers.{reader}: no {what} is left in {root}{detail}")

"""KITTI object detection folders: one text file per image."""

import re
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from tlx.data.assemble import Object, Record, assemble
from tlx.data.bulk import bulk
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, file_names, read_limited, relative, subfolders
from tlx.data.formats.imagesets import FOLDERS, ImageSet, declared_splits, image_sets
from tlx.data.formats.pairs import Bad, Labels, paired
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

# As KITTI names them, and the tools that took up its format.
_FOLDERS = (("label_2", "image_2"), ("label_02", "image_02"), ("labels", "images"))
_MAPPINGS = ("mapping", "devkit_object/mapping", "devkit/mapping")
_MAX_BYTES = 16_000_000
# A frame, of six digits at least as KITTI numbers them, of a sequence that has a number itself: `0001_000012`.
_NUMBERED = re.compile(r"(.*\d.*)[_-]\d{6,}")


class _Part(NamedTuple):
    """A folder of labels, its folder of images, and the split that they are."""

    labels: Path
    images: Path
    split: str


def _sniff(path: Path) -> Sniff:
    try:
        parts = _parts(path)
    except DataError as error:
        return Sniff(False, str(error).removeprefix("readers.kitti: "))
    for part in parts:
        files = list(islice(_label_files(path, part, []).values(), 5))
        lines = [line for file in files for line in islice(_lines(part.labels / file), 1)]
        if not any(isinstance(_object(line.split(), "", 1.0, 3), Object) for line in lines):
            return Sniff(False, f"no text file in {part.labels} begins with a line of 15 columns as KITTI's")
    return Sniff(True, f"text files with KITTI's columns in {', '.join(str(part.labels) for part in parts)}")


@readers.register("kitti", sniff=_sniff)
def kitti(
    path: Path,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    max_truncated: float = 1.0,
    max_occluded: int = 3,
    unlabelled: Literal["skip", "background", "error"] = "skip",
) -> Dataset:
    """KITTI object detection: a folder with `image_2` and `label_2` (or `images` and `labels`).

    They may be in `training`, or in the folders `train`, `val` and `test`, which become splits as do the lists
    in `ImageSets`. Coordinates are taken as they stand: they are 0-based, with fractions, and KITTI's own
    evaluation measures a box as right - left, without the 1 of an inclusive pixel. DontCare becomes an ignore
    region of no class. A box that passes the image's edge is clipped. Frames of one sequence become a group,
    which no split divides: those of one drive by the development kit's `mapping/train_mapping.txt` and
    `train_rand.txt`, those in one subfolder, or those named alike, such as `0001_000012`. Format and
    evaluation: readme.txt and evaluate_object.cpp of that kit, cvlibs.net/datasets/kitti/eval_object.php.

    Args:
      path: the folder.
      classes: the types to keep, in this order; None keeps all, sorted by name.
      merge: types to replace, such as {'Van': 'Car'}.
      max_truncated: objects of which a larger part (0 to 1) lies outside the image become ignore regions.
      max_occluded: objects occluded more become ignore regions: 0 fully visible, 1 partly, 2 largely, 3 unknown.
      unlabelled: what an image without labels means: leave it out, train on it as background, or refuse.

    Raises:
      DataError: the folders or any box are missing, a type that is asked for does not occur, or an image has
        no labels under unlabelled = 'error'.
    """
    root = existing(path, "kitti")
    findings: list[Finding] = []
    parse = partial(_parse, max_truncated=max_truncated, max_occluded=max_occluded)
    with bulk():
        drives = _drives(root, findings)
        records = [record for part in _parts(root) for record in _read(root, part, parse, drives, unlabelled, findings)]
        return assemble("kitti", records, root, classes, merge, findings, clipping="expected")


def _read(
    root: Path,
    part: _Part,
    parse: Callable[[bytes], Labels],
    drives: dict[int, str],
    unlabelled: Literal["skip", "background", "error"],
    findings: list[Finding],
) -> list[Record]:
    images = ImageFiles(root, [part.images], findings, deep=True)
    files = _label_files(root, part, findings)
    pairs = paired("kitti", root, part.labels, files, images, parse, unlabelled, findings)
    groups = _sequences((key for key, _ in pairs), drives)
    splits = {key: FOLDERS.get(key.partition("/")[0], part.split) for key, _ in pairs}
    splits |= declared_splits(_own_lists(root, part, findings), files, findings)
    return [record._replace(split=splits[key], group=groups[key]) for key, record in pairs]


def _parts(root: Path) -> list[_Part]:
    halves = [(folder, split) for name, split in FOLDERS.items() for folder in subfolders(root, name)]
    whole = [(folder, "") for folder in (root, *subfolders(root, "training"))]
    for bases in ([whole[0]], whole[1:], halves):
        if parts := [part for base, split in bases if (part := _part(base, split))]:
            return parts
    raise DataError(f"readers.kitti: neither {root} nor {root / 'training'} has both folders label_2 and image_2")


def _part(base: Path, split: str) -> _Part | None:
    pairs = (subfolders(base, *names) for names in _FOLDERS)
    return next((_Part(*pair, split) for pair in pairs if len(pair) == 2), None)


def _label_files(root: Path, part: _Part, findings: list[Finding]) -> dict[str, str]:
    return {name[:-4]: name for name in file_names(root, part.labels, ".txt", findings, deep=True)}


def _own_lists(root: Path, part: _Part, findings: list[Finding]) -> dict[str, ImageSet]:
    lists = image_sets(root, root, findings) or image_sets(root, part.labels.parent, findings)
    others = [one.lines for name, one in lists.items() if name != "test"]
    # KITTI's own test list numbers the frames of its folder `testing`, from 0 again.
    if "test" in lists and not lists["test"].lines.isdisjoint(frozenset().union(*others)):
        del lists["test"]
    return lists


def _sequences(keys: Iterable[str], drives: dict[int, str]) -> dict[str, str]:
    """Return the sequence that each frame belongs to, or "" where its name tells none."""
    groups = {}
    for key in keys:
        folder, _, name = key.rpartition("/")
        numbered = _NUMBERED.fullmatch(name)
        if name.isdecimal() and not folder:
            groups[key] = drives.get(int(name[:9]), "")
        elif folder and folder not in FOLDERS:
            groups[key] = folder
        else:
            groups[key] = numbered[1] if numbered else ""
    # A sequence that everything is of tells nothing apart.
    return groups if len(set(groups.values())) > 1 else dict.fromkeys(groups, "")


def _drives(root: Path, findings: list[Finding]) -> dict[int, str]:
    """Return the drive of each frame by the development kit: frame i is line rand[i] of its mapping, from 1."""
    for folder in subfolders(root, *_MAPPINGS):
        order, lines = folder / "train_rand.txt", folder / "train_mapping.txt"
        try:
            numbers = [int(number) for number in order.read_text("ascii").replace(",", " ").split()]
            drives = [line.split()[1] for line in read_limited(lines, _MAX_BYTES).decode("ascii").splitlines()]
            return {frame: drives[number - 1] for frame, number in enumerate(numbers)}
        except (OSError, ValueError, IndexError) as error:
            message = f"tells no frame's drive ({error}); frames of one drive may part: restore the two files"
            findings.append(Finding("broken-mapping", "warning", relative(lines, root), "", message))
    return {}


def _lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as content:
            return [line for line in content.read(4096).decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return []


def _parse(content: bytes, max_truncated: float, max_occluded: int) -> Labels:
    lines = enumerate(content.decode("utf-8-sig").splitlines(), 1)
    split = ((f"line {number}", line.split()) for number, line in lines)
    return Labels(_object(columns, where, max_truncated, max_occluded) for where, columns in split if columns)


def _object(columns: list[str], where: str, max_truncated: float, max_occluded: int) -> Object | Bad:
    if len(columns) not in (15, 16):
        return Bad(where, f"it has {len(columns)} columns where KITTI has 15, or 16 with a score")
    try:
        truncated, occluded, _, x0, y0, x1, y1 = map(float, columns[1:8])
    except ValueError as error:
        return Bad(where, f"columns 2 to 8 must be numbers ({str(error)[:100]})")
    if columns[0].lower() == "dontcare":
        return Object(None, (x0, y0, x1, y1), True, where)
    return Object(columns[0], (x0, y0, x1, y1), truncated > max_truncated or occluded > max_occluded, where)

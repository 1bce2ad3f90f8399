"""What a dataset itself says of its splits: the lists in ImageSets, and folders named after splits."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from tlx.data.dataset import Finding
from tlx.data.files import listing, read_limited, relative, stem, subfolders

FOLDERS = {"train": "train", "valid": "validation", "val": "validation", "validation": "validation", "test": "test"}
# In order of precedence: an image that two lists name is not trained on where it should judge.
_LISTS = {"test": "test", "val": "validation", "train": "train", "trainval": "train"}
_MAX_BYTES = 64_000_000


class ImageSet(NamedTuple):
    """One list: its file, relative to the root, and its lines, without the empty ones."""

    file: str
    lines: frozenset[str]


def image_sets(root: Path, base: Path, findings: list[Finding]) -> dict[str, ImageSet]:
    """Return the lists test, val, train and trainval in `ImageSets/Main` or `ImageSets`, by these names."""
    for folder in subfolders(base, "ImageSets/Main", "ImageSets"):
        files = {path.stem.lower(): path for path in listing(root, folder, ".txt", findings)}
        if sets := {name: _read(files[name], root, findings) for name in _LISTS if name in files}:
            return sets
    return {}


def declared_splits(sets: dict[str, ImageSet], annotated: Collection[str], findings: list[Finding]) -> dict[str, str]:
    """Return the split of each listed name; `annotated` are the names that have labels.

    A line is a name, with or without extension and folder; more columns after it do no harm.
    """
    splits: dict[str, str] = {}
    for name, split in _LISTS.items():
        if name not in sets:
            continue
        file, lines = sets[name]
        listed = {_meant(line, annotated) for line in lines}
        taken = {one: splits.setdefault(one, split) for one in sorted(listed)}
        # That trainval lists the validation images again is its purpose.
        twice = [one for one, other in taken.items() if other != split and (name, other) != ("trainval", "validation")]
        if twice:
            message = f"{len(twice)} of its images are in another list too; each is taken as that list says"
            findings.append(Finding("in-two-splits", "warning", file, twice[0], message))
        if unknown := sorted(listed.difference(annotated)):
            message = f"{len(unknown)} listed images have no annotation"
            findings.append(Finding("no-annotation", "warning", file, unknown[0], message))
    return splits


def _meant(line: str, known: Collection[str]) -> str:
    bare = stem(line.replace("\\", "/").rpartition("/")[2])
    return next((name for name in (line, bare, line.split(maxsplit=1)[0]) if name in known), bare)


def _read(path: Path, root: Path, findings: list[Finding]) -> ImageSet:
    file = relative(path, root)
    try:
        text = read_limited(path, _MAX_BYTES).decode("utf-8-sig", "replace")
    except (OSError, ValueError) as error:
        findings.append(Finding("broken-list", "error", file, "", f"cannot be read ({error}); repair or remove it"))
        text = ""
    return ImageSet(file, frozenset(line.strip() for line in text.splitlines()) - {""})

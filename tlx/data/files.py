"""Finding a dataset's files without ever leaving its folder."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tlx.data.dataset import Finding
from tlx.data.images import SUFFIXES
from tlx.errors import DataError, suggest


def existing(path: Path | str, reader: str) -> Path:
    """Return `path` as a Path that exists, or raise a DataError with the closest name beside it."""
    path = Path(path).expanduser()
    if path.exists():
        return path
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"readers.{reader}: there is no {path}{suggest(path.name, beside)}")


def subfolders(root: Path, *names: str) -> list[Path]:
    """Return those folders under `root` that exist, in the order of `names`, in any letter case.

    Raises:
      DataError: one of them is a link that leads out of `root`.
    """
    found = []
    for name in names:
        folder = root
        for part in Path(name).parts:
            folder = _child(folder, part)
        if folder.is_dir():
            if not _inside(folder, root):
                raise DataError(f"{folder}: links to a folder outside of {root}; move the files in or name that folder")
            found.append(folder)
    return found


def listing(root: Path, folder: Path, suffix: str, findings: list[Finding]) -> list[Path]:
    """Return the files in `folder` whose names end in `suffix` (any letter case), sorted by name."""
    return [path for path in _files(root, folder, False, findings) if path.suffix.lower() == suffix]


def relative(path: Path, root: Path) -> str:
    """Return `path` as text relative to `root` where it lies under it, with forward slashes."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


class ImageFiles:
    """The files of some folders, found by the names that annotations give their images.

    Only files listed here are opened, so that no name in an annotation can lead anywhere else.
    Links that leave `root` are not listed and leave an "outside-folder" finding.
    """

    def __init__(self, root: Path, folders: list[Path], findings: list[Finding], deep: bool = False):
        self.folders = folders
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for folder in dict.fromkeys(folders):
            for path in _files(root, folder, deep, findings):
                self._by_stem[_stem(path.name).lower()].append(path)

    def find(self, name: str) -> list[Path]:
        """Return the files that `name` can mean: those named so, else those with its stem in any letter case.

        Folders in `name` only help to choose between files of the same name.
        """
        name = name.replace("\\", "/")
        last = name.rpartition("/")[2]
        candidates = self._by_stem.get(_stem(last).lower(), [])
        if len(candidates) < 2:
            return candidates
        for same in (
            lambda path: path.as_posix().endswith("/" + name),
            lambda path: path.name == last,
            lambda path: _stem(path.name) == _stem(last),
        ):
            if chosen := [path for path in candidates if same(path)]:
                return chosen
        return candidates

    def locate(self, names: list[str], file: str, record: str, findings: list[Finding]) -> Path | None:
        """Return the one image that the first helpful of `names` means, or None and a finding."""
        for name in names:
            found = self.find(name) if name else []
            if len(found) > 1:
                # A later name may decide, as VOC's <filename> does between a.jpg and a.png.
                found = [p for p in found if p.name in names[1:]] or found
            if len(found) == 1:
                return found[0]
            if found:
                several = ", ".join(path.name for path in found)
                message = f"several images fit ({several}); left out: rename or remove all but one"
                findings.append(Finding("ambiguous-image", "warning", file, record, message))
                return None
        where = ", ".join(str(folder) for folder in self.folders) or "any image folder"
        message = f"no image {names[0]!r} in {where}; left out"
        findings.append(Finding("missing-image", "warning", file, record, message))
        return None

    def images(self) -> list[Path]:
        """Return the files whose extension is an image's."""
        return [path for paths in self._by_stem.values() for path in paths if path.suffix.lower() in SUFFIXES]


def _child(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir() and folder.is_dir():
        with os.scandir(folder) as scan:
            fitting = [entry.name for entry in scan if entry.name.lower() == name.lower() and entry.is_dir()]
        name = min(fitting, default=name)
    return folder / name


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in SUFFIXES else name


def _inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _files(root: Path, folder: Path, deep: bool, findings: list[Finding]) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        path = folder / entry.name
        if entry.is_symlink() and not _inside(path, root):
            message = f"links to {os.readlink(path)}, outside of {root}; left out: copy the file instead"
            findings.append(Finding("outside-folder", "error", relative(path, root), "", message))
        elif entry.is_file():
            yield path
        elif deep and entry.is_dir(follow_symlinks=False):
            yield from _files(root, path, deep, findings)


def spellings(name: str) -> list[str]:
    """Return the file names that an annotation's image name or URL can mean: as it stands, and percent-decoded."""
    if "://" in name:
        name = re.split(r"[?#]", name.partition("://")[2])[0].rpartition("/")[2]
    return list(dict.fromkeys((name, unquote(name))))

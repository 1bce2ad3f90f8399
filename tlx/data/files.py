"""Finding a dataset's files without ever leaving its folder."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from tlx.data.dataset import Finding
from tlx.data.images import SUFFIXES
from tlx.errors import DataError, suggest


def existing(path: Path | str, reader: str) -> Path:
    """Return `path` as a Path that exists, or raise a DataError with the closest name beside it."""
    path = Path(os.path.expanduser(path))
    if os.path.exists(path):
        return path
    raise DataError(f"readers.{reader}: there is no {path}{suggest(path.name, entries(path.parent))}")


def entries(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; none where it cannot be listed or is none."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []


def subfolders(root: Path, *names: str) -> list[Path]:
    """Return those folders under `root` that exist, in the order of `names`, in any letter case.

    Raises:
      DataError: one of them is a link that leads out of `root`.
    """
    found = []
    inside = lru_cache(entries)
    for name in names:
        folder = root
        for part in Path(name).parts:
            alike = [part] if os.path.isdir(folder / part) else inside(folder)
            alike = [one for one in alike if one.lower() == part.lower() and os.path.isdir(folder / one)]
            folder = folder / alike[0] if alike else folder / part
        if os.path.isdir(folder):
            if not _inside(folder, root):
                raise DataError(f"{folder}: links to a folder outside of {root}; move the files in or name that folder")
            found.append(folder)
    return list(dict.fromkeys(found))


def listing(root: Path, folder: Path, suffix: str | None, findings: list[Finding], deep: bool = False) -> list[Path]:
    """Return the files in `folder`, sorted; see `file_names`."""
    return [folder / name for name in file_names(root, folder, suffix, findings, deep)]


def file_names(root: Path, folder: Path, suffix: str | None, findings: list[Finding], deep: bool = False) -> list[str]:
    """Return the names of the files in `folder` that end in `suffix` (any letter case; None for all), sorted.

    With `deep`, those in its subfolders too, as `subfolder/name`, links to folders apart. Links that leave
    `root` are left out with an "outside-folder" finding.
    """
    names = _files(root, folder, deep, findings)
    return [name for name in names if suffix is None or name.lower().endswith(suffix)]


def relative(path: Path, root: Path) -> str:
    """Return `path` as printable text relative to `root` where it lies under it, with forward slashes."""
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix())


def printable(name: str) -> str:
    """Return a file name with those of its bytes escaped that are no UTF-8, which no page or terminal could show."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def stem(name: str) -> str:
    """Return a file name without its extension if that is an image's: `frame.0012` has none."""
    first, dot, suffix = name.rpartition(".")
    return first if first and dot + suffix.lower() in SUFFIXES else name


def read_limited(path: Path | str, most: int) -> bytes:
    """Return what the file holds.

    Raises:
      ValueError: it holds more than `most` bytes.
      OSError: it cannot be read.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        content = os.read(file, 1 << 16)
        while len(content) <= most and (more := os.read(file, 1 << 20) if len(content) >= 1 << 16 else b""):
            content += more
    finally:
        os.close(file)
    if len(content) > most:
        raise ValueError(f"the file has more than {most:,} bytes")
    return content


class ImageFiles:
    """The files of some folders, found by the names that annotations give their images.

    Only files listed here are opened, so that no name in an annotation can lead anywhere else.
    Links that leave `root` are not listed and leave an "outside-folder" finding.
    """

    def __init__(self, root: Path, folders: list[Path], findings: list[Finding], deep: bool = False):
        self.folders = folders
        # Paths as text: to make many of them is what takes time.
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._asked: set[str] = set()
        for folder in dict.fromkeys(folders):
            prefix = os.path.join(folder, "")
            for name in _files(root, folder, deep, findings):
                self._by_stem[stem(name.rpartition("/")[2]).lower()].append(prefix + name)

    def find(self, name: str) -> list[Path]:
        """Return the files that `name` can mean: those named so, else those with its stem in any letter case.

        Folders in `name` only help to choose between files of the same name.
        """
        return [Path(path) for path in self._find(name)]

    def _find(self, name: str) -> list[str]:
        name = name.replace("\\", "/")
        last = name.rpartition("/")[2]
        found = self._by_stem.get(stem(last).lower(), [])
        if len(found) > 1:
            tests = (
                lambda path: path.endswith("/" + name),
                lambda path: stem(path).endswith("/" + stem(name)),
                lambda path: path.endswith("/" + last),
                lambda path: stem(path).endswith("/" + stem(last)),
            )
            found = next((chosen for test in tests if (chosen := list(filter(test, found)))), found)
        self._asked.update(found)
        return found

    def locate(self, names: list[str], file: str, record: str, findings: list[Finding]) -> Path | None:
        """Return the one image that the first helpful of `names` means, or None and a finding."""
        for name in names:
            found = self._find(name) if name else []
            if len(found) > 1:
                # A later name may decide, as VOC's <filename> does between a.jpg and a.png.
                found = [path for path in found if os.path.basename(path) in names[1:]] or found
            if len(found) == 1:
                return Path(found[0])
            if found:
                several = ", ".join(map(os.path.basename, found))
                message = f"several images fit ({several}); left out: rename or remove all but one"
                findings.append(Finding("ambiguous-image", "warning", file, record, message))
                return None
        where = ", ".join(str(folder) for folder in self.folders) or "any image folder"
        message = f"no image {names[0]!r} in {where}; left out"
        findings.append(Finding("missing-image", "warning", file, record, message))
        return None

    def images(self) -> list[Path]:
        """Return the files whose extension is an image's."""
        return [Path(path) for path in self._images()]

    def rest(self) -> list[Path]:
        """Return the files whose extension is an image's, and which no name asked for has meant."""
        return [Path(path) for path in self._images() if path not in self._asked]

    def _images(self) -> Iterator[str]:
        paths = (path for paths in self._by_stem.values() for path in paths)
        return (path for path in paths if stem(path) != path)


def _inside(path: Path, root: Path) -> bool:
    # Path.resolve raises where links run in circles.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _files(root: Path, folder: Path, deep: bool, findings: list[Finding]) -> Iterator[str]:
    """Yield the names of the files in a folder, or, below it, their paths relative to it, with forward slashes."""
    prefixes = [""]
    while prefixes:
        prefix = prefixes.pop()
        try:
            with os.scandir(folder / prefix) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            message = f"cannot be listed ({error.strerror}); its files are left out: change its permissions"
            findings.append(Finding("unreadable-folder", "error", relative(folder / prefix, root), "", message))
            continue
        inner = []
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue  # Left there by desktops and editors; never by a labelling tool.
            if entry.is_symlink():
                if finding := _odd_link(folder / name, root):
                    findings.append(finding)
                elif os.path.isfile(folder / name):
                    yield name
            elif entry.is_file():
                yield name
            elif deep and entry.is_dir():
                inner.append(f"{name}/")
        prefixes += reversed(inner)


def _odd_link(path: Path, root: Path) -> Finding | None:
    target = relative(path.readlink(), root)
    if not _inside(path, root):
        message = f"links to {target}, outside of {root}; left out: copy the file instead"
        return Finding("outside-folder", "error", relative(path, root), "", message)
    if not os.path.exists(path):
        message = f"links to {target}, which is not there; left out: mend or remove the link"
        return Finding("broken-link", "warning", relative(path, root), "", message)
    return None


def spellings(name: str) -> list[str]:
    """Return the file names that an annotation's image name or URL can mean: as it stands, and percent-decoded."""
    if "://" in name:
        name = re.split(r"[?#]", name.partition("://")[2])[0].rpartition("/")[2]
    return list(dict.fromkeys((name, unquote(name))))

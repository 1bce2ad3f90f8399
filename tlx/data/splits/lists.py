"""Split lists that were written down: in a run folder's data.json, or in text files such as train.txt."""

import os
from collections import defaultdict
from pathlib import Path

import msgspec

from tlx.data.dataset import Dataset
from tlx.data.splits.parts import NAMES, relative_paths
from tlx.errors import DataError, suggest

_FILES = {
    "train": ("train.txt",),
    "validation": ("validation.txt", "val.txt", "valid.txt"),
    "test": ("test.txt",),
}
_MAX_BYTES = 200_000_000


class _Known(msgspec.Struct):
    splits: dict[str, list[str]]


def read_lists(path: Path) -> dict[str, tuple[Path, list[str]]]:
    """Return each part's list, and the file that it stands in.

    `path` is a run folder, its data.json, or a folder with train.txt, validation.txt (or val.txt) and, not
    necessarily, test.txt, which name an image a line.

    Raises:
      DataError: there are no such lists, or the file that should hold them is broken.
    """
    path = path.expanduser()
    file = path / "data.json" if path.is_dir() else path
    if file.is_file():
        lists = {name: (file, entries) for name, entries in _decode(file).items()}
    else:
        found = {name: [path / file for file in files if (path / file).is_file()] for name, files in _FILES.items()}
        for name, files in found.items():
            if len(files) > 1:
                raise DataError(f"{files[0]} and {files[1]} both list the {name} part; remove one")
        lists = {name: (files[0], _lines(files[0])) for name, files in found.items() if files}
    missing = [name for name in NAMES[:2] if not (name in lists and lists[name][1])]
    if missing:
        wanted = "a run folder with data.json, or a folder with train.txt and validation.txt"
        raise DataError(f"{path} lists no {' and no '.join(missing)} images; name {wanted}")
    return {name: lists[name] for name in NAMES if name in lists}


def _decode(file: Path) -> dict[str, list[str]]:
    try:
        return msgspec.json.decode(_bytes(file), type=_Known).splits
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DataError(f"{file} holds no split lists as a run's data.json does: {error}; restore it") from error


def _lines(file: Path) -> list[str]:
    lines = (line.strip() for line in _bytes(file).decode("utf-8-sig", "replace").splitlines())
    return [line for line in lines if line]


def _bytes(file: Path) -> bytes:
    if file.stat().st_size > _MAX_BYTES:
        raise DataError(f"{file} has more than {_MAX_BYTES:,} bytes, which no split list has; name another file")
    return file.read_bytes()


class Endings:
    """A dataset's images by what their paths end in, with or without the extension."""

    def __init__(self, dataset: Dataset):
        self._exact = {name: i for i, name in enumerate(relative_paths(dataset.examples))}
        self._by_name: dict[str, list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        for i, example in enumerate(dataset.examples):
            whole = Path(os.path.abspath(example.image))
            for path, places in ((whole, self._by_name), (whole.with_suffix(""), self._by_stem)):
                parts = path.as_posix().split("/")
                for start in range(len(parts)):
                    places["/".join(parts[start:])].append(i)

    def find(self, entry: str, file: Path) -> int:
        """Return the position of the image that `entry` of a list in `file` names.

        Raises:
          DataError: no image, or more than one, is meant.
        """
        name = entry.replace("\\", "/").removeprefix("./")
        if name in self._exact:
            return self._exact[name]
        for places in (self._by_name, self._by_stem):
            if len(places.get(name, ())) > 1:
                raise DataError(f"{file} names {entry!r}, which several images are called; list more of their paths")
            if name in places:
                return places[name][0]
        close = suggest(name, self._exact)
        raise DataError(f"{file} names {entry!r}, which is no image of the data{close}; give the lists of this data")

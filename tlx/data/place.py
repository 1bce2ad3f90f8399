"""Putting a written dataset where it belongs: its folder, whole or not at all, and its images, linked or copied."""

import errno
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tlx.data import container
from tlx.data.dataset import Example
from tlx.data.images import SUFFIXES
from tlx.errors import DataError

# File systems allow 255 bytes; a number and a label file's longer extension must still fit.
_LONGEST = 200
_HEADS = {
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"P5": ".pgm",
    b"P6": ".ppm",
}


@dataclass
class Place:
    """Puts images into a dataset that is being written, byte for byte.

    With `link` they are hard links to the same bytes; where that cannot be, such as on another disk or out
    of a zip, copies. `report` is told (done, total) after each image, `total` being given.
    """

    link: bool = True
    total: int = 0
    report: Callable[[int, int], None] = lambda *_: None
    _done: int = field(default=0, init=False)

    def __call__(self, image: Path, target: Path) -> None:
        """Make `target` hold what `image` does.

        Raises:
          FileExistsError: `target` exists.
          DataError: `image` cannot be read from the file that holds it.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        if not (self.link and image.is_file() and _linked(image, target)):
            with container.opened(image) as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy)
        self.count()

    def count(self) -> None:
        """Count one image that found its place in another way."""
        self._done += 1
        self.report(self._done, self.total)


def _linked(image: Path, target: Path) -> bool:
    try:
        os.link(image.resolve(), target)
    except FileExistsError:
        raise
    except OSError:
        # Another disk, a file system without links, another user's file; what else is wrong, copying tells.
        return False
    return True


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill, which becomes `target` at the end: that appears whole or not at all.

    Raises:
      DataError: `target` exists and is not an empty folder, or the disk is full.
    """
    target = target.resolve()
    refuse_taken(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:40]}-", dir=target.parent) as work:
            whole = Path(work) / "whole"
            whole.mkdir()
            yield whole
            refuse_taken(target)
            os.replace(whole, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        advice = "nothing was kept: free some space, or name a folder on another disk"
        raise DataError(f"{target}: the disk is full; {advice}") from error


def refuse_taken(target: Path) -> None:
    """Raise a DataError if something is at `target` already that is not an empty folder."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(f"{target} exists and is not an empty folder: name a new one, nothing is overwritten")


def names(examples: Sequence[Example]) -> list[str]:
    """Return a file name for each example's image: its own, as far as that is unique and safe everywhere.

    No two have the same stem, in whatever letter case or Unicode form. The extension is an image's, no stem
    ends in another one, and no name has a character that cannot be printed.
    """
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    chosen = []
    for example in examples:
        stem, suffix = _own_name(example.image)
        unique = stem
        while _key(unique) in taken:
            numbers[_key(stem)] += 1
            unique = f"{stem}_{numbers[_key(stem)] + 1}"
        taken.add(_key(unique))
        chosen.append(unique + suffix)
    return chosen


def _key(stem: str) -> str:
    return unicodedata.normalize("NFC", stem).casefold()


def _own_name(image: Path) -> tuple[str, str]:
    stem, suffix = image.stem, image.suffix
    if suffix.lower() not in SUFFIXES:
        stem, suffix = image.name, _suffix(image)
    stem = "".join(letter if letter.isprintable() else "_" for letter in stem)
    # Readers that look for the image `a.jpg` may take `a` for its stem.
    base, dot, rest = stem.rpartition(".")
    if dot + rest.lower() in SUFFIXES:
        stem = f"{base}_{rest}"
    stem = stem.encode()[:_LONGEST].decode(errors="ignore").strip(" .")
    return stem or "image", suffix


def _suffix(image: Path) -> str:
    with container.opened(image) as file:
        head = file.read(4)
    return next((suffix for start, suffix in _HEADS.items() if head.startswith(start)), ".jpg")

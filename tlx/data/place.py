"""Putting images where a written dataset wants them: linked where that is possible, or copied."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlx.data import container
from tlx.data.dataset import Example


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
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            return False
        raise
    return True


def names(examples: Sequence[Example]) -> list[str]:
    """Return a file name for each example's image, its own where no other has the same stem in any letter case."""
    taken: set[str] = set()
    chosen = []
    for example in examples:
        stem, suffix = example.image.stem, example.image.suffix
        number = 1
        unique = stem
        while unique.lower() in taken:
            number += 1
            unique = f"{stem}_{number}"
        taken.add(unique.lower())
        chosen.append(unique + suffix)
    return chosen

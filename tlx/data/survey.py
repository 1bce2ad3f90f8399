"""One look at every image file: what it holds, how it holds it, and what it looks like from afar."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from tlx.data.container import stamp
from tlx.data.images import decode, file_hash, image_size
from tlx.errors import DataError
from tlx.meanwhile import being

# The side of a thumbnail, in pixels.
SIDE = 32

# Pictures beyond this many pixels are decoded one at a time: several at once could take gigabytes.
_LARGE = 24_000_000
_one_large = Lock()
_watcher: ContextVar[Callable[[int, int], None] | None] = ContextVar("watcher", default=None)


@dataclass(frozen=True, eq=False)
class Picture:
    """What one look at an image file told.

    `size` and `stored` are (width, height) in pixels, upright and before EXIF's `orientation` (1 to 8) was
    applied. `format` and `mode` are Pillow's names; `colourless` means that all pixels looked at are grey,
    whatever the mode; `deep` that a channel has more than 8 bits. `thumb` is uint8 [32, 32], grayscale, upright.
    Where the file cannot be decoded, `error` says why, and `thumb` is None.
    """

    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    format: str = ""
    mode: str = ""
    deep: bool = False
    transparent: bool = False
    colourless: bool = False
    thumb: np.ndarray | None = None
    error: str = ""


def survey(images: Sequence[Path]) -> list[Picture]:
    """Return what one look at each image file tells, in order; a file is read once while it stays as it is.

    Files are decoded in parallel. One that cannot be read has its `error`; nothing is raised.
    """
    watcher = _watcher.get()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = []
        try:
            for picture in pool.map(look, images):
                seen.append(picture)
                if watcher:
                    watcher(len(seen), len(images))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return seen


def watched_by(report: Callable[[int, int], None]) -> AbstractContextManager[None]:
    """Tell `report` (done, total) after every image that is surveyed within, by whatever needs it."""
    return being(_watcher, report)


def look(path: Path) -> Picture:
    """Return what one look at an image file tells; see `survey`."""
    try:
        return _look(path, *stamp(path))
    except (DataError, OSError) as error:
        return Picture(error=str(error))


@lru_cache(maxsize=200_000)
def _look(path: Path, _size: int, _changed: int) -> Picture:
    sha256 = ""
    try:
        sha256 = file_hash(path)
        width, height = image_size(path)
        if width * height <= _LARGE:
            return _seen(path, sha256)
        with _one_large:
            return _seen(path, sha256)
    except (DataError, OSError) as error:
        return Picture(sha256=sha256, error=str(error))
    except MemoryError:
        return Picture(sha256=sha256, error=f"{path}: too large for this machine's memory; reduce it or leave it out")


def _seen(path: Path, sha256: str) -> Picture:
    found = decode(path)
    small = found.image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return Picture(
        sha256=sha256,
        size=found.image.size,
        stored=found.stored,
        orientation=found.orientation,
        format=found.format,
        mode=found.mode,
        deep=found.deep,
        transparent=found.transparent,
        colourless=_is_grey(found.image),
        thumb=np.asarray(small),
    )


def _is_grey(image: Image.Image) -> bool:
    # Single pixels, not averages: small colourful things must not be lost. JPEG may tint grey by a level or two.
    sample = np.asarray(image.resize((64, 64), Image.Resampling.NEAREST)).astype(np.int16)
    return int((sample.max(axis=2) - sample.min(axis=2)).max()) <= 4

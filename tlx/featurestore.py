"""Features on disk, picture by picture: computed once, shared by processes, checked when opened, and bounded in size.

    ROOT/tlx-features-KEY/made-by-tlx          says whose folder it is; who adds to the folder locks it
    ROOT/tlx-features-KEY/segment-*.features   what was computed at once (`tlx.segment`); who reads it shares its lock
    ROOT/tlx-features-KEY/segment-*.partial    what is being computed; who writes it locks it

A picture here is whatever has features of its own under one name: a picture, or one window of it.
The kernel lets go of locks when their holder dies. What does not prove to be tlx's own, by its name, its kind, its
owner and its first line, is neither believed nor counted nor touched.
"""

import contextlib
import fcntl
import os
import secrets
import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from tlx import featurefiles, segment
from tlx.segment import DamagedError, Layout, Segment, proof

# Each segment that is open takes two of the about thousand files that a process may have open.
_MANY = 16


class Lease:
    """The stored features of some pictures, which no process removes before `release`, or before the lease is gone.

    `found` is how many of the pictures were stored already, `computed` how many had to be computed.
    """

    def __init__(self, folder: Path, key: str, layout: Layout, wanted: Iterable[str]):
        self.found = self.computed = 0
        self._folder, self._key, self._layout = folder, key, layout
        self._wanted = list(dict.fromkeys(wanted))
        self._parts = list(zip(layout.parts, layout.shapes, strict=True))
        self._open: dict[Path, tuple[int, Segment]] = {}
        self._at: dict[str, tuple[np.ndarray, int]] = {}
        self.release = weakref.finalize(self, _release, self._open)
        # The kernel does it at the process's end; what a forked process did at its own would let go of ours.
        self.release.atexit = False

    def read(self, picture: str, view: int) -> tuple[np.ndarray, ...]:
        """Return the arrays of one view, read-only and in the stored dtype; this works after `release`, too."""
        rows, first = self._at[picture]
        row = rows[first + view]
        return tuple(row[begin:end].reshape(shape) for (begin, end), shape in self._parts)

    def _missing(self) -> list[str]:
        return [picture for picture in self._wanted if picture not in self._at]

    def _look(self) -> list[Path]:
        """Open what is stored of the wanted pictures, and return which segments are damaged."""
        damaged = []
        for path, _ in featurefiles.segments(self._folder, self._key):
            if path.suffix == ".features" and path not in self._open:
                try:
                    # Another process may remove it at this moment.
                    with contextlib.suppress(FileNotFoundError):
                        self._take(path, featurefiles.opened(path))
                except DamagedError:
                    damaged.append(path)
        return damaged

    def _take(self, path: Path, file: int) -> None:
        """Read an open segment, and keep it open, and so locked, if it has any of the wanted pictures."""
        try:
            # Whoever removes it has it locked for a moment only; and what is open can be read even then.
            fcntl.flock(file, fcntl.LOCK_SH)
            found = segment.read(file, self._layout, self._wanted)
        except BaseException:
            os.close(file)
            raise
        if found is None:
            os.close(file)
            return
        os.utime(file)
        self._open[path] = file, found
        views = self._layout.views
        self._at.update((picture, (found.rows, i * views)) for i, picture in enumerate(found.pictures))

    def _fill(self, compute: Callable[[list[str]], Iterable[Sequence[np.ndarray]]], cap: float) -> None:
        """Compute what is missing, and store it as one more segment, with the smaller ones in it where there are many.

        This process must be the only one that adds to the folder.
        """
        missing = self._missing()
        self.computed = len(missing)
        if not missing:
            return
        joined = self._joined(len(missing)) if len(self._open) >= _MANY else []
        pictures = [*chain.from_iterable(self._open[path][1].pictures for path in joined), *missing]
        blocks = (
            np.concatenate([np.asarray(a, self._layout.dtype).reshape(len(a), -1) for a in arrays], axis=1)
            for arrays in compute(missing)
        )
        rows = chain((self._open[path][1].rows for path in joined), blocks)
        self._store(pictures, rows, cap)
        for path in joined:
            _release({path: self._open.pop(path)})
            # Whoever reads it goes on; were it kept for them, it would be joined again.
            if featurefiles.begins(path, proof(self._key)):
                path.unlink(missing_ok=True)

    def _joined(self, count: int) -> list[Path]:
        """Return the segments to join with one of `count` pictures: from the smallest, while none is larger than that.

        A picture is copied a few times at most, since each time its segment doubles.
        """
        paths = []
        for path in sorted(self._open, key=lambda path: len(self._open[path][1].pictures)):
            size = len(self._open[path][1].pictures)
            if size <= count:
                paths.append(path)
                count += size
        return paths

    def _store(self, pictures: list[str], rows: Iterable[np.ndarray], cap: float) -> None:
        make_room(self._folder.parent, cap - segment.size(self._layout, pictures))
        path = self._folder / f"segment-{secrets.token_hex(8)}.partial"
        file = featurefiles.created(path)
        try:
            segment.reserve(file, self._key, self._layout, pictures)
            # Another process may have reserved room, too, since this one made some.
            make_room(self._folder.parent, cap)
            segment.write(file, self._layout, pictures, rows)
            path = path.rename(path.with_suffix(".features"))
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(file)
            raise
        self._take(path, file)


def lease(
    root: Path,
    key: str,
    layout: Layout,
    pictures: Iterable[str],
    compute: Callable[[list[str]], Iterable[Sequence[np.ndarray]]],
    cap: float,
) -> Lease:
    """Return the features of `pictures` (any strings) under `key` (32 hexadecimal digits), computing what is missing.

    `compute` is given the pictures that are missing and yields their arrays [b, ...], one for each of the layout's
    shapes, for view after view of picture after picture. Of several processes that miss something under one key, one
    computes at a time, and the others find what it stored. Before something is stored, the segments that were least
    recently asked for are removed, until all take at most `cap` bytes; but what any process leases stays, even where
    that alone takes more.

    Raises:
      TakenError: something that is not tlx's own lies where these features belong.
    """
    root.mkdir(parents=True, exist_ok=True)
    found = Lease(featurefiles.entry(root, key), key, layout, pictures)
    found._look()
    if found._missing():
        with featurefiles.alone(found._folder, key):
            for damaged in found._look():
                damaged.unlink(missing_ok=True)
            found._fill(compute, cap)
    found.found = len(found._wanted) - found.computed
    return found


def bytes_stored(root: Path, key: str) -> int:
    """Return how many bytes the features under a key take."""
    return sum(
        known.st_size
        for path, known in featurefiles.segments(featurefiles.entry(root, key), key)
        if path.suffix == ".features"
    )


def make_room(root: Path, budget: float) -> None:
    """Remove what dead writers left, and the least recently used segments until the others take `budget` bytes."""
    stored = []
    entries = [
        (path, match[1]) for path in sorted(root.iterdir()) if (match := featurefiles.ENTRY.fullmatch(path.name))
    ]
    for path, known in chain.from_iterable(featurefiles.segments(*entry) for entry in entries):
        if path.suffix == ".features" or not featurefiles.remove(path):
            stored.append((known.st_mtime_ns, known.st_size, path))
    total = sum(size for _, size, _ in stored)
    for _, size, path in sorted(stored):
        if total > budget and path.suffix == ".features" and featurefiles.remove(path):
            total -= size
    for folder, key in entries:
        featurefiles.remove_empty(folder, key)


def _release(opened: dict[Path, tuple[int, Segment]]) -> None:
    for file, _ in opened.values():
        # Memory that is mapped keeps the file open, and so its lock.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)
    opened.clear()

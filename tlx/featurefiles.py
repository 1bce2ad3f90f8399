"""The feature cache's folders and files: which prove to be tlx's own, and who uses them.

How they are named is told in `tlx.featurestore`. What proves nothing is neither believed nor counted nor touched.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from tlx.errors import TlxError
from tlx.segment import proof

MARKER = "made-by-tlx"
ENTRY = re.compile(r"tlx-features-([0-9a-f]{32})(\.[0-9a-f]{16}\.new)?")
_SEGMENT = re.compile(r"segment-[0-9a-f]{16}\.(features|partial)")
_TRIES, _PAUSE = 50, 0.01


class TakenError(TlxError):
    """What lies where features belong was not made by tlx for this user."""


def begins(path: Path, line: bytes) -> os.stat_result | None:
    """Return what is known of a file if it is a plain one of this user's and begins with this line."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        known = path.lstat()
        if stat.S_ISREG(known.st_mode) and known.st_uid == os.geteuid():
            file = opened(path)
            try:
                return known if os.pread(file, len(line), 0) == line else None
            finally:
                os.close(file)
    return None


def entry(root: Path, key: str) -> Path:
    """Return the folder of what is stored under a key."""
    return root / f"tlx-features-{key}"


def _is_entry(folder: Path, key: str) -> bool:
    return not folder.is_symlink() and folder.is_dir() and begins(folder / MARKER, proof(key)) is not None


def segments(folder: Path, key: str) -> list[tuple[Path, os.stat_result]]:
    """Return the segments in a folder, whole and partial ones, if all prove to be tlx's own."""
    with contextlib.suppress(FileNotFoundError):
        if _is_entry(folder, key):
            paths = sorted(folder / name for name in os.listdir(folder) if _SEGMENT.fullmatch(name))
            return [(path, known) for path in paths if (known := begins(path, proof(key)))]
    return []


def opened(path: Path, flags: int = os.O_RDONLY) -> int:
    """Return a descriptor of a file, which is no link."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def created(path: Path) -> int:
    """Return a new file, locked before anything in it proves it to be tlx's, so that nobody else removes it."""
    file = opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Lock a file that proved to be tlx's own; a BlockingIOError says that another process, or this one, uses it."""
    file = opened(path, os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(file)


def remove(path: Path) -> bool:
    """Remove a file that proved to be tlx's own, unless it is in use or gone."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError), _unused(path):
        path.unlink()
        return True
    return False


def remove_empty(folder: Path, key: str) -> None:
    """Remove a folder that proves to be tlx's own if nothing at all is in it and nobody is about to add to it."""
    if _is_entry(folder, key):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), _unused(folder / MARKER):
            if os.listdir(folder) == [MARKER]:
                (folder / MARKER).unlink()
                # Somebody else's file that has just come keeps the folder.
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextlib.contextmanager
def alone(folder: Path, key: str) -> Iterator[None]:
    """Be the only process that adds to a folder, which is made if it is not there."""
    for _ in range(_TRIES):
        file = _entered(folder, key) if os.path.lexists(folder) else _made(folder, key)
        if file is not None:
            break
        # Another process has just made it, or is removing it.
        time.sleep(_PAUSE)
    else:
        raise TakenError(f"{folder} is not tlx's own, or another user's; move it, or name another features.folder")
    try:
        yield
    finally:
        os.close(file)


def _entered(folder: Path, key: str) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        if _is_entry(folder, key):
            file = opened(folder / MARKER, os.O_RDWR)
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:
                return file
            os.close(file)
    return None


def _made(folder: Path, key: str) -> int | None:
    new = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.new")
    new.mkdir()
    file = created(new / MARKER)
    os.write(file, proof(key))
    try:
        new.rename(folder)
    except OSError as error:
        (new / MARKER).unlink()
        new.rmdir()
        os.close(file)
        # Another process was quicker: a folder that holds something is not replaced.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return None
    return file

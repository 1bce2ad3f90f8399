"""The list that tlx keeps, in each folder that it makes, of what it made there: `.tlx-made`.

The first line says that this is tlx's list. Each further one is a JSON list: "kind" and what kind of folder it is, or
what was made and its name, which stands there before the thing itself does. A line that says nothing sound proves
nothing, and is passed over.
"""

import errno
import json
import os
import stat
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from tlx.errors import TlxError

MARKER = ".tlx-made"
Kind = Literal["run", "search", "predictions", "inspection", "images", "files"]
# A folder that is "marked" has a list of its own; of a "tree" all that is in it is tlx's; "gone" is no more.
What = Literal["file", "folder", "tree", "marked", "gone"]

_KINDS, _WHATS = Kind.__args__, What.__args__
_FORMAT = 1
_LONGEST_HEADER = 1000
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
_TURN = threading.RLock()


@dataclass
class Made:
    """A folder's list as it was read: its first line, how many bytes are known, the folder's kind, and all names."""

    header: bytes
    read: int
    kind: Kind = "files"
    things: dict[str, What] = field(default_factory=dict)


_KNOWN: dict[Path, Made] = {}


def read(folder: Path) -> Made | None:
    """Return the list of a folder, or None where it has none.

    Raises:
      TlxError: a file of that name is there that tlx did not write.
    """
    file = folder / MARKER
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _foreign(file) if error.errno == errno.ELOOP else error from None
    with _TURN, os.fdopen(opened, "rb") as content:
        there = os.fstat(opened)
        if not stat.S_ISREG(there.st_mode):
            raise _foreign(file)
        header, known = content.readline(_LONGEST_HEADER), _KNOWN.get(folder.absolute())
        if known is None or known.header != header or known.read > there.st_size:
            # The first line is another one each time that a list is begun.
            _check(file, header)
            known = _KNOWN[folder.absolute()] = Made(header, len(header))
        content.seek(known.read)
        lines = content.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        for line in whole.split(b"\n"):
            what, value = _entry(line)
            if what == "kind":
                known.kind = value
            elif what:
                known.things[value] = what
        known.read += len(whole)
        return known


def begin(folder: Path, kind: Kind, things: Mapping[str, What] | None = None, anew: bool = False) -> Made:
    """Begin and return the list of a folder, in place of an earlier one if `anew`, unless another process has."""
    header = {"made by": "tlx", "format": _FORMAT, "version": version("tlx"), "id": uuid.uuid4().hex}
    whole = folder / f"{MARKER}.{uuid.uuid4().hex}"
    with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
        file.write(json.dumps(header).encode() + b"\n" + _line("kind", kind) + _lines(things or {}))
        _settle(file)
    try:
        if anew:
            whole.replace(folder / MARKER)
        else:
            _link(whole, folder / MARKER)
    finally:
        whole.unlink(missing_ok=True)
    return required(folder)


def required(folder: Path) -> Made:
    """Return the list of a folder, begun if it has none."""
    return read(folder) or begin(folder, "files")


def rename(folder: Path, kind: Kind) -> None:
    """Say in its list that a folder is of this kind from now on."""
    _append(folder, _line("kind", kind))


def append(folder: Path, things: Mapping[str, What]) -> None:
    """Add names, relative to the folder, to its list, and wait for them to be on disk."""
    required(folder)
    _append(folder, _lines(things))


def _append(folder: Path, lines: bytes) -> None:
    with os.fdopen(os.open(folder / MARKER, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC), "ab+") as file:
        file.seek(-1, os.SEEK_END)
        # A kill may have torn the last line; the next one must not continue it.
        torn = b"" if file.read(1) == b"\n" else b"\n"
        file.write(torn + lines)
        _settle(file)


def _link(whole: Path, marker: Path) -> None:
    try:
        os.link(whole, marker)
    except FileExistsError:
        # Another process was a moment earlier.
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        whole.replace(marker)


def _settle(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lines(things: Mapping[str, What]) -> bytes:
    return b"".join(_line(what, name) for name, what in things.items())


def _line(what: str, value: str) -> bytes:
    return json.dumps([what, value]).encode() + b"\n"


def _check(file: Path, header: bytes) -> None:
    try:
        said = json.loads(header)
        known, format = said["made by"] == "tlx", int(said["format"])
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise _foreign(file)
    if format != _FORMAT:
        raise TlxError(f"{file} is of format {format}, which this version of tlx does not know; name another folder")


def _entry(line: bytes) -> tuple[Any, Any]:
    """Return what a line says: ("kind", which), (what, name), or (None, None) where it says nothing sound."""
    try:
        what, value = json.loads(line)
        if what == "kind":
            return (what, value) if value in _KINDS else (None, None)
        path = PurePosixPath(value)
        # Where a name leads must be inside, whoever wrote it.
        sound = what in _WHATS and path.as_posix() == value and value != "." and not path.is_absolute()
    except (ValueError, TypeError):
        return None, None
    return (what, value) if sound and ".." not in path.parts and "\0" not in value else (None, None)


def _foreign(file: Path) -> TlxError:
    return TlxError(f"{file} is not the list that tlx keeps of what it made; move it away, or name another folder")


def root_of(path: Path) -> Path | None:
    """Return the nearest folder above `path` that has a list, if there is one."""
    return next((above for above in path.parents if os.path.lexists(above / MARKER)), None)


def listed(root: Path, path: Path) -> What | None:
    """Return what the list of `root` says of a path; None where it is not on it."""
    return required(root).things.get(name_in(root, path))


def name_in(root: Path, path: Path) -> str:
    """Return what the list of `root` calls a path."""
    return PurePosixPath(path.relative_to(root)).as_posix()


def is_plain(root: Path, path: Path) -> bool:
    """Return whether no link is on the way from `root` to `path`."""
    return all(stat.S_ISDIR(mode(root / above)) for above in path.relative_to(root).parents[:-1])


def mode(path: Path) -> int:
    """Return the mode of what is at `path`, itself and not what it may link to; 0 where there is nothing."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0

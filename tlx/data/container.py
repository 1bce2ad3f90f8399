"""Files inside of files: the members of a zip, and byte ranges such as the images in a TFRecord.

A path may go on beyond a file: `pets.zip/cat/1.jpg` is the member `cat/1.jpg` of a zip, and
`pets.record/@1000+2000/1.jpg` are the 2,000 bytes from byte 1,000 on, which go by the name `1.jpg`. Nothing
is ever unpacked to the disk.
"""

import io
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from tlx.errors import DataError

# An image file that takes more has more pixels than are decoded.
MAX_BYTES = 400_000_000
# Some 200,000 files: in memory, a zip's list of files is thirty times as large.
_MAX_LIST = 16_000_000
_MAX_NAME = 1000
_RANGE = re.compile(r"@([0-9]{1,15})\+([0-9]{1,15})")
_UNFIT = re.compile(r"[\x00-\x1f\x7f/\\]+")
_BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(RuntimeError, NotImplementedError, EOFError, ValueError, LookupError, OverflowError, OSError),
)


class Contents(NamedTuple):
    """What a zip holds: its files and folders, sorted, and (name, why) of what it holds and nobody can open."""

    files: list[Path]
    folders: list[Path]
    left_out: list[tuple[str, str]]


def inside(holder: Path, start: int, length: int, name: str) -> Path:
    """Return the path of a byte range of the file `holder`, which goes by `name`, made fit for a file's name."""
    name = _UNFIT.sub("_", name)[-200:]
    return holder / f"@{start}+{length}" / (name if name.strip(".") else "unnamed")


def contents(archive: Path) -> Contents:
    """Return what a zip holds, without reading any of it.

    Left out are encrypted files, all but the last of those with one name, and names that lead elsewhere.

    Raises:
      DataError: the file is not a readable zip.
    """
    held = _zip(archive)
    return Contents(
        [archive / name for name in sorted(held.files)],
        [archive / name for name in sorted(held.folders)],
        held.left_out,
    )


def members(archive: Path) -> list[Path]:
    """Return the paths of a zip's files, sorted; see `contents`."""
    return contents(archive).files


def holder(path: Path) -> Path:
    """Return the file on the disk that `path` is, or lies in; `path` itself where there is none."""
    # As text, since parents are slow to come by; os.path also takes names that no file system would.
    text = str(path)
    while not os.path.isfile(text):
        above = os.path.dirname(text)
        if above == text:
            return path
        text = above
    return Path(text)


def exists(path: Path) -> bool:
    """Return whether `path` is a file, or can be one inside of a file."""
    return os.path.isfile(path) or holder(path) != path


def stamp(path: Path) -> tuple[int, int]:
    """Return (size in bytes, time of change in ns) of the file on the disk that `path` is or lies in.

    Raises:
      DataError: there is no such file.
    """
    return _stamp(holder(path))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or a file inside of a file, for reading.

    Raises:
      DataError: there is no such file, or what holds it is damaged.
    """
    if os.path.isfile(path):
        with path.open("rb") as file:
            yield file
    else:
        yield _content(path)


def read_bytes(path: Path) -> bytes:
    """Return what a file, or a file inside of a file, holds; raises as `opened` does."""
    with opened(path) as file:
        return file.read()


def _stamp(file: Path) -> tuple[int, int]:
    try:
        state = file.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: there is no such file") from error
    return state.st_size, state.st_mtime_ns


def _content(path: Path) -> io.BytesIO:
    outer = holder(path)
    if outer == path:
        raise DataError(f"{path}: there is no such file")
    first = path.relative_to(outer).parts[0]
    found = _RANGE.fullmatch(first)
    return _range(path, outer, *map(int, found.groups())) if found else _member(path, outer)


def _range(path: Path, outer: Path, start: int, length: int) -> io.BytesIO:
    _refuse_large(path, length)
    with outer.open("rb") as file:
        if start + length > os.fstat(file.fileno()).st_size:
            raise DataError(f"{path}: {outer.name} ends before it does; restore that file")
        file.seek(start)
        return io.BytesIO(file.read(length))


def _member(path: Path, outer: Path) -> io.BytesIO:
    held = _zip(outer)
    info = held.files.get(path.relative_to(outer).as_posix())
    if info is None:
        raise DataError(f"{path}: there is no such file in {outer.name}")
    _refuse_large(path, info.file_size)
    content = io.BytesIO()
    try:
        # In small pieces, a member that holds more than it says cannot fill the memory.
        with held.archive.open(info) as member:
            shutil.copyfileobj(member, content)
    except _BROKEN as error:
        raise DataError(f"{path}: cannot be read from its zip ({error}); restore that file") from error
    content.seek(0)
    return content


def _refuse_large(path: Path, length: int) -> None:
    if length > MAX_BYTES:
        raise DataError(f"{path}: takes {length:,} bytes where at most {MAX_BYTES:,} are read")


class _Source(io.FileIO):
    """A zip file that is closed with the archive that reads from it, and refuses a list of files beyond measure."""

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_LIST:
            raise zipfile.BadZipFile(f"its list of files takes {size:,} bytes where at most {_MAX_LIST:,} are read")
        return super().read(size)

    def __del__(self) -> None:
        self.close()


class _Held(NamedTuple):
    archive: zipfile.ZipFile
    files: dict[str, zipfile.ZipInfo]
    folders: set[str]
    left_out: list[tuple[str, str]]


def _zip(path: Path) -> _Held:
    return _opened_zip(path, *_stamp(path))


@lru_cache(maxsize=8)
def _opened_zip(path: Path, _size: int, _changed: int) -> _Held:
    if not path.is_file():
        raise DataError(f"{path}: neither a folder nor a file; name a zip")
    try:
        archive = zipfile.ZipFile(_Source(path))
    except _BROKEN as error:
        raise DataError(f"{path}: not a readable zip ({error}); restore or unpack it") from error
    held = _Held(archive, {}, set(), [])
    for info in archive.infolist():
        # Some tools for Windows write its separator, which the format does not have.
        name = info.filename.replace("\\", "/")
        plain = PurePosixPath(name).as_posix()
        if why := _unusable(info, plain):
            held.left_out.append((info.filename, why))
        elif name.endswith("/"):
            held.folders.add(plain)
        else:
            if plain in held.files:
                held.left_out.append((info.filename, "a later file of the zip has the same name"))
            held.files[plain] = info
    return held


# A child process would share the open files' positions with its parent.
os.register_at_fork(after_in_child=_opened_zip.cache_clear)


def _unusable(info: zipfile.ZipInfo, name: str) -> str:
    parts = name.split("/")
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"it is compressed by method {info.compress_type}, where only deflate is read"
    if not name.strip("./") or not parts[0] or ".." in parts or _RANGE.fullmatch(parts[0]) or len(name) > _MAX_NAME:
        return "its name leads out of the zip, or can be no file's"
    return ""

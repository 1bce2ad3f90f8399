"""Files inside of files: the members of a zip, and byte ranges such as the images in a TFRecord.

A path may go on beyond a file: `pets.zip/cat/1.jpg` is the member `cat/1.jpg` of a zip, and
`pets.record/@1000+2000/1.jpg` are the 2,000 bytes from byte 1,000 on, which go by the name `1.jpg`. Nothing
is ever unpacked to the disk.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from tlx.errors import DataError

# An image file that takes more has more pixels than are decoded.
MAX_BYTES = 400_000_000
_RANGE = re.compile(r"@(\d+)\+(\d+)")
_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, NotImplementedError, EOFError, ValueError, KeyError)


def inside(holder: Path, start: int, length: int, name: str) -> Path:
    """Return the path of a byte range of the file `holder`, which goes by `name`."""
    return holder / f"@{start}+{length}" / name.replace("/", "_")


def members(archive: Path) -> list[Path]:
    """Return the paths of a zip's files, sorted, folders and encrypted members left out.

    Raises:
      DataError: the file is not a readable zip.
    """
    infos = [i for i in _zip(archive).infolist() if not (i.is_dir() or i.flag_bits & 1)]
    return [archive / name for name in sorted({info.filename for info in infos})]


def holder(path: Path) -> Path:
    """Return the file on the disk that `path` is, or lies in; `path` itself where there is none."""
    return next((p for p in (path, *path.parents) if p.is_file()), path)


def exists(path: Path) -> bool:
    """Return whether `path` is a file, or can be one inside of a file."""
    return path.is_file() or holder(path) != path


def stamp(path: Path) -> tuple[int, int]:
    """Return (size in bytes, time of change in ns) of the file on the disk that `path` is or lies in."""
    state = holder(path).stat()
    return state.st_size, state.st_mtime_ns


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, or a file inside of a file, for reading.

    Raises:
      DataError: there is no such file, or what holds it is damaged.
    """
    if path.is_file():
        with path.open("rb") as file:
            yield file
    else:
        yield io.BytesIO(_content(path))


def read_bytes(path: Path) -> bytes:
    """Return what a file, or a file inside of a file, holds; raises as `opened` does."""
    with opened(path) as file:
        return file.read()


def _content(path: Path) -> bytes:
    outer = holder(path)
    if outer == path:
        raise DataError(f"{path}: there is no such file")
    first, *rest = path.relative_to(outer).parts
    if rest and (found := _RANGE.fullmatch(first)):
        return _range(path, outer, *map(int, found.groups()))
    return _member(path, outer)


def _range(path: Path, outer: Path, start: int, length: int) -> bytes:
    if length > MAX_BYTES:
        raise DataError(f"{path}: takes {length:,} bytes where at most {MAX_BYTES:,} are read")
    with outer.open("rb") as file:
        file.seek(start)
        content = file.read(length)
    if len(content) < length:
        raise DataError(f"{path}: {outer.name} ends before it does; restore that file")
    return content


def _member(path: Path, outer: Path) -> bytes:
    archive, name = _zip(outer), path.relative_to(outer).as_posix()
    try:
        info = archive.getinfo(name)
        if info.file_size > MAX_BYTES:
            raise DataError(f"{path}: takes {info.file_size:,} bytes where at most {MAX_BYTES:,} are read")
        return archive.read(info)
    except (*_BROKEN, OSError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read from its zip ({error}); restore that file") from error


def _zip(path: Path) -> zipfile.ZipFile:
    return _opened_zip(path, *stamp(path))


@lru_cache(maxsize=8)
def _opened_zip(path: Path, _size: int, _changed: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (*_BROKEN, OSError) as error:
        raise DataError(f"{path}: not a readable zip ({error}); restore that file") from error

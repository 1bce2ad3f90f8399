"""One file of stored features: written once, checked whenever it is opened, mapped into memory.

It is a line that names tlx and the features' key, in 64 bytes; a row of numbers for each view, picture by picture; a
JSON record of what these are, with their CRC-32C; and that record's own length and CRC-32C.
"""

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import google_crc32c
import msgspec
import numpy as np

_HEAD = 64
_END = struct.Struct("<QI")
_CHUNK = 1 << 24


class DamagedError(Exception):
    """A file of features is not what it was when it was written."""


@dataclass(frozen=True)
class Layout:
    """What is stored of a picture: for each of `views` views one array of each of `shapes`, all of one dtype."""

    views: int
    shapes: tuple[tuple[int, ...], ...]
    dtype: str

    @property
    def parts(self) -> list[tuple[int, int]]:
        """Where in a row each of the arrays begins and ends, in numbers."""
        return list(pairwise(accumulate((int(np.prod(shape)) for shape in self.shapes), initial=0)))

    @property
    def bytes(self) -> int:
        """How many bytes a picture takes."""
        return self.views * self.parts[-1][1] * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Segment:
    """The pictures in a file of features, and [pictures x views, numbers] in its memory, which cannot be written to."""

    pictures: list[str]
    rows: np.ndarray


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    pictures: list[str]
    views: int
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    crc: int


def proof(key: str) -> bytes:
    """Return what every file that is stored under `key` begins with."""
    return f"made by tlx: features {key}\n".encode()


def size(layout: Layout, pictures: Sequence[str]) -> int:
    """Return about how many bytes a file of these pictures takes."""
    return _HEAD + len(pictures) * layout.bytes + sum(len(picture) + 3 for picture in pictures)


def reserve(file: int, key: str, layout: Layout, pictures: Sequence[str]) -> None:
    """Begin an empty file (a descriptor), and take the room that it needs from the disk.

    Raises:
      OSError: the disk is full.
    """
    os.pwrite(file, proof(key).ljust(_HEAD, b"\0"), 0)
    length = _HEAD + len(pictures) * layout.bytes
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, length)
    else:  # macOS
        os.ftruncate(file, length)


def write(file: int, layout: Layout, pictures: list[str], blocks: Iterable[np.ndarray]) -> None:
    """Write [n, numbers] after [n, numbers] behind the head of a file, until each view of each picture has its row."""
    crc = rows = 0
    with open(file, "r+b", closefd=False) as out:
        out.seek(_HEAD)
        for block in blocks:
            data = np.ascontiguousarray(block, layout.dtype).reshape(-1).view(np.uint8)
            out.write(data.data)
            crc, rows = google_crc32c.extend(crc, data), rows + len(block)
        if rows != len(pictures) * layout.views:
            raise ValueError(f"{rows} rows were computed for {len(pictures)} pictures of {layout.views} views")
        record = msgspec.json.encode(_Record(pictures, layout.views, layout.shapes, layout.dtype, crc))
        out.write(record + _END.pack(len(record), google_crc32c.value(record)))


def read(file: int, layout: Layout, wanted: Iterable[str]) -> Segment | None:
    """Return what a file (a descriptor) holds, or None where it has none of the wanted pictures.

    Raises:
      DamagedError: the file is not as `write` left it, or has another layout.
    """
    length = os.fstat(file).st_size
    if length < _HEAD + _END.size:
        raise DamagedError
    # Memory that is mapped is let go of together with the last array that shows it.
    mapped = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    whole = np.frombuffer(mapped, np.uint8)
    told, crc = _END.unpack(whole[-_END.size :].tobytes())
    end = length - _END.size - told
    if end < _HEAD or google_crc32c.extend(0, whole[end : -_END.size]) != crc:
        raise DamagedError
    try:
        record = msgspec.json.decode(whole[end : -_END.size].tobytes(), type=_Record)
    except msgspec.DecodeError:
        raise DamagedError from None
    data, count = whole[_HEAD:end], len(record.pictures)
    if Layout(record.views, record.shapes, record.dtype) != layout or len(data) != count * layout.bytes:
        raise DamagedError
    if set(record.pictures).isdisjoint(wanted):
        return None
    crc = 0
    for begin in range(_HEAD, end, _CHUNK):
        crc = google_crc32c.extend(crc, whole[begin : min(begin + _CHUNK, end)])
        # What was only checked shall not count as memory that this process takes.
        mapped.madvise(mmap.MADV_DONTNEED, begin - begin % mmap.PAGESIZE, _CHUNK)
    if crc != record.crc:
        raise DamagedError
    return Segment(record.pictures, data.view(layout.dtype).reshape(count * layout.views, -1))

"""TFRecord files, without TensorFlow.

A file is a row of records: the length in 8 bytes, its checksum in 4, the message, its checksum in 4, all
little-endian; a checksum is a CRC-32C, turned by 15 bits and shifted by a constant. Format:
tensorflow.org/tutorials/load_data/tfrecord.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import google_crc32c

# A message and the image in it are both in memory.
MAX_BYTES = 200_000_000
_HEAD = 12
_TAIL = 4
_GZIP = b"\x1f\x8b"
_MASK_DELTA = 0xA282EAD8


class Raw(NamedTuple):
    """One record of a file: its number from 1 on, where its message starts in the file, and the message.

    `problem` says what is wrong with it, if anything is, and then `data` is empty.
    """

    number: int
    start: int
    data: bytes
    problem: str = ""

    @property
    def where(self) -> str:
        return f"record {self.number} at byte {self.start - _HEAD}"


def scan(file: BinaryIO) -> Iterator[Raw]:
    """Yield the records of an open TFRecord file, those that are damaged with their problem.

    After a damaged message comes the next record; after a damaged length, which leaves no way to find the
    next one, comes nothing.
    """
    number, start, size = 0, _HEAD, _size(file)
    while start - _HEAD < size:
        number += 1
        head = file.read(_HEAD)
        length, problem = _length(head, size - start)
        if problem:
            yield Raw(number, start, b"", problem)
            return
        if length > MAX_BYTES:
            file.seek(length + _TAIL, 1)
            yield Raw(number, start, b"", f"takes {length:,} bytes where at most {MAX_BYTES:,} are read")
        else:
            data = file.read(length)
            sound = _masked(data) == int.from_bytes(file.read(_TAIL), "little")
            yield Raw(number, start, data if sound else b"", "" if sound else "its checksum does not fit its bytes")
        start += length + _TAIL + _HEAD


def starts_well(file: Path) -> bool:
    """Return whether a file starts with the head of a TFRecord."""
    with file.open("rb") as opened:
        return not _length(opened.read(_HEAD), _size(opened) - _HEAD)[1]


def write(file: BinaryIO, data: bytes) -> int:
    """Add one record to an open file, and return how many bytes it takes there."""
    head = struct.pack("<Q", len(data))
    for part in (head, _packed(_masked(head)), data, _packed(_masked(data))):
        file.write(part)
    return _HEAD + len(data) + _TAIL


def _size(file: BinaryIO) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _length(head: bytes, rest: int) -> tuple[int, str]:
    if head.startswith(_GZIP):
        return 0, "the file is compressed with GZIP, so that no image can be read in place; decompress it (gunzip)"
    if len(head) < _HEAD:
        return 0, "the file ends inside of it; make the file anew"
    length, checksum = struct.unpack("<QI", head)
    if _masked(head[:8]) != checksum:
        return 0, "its length is damaged, and with it the place of all that follows; make the file anew"
    if length + _TAIL > rest:
        return 0, f"takes {length:,} bytes where the file has {max(rest, 0):,} more; make the file anew"
    return length, ""


def _masked(data: bytes) -> int:
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _packed(checksum: int) -> bytes:
    return checksum.to_bytes(_TAIL, "little")

"""Files that are small, and ask for more than a reader should give."""

import io
import struct
import zipfile
import zlib
from functools import cache

from PIL import Image
from seeds import picture


@cache
def pictures() -> dict[str, bytes]:
    """Return PNG files that are damaged, or tell or hold far more pixels than they should."""
    scan, large = zlib.compress(bytes(1000)), zlib.compress(bytes(60_000_000), 1)
    return {
        "giant": _png(60_000, 60_000, (b"IDAT", scan)),
        "wide": _png(2**31 - 1, 1, (b"IDAT", scan)),
        "of no pixel": _png(0, 0, (b"IDAT", b"")),
        "without pixels": _png(100, 50),
        "of 3 bits": _png(100, 50, (b"IDAT", scan), bits=3),
        "with a text bomb": _png(100, 50, (b"zTXt", b"a\0\0" + large), (b"IDAT", b"x")),
        "with too many pixels": _png(100, 50, (b"IDAT", large)),
    }


def _png(width: int, height: int, *chunks: tuple[bytes, bytes], bits: int = 8) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), *chunks, (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def archive(*names: str, content: bytes | None = None) -> bytes:
    """Return a zip with files of these names, which all hold the same: a small picture if not told otherwise."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name in names:
            target.writestr(name, picture() if content is None else content)
    return file.getvalue()


def encrypted(content: bytes) -> bytes:
    """Return a zip whose directory says that its files are encrypted."""
    changed = bytearray(content)
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 8] |= 1
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def resized(content: bytes, size: int) -> bytes:
    """Return a zip whose directory tells another size of every file."""
    changed = bytearray(content)
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        changed[at + 24 : at + 28] = struct.pack("<I", size)
        at = content.find(b"PK\x01\x02", at + 4)
    return bytes(changed)


def animated(frames: int) -> bytes:
    """Return a GIF of many small frames."""
    file = io.BytesIO()
    first, *others = (Image.new("P", (9, 9), number % 200) for number in range(frames))
    first.save(file, "GIF", save_all=True, append_images=others)
    return file.getvalue()

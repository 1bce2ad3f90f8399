"""The fast reader of headers says what Pillow says, or nothing."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlx.data.headers import HEAD, plain_header
from tlx.data.images import _FORMATS, MAX_PIXELS, _orientation


def encoded(mode, size, format, **how):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format=format, **how)
    return buffer.getvalue()


def by_pillow(content):
    """What Pillow reads from a file's head, or None where it refuses."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            size = image.size[::-1] if _orientation(image) >= 5 else image.size
            return (*size, image.format)
    except Exception:
        return None


def plain_or_refused(content):
    """What the fast reader says, unless that is a size that Pillow and tlx refuse."""
    header = plain_header(content[:HEAD])
    return header if header and header.width * header.height <= MAX_PIXELS else None


ORDINARY = [
    encoded("RGB", (40, 24), "JPEG"),
    encoded("L", (7, 300), "JPEG", quality=30),
    encoded("CMYK", (64, 1), "JPEG", progressive=True),
    encoded("RGB", (640, 480), "JPEG", dpi=(72, 72), comment=b"drawn", optimize=True),
    *(encoded(mode, (40, 24), "PNG") for mode in ("1", "L", "RGB", "RGBA", "LA", "I;16")),
]
EXIF = Image.Exif()
EXIF[0x0112] = 6
OTHERS = [
    encoded("RGB", (40, 24), "JPEG", exif=EXIF),
    encoded("RGB", (40, 24), "PNG", exif=EXIF),
    encoded("P", (40, 24), "PNG"),
    encoded("RGB", (40, 24), "WEBP"),
    encoded("RGB", (40, 24), "JPEG", icc_profile=b"x" * 5000),
]


@pytest.mark.parametrize("content", ORDINARY)
def test_ordinary_files_are_read(content):
    assert plain_header(content[:HEAD]) == by_pillow(content)


@pytest.mark.parametrize("content", OTHERS)
def test_others_are_left_to_pillow(content):
    assert plain_header(content[:HEAD]) is None


@given(st.sampled_from(ORDINARY + OTHERS), st.data())
def test_damage_never_makes_it_say_what_pillow_does_not(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, min(len(damaged), 700) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    assert plain_or_refused(damaged) in (None, by_pillow(damaged))


def test_any_bytes_after_a_signature_are_harmless():
    rng = np.random.default_rng(0)
    for start in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"):
        for _ in range(300):
            content = start + rng.integers(0, 256, rng.integers(0, 200), np.uint8).tobytes()
            assert plain_or_refused(content) in (None, by_pillow(content))

import contextlib
import hashlib
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tlx.data.images import (
    MAX_PIXELS,
    file_hash,
    image_header,
    image_size,
    named_format,
    open_image,
    read_image,
)
from tlx.errors import DataError

QUARTERS = np.zeros((24, 40, 3), np.uint8)
QUARTERS[:12, :20] = (255, 0, 0)
QUARTERS[12:, 20:] = (0, 0, 255)


def save(path, array=QUARTERS, mode="RGB", **how):
    image = Image.fromarray(array)
    (image if image.mode == mode else image.convert(mode)).save(path, **how)
    return path


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_exif_orientation_is_applied_alike_to_size_and_pixels(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "image", format=format, exif=exif)
    # Where EXIF puts the first row and the first column of the stored pixels.
    turn = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90,
    }.get(orientation, lambda a: a)
    expected = turn(QUARTERS)
    pixels = read_image(path)
    assert image_size(path) == (expected.shape[1], expected.shape[0])
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).mean() < 8


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_content_decides_the_format_not_the_name(tmp_path, format):
    path = save(tmp_path / "lie.jpg", format=format)
    assert image_size(path) == (40, 24)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels[2, 2, 0] > 200
    assert pixels[-2, -2, 2] > 200


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("P", "GIF"), ("1", "PNG"), ("CMYK", "JPEG"), ("LA", "PNG")]
)
def test_other_modes_become_rgb(tmp_path, mode, format):
    path = save(tmp_path / "image", mode=mode, format=format)
    image = open_image(path)
    assert image.mode == "RGB"
    expected = np.asarray(Image.fromarray(QUARTERS).convert(mode).convert("RGB"))
    assert np.abs(np.asarray(image).astype(int) - expected).mean() < 8


def test_transparency_shows_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[0, 0] = (200, 10, 10, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    pixels = read_image(save(tmp_path / "a.png", rgba, "RGBA"))
    assert pixels[0, 0].tolist() == [200, 10, 10]
    assert abs(int(pixels[0, 1, 0]) - 127) <= 1
    assert pixels[3, 3].tolist() == [255, 255, 255]


def test_palette_transparency_shows_white(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    palette.save(tmp_path / "p.png", transparency=0)
    assert read_image(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]
    assert read_image(tmp_path / "p.png")[1, 1].tolist() == [10, 20, 30]


def test_16_bit_keeps_the_upper_byte(tmp_path):
    Image.fromarray(np.array([[0, 40000, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 156, 255]


def test_floating_point_is_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif.*floating-point"):
        read_image(tmp_path / "f.tif")


def huge_png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width", [MAX_PIXELS // 100 + 1, 1_200_000, 4_000_000])
@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_a_bomb_is_refused_by_its_header_without_a_warning(tmp_path, width, filters):
    (tmp_path / "bomb.png").write_bytes(huge_png(width, 100))
    with warnings.catch_warnings(record=filters == "ignore"):
        warnings.simplefilter(filters)
        for read in (image_size, open_image):
            with pytest.raises(DataError, match=r"bomb\.png: the image is too large.*reduce it"):
                read(tmp_path / "bomb.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_truncation_names_the_file(tmp_path, format):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(buffer, format=format)
    (tmp_path / "cut.img").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataError, match=r"cut\.img"):
        read_image(tmp_path / "cut.img")


@pytest.mark.parametrize("content", [b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.jpg.*not an image of a known format"):
        image_size(tmp_path / "x.jpg")


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="no such file"):
        image_size(tmp_path / "pipe.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path):
    path = save(tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(DataError, match="permissions"):
        image_size(path)


def test_a_header_tells_the_true_format(tmp_path):
    path = save(tmp_path / "a.JPG", format="PNG")
    assert image_header(path) == (40, 24, "PNG")
    assert named_format(path) == "JPEG"
    assert named_format(tmp_path / "b.c/noextension") == ""


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        image_size(tmp_path / "gone.jpg")


def test_reading_a_size_decodes_nothing(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png")

    def refuse(self):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert image_size(path) == (40, 24)


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(QUARTERS).save(buffer, format=format)
        for _ in range(40):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
            (tmp_path / "f").write_bytes(data.tobytes()[: rng.integers(1, len(data) + 1)])
            with contextlib.suppress(DataError):
                width, height = image_size(tmp_path / "f")
                assert read_image(tmp_path / "f").shape == (height, width, 3)


def test_file_hash_is_of_the_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_hash(tmp_path / "f") == hashlib.sha256(b"abc").hexdigest()

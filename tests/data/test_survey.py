"""One look at every image file: facts, errors instead of exceptions, and one look only."""

import io
import struct
import threading
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tlx.data import survey as room
from tlx.data.images import open_image
from tlx.data.similarity import relations
from tlx.data.survey import look, survey, watched_by


def noise(width=60, height=40, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png16(colour):
    """A PNG of 4 x 4 pixels with 16 bits a channel, in grey (0) or in colour (2)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = b"\0" + b"\x12\x34" * (3 if colour else 1) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(row * 4)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rotated(path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise().save(path, exif=exif)


def test_a_plain_picture_has_these_facts(tmp_path):
    noise().save(tmp_path / "a.jpg")
    seen = look(tmp_path / "a.jpg")
    assert (seen.size, seen.stored, seen.orientation) == ((60, 40), (60, 40), 1)
    assert (seen.format, seen.mode, seen.error) == ("JPEG", "RGB", "")
    assert (seen.deep, seen.transparent, seen.colourless) == (False, False, False)
    assert (seen.thumb.shape, seen.thumb.dtype, len(seen.sha256)) == ((32, 32), np.uint8, 64)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_tells_both_sizes(tmp_path, orientation):
    rotated(tmp_path / "a.jpg", orientation)
    seen = look(tmp_path / "a.jpg")
    assert (seen.stored, seen.orientation) == ((60, 40), orientation)
    assert seen.size == ((40, 60) if orientation >= 5 else (60, 40)) == open_image(tmp_path / "a.jpg").size


@pytest.mark.parametrize(
    ("name", "fact", "save"),
    [
        ("grey.jpg", "colourless", lambda path: noise().convert("L").save(path)),
        ("grey.png", "colourless", lambda path: noise().convert("L").convert("RGB").save(path)),
        ("alpha.png", "transparent", lambda path: noise().convert("RGBA").save(path)),
        ("deep.png", "deep", lambda path: path.write_bytes(png16(0))),
        ("deep_colour.png", "deep", lambda path: path.write_bytes(png16(2))),
        ("deep.tif", "deep", lambda path: Image.new("I;16", (9, 9), 40_000).save(path)),
        ("deep.ppm", "deep", lambda path: path.write_bytes(b"P6 4 4 65535\n" + bytes(4 * 4 * 6))),
    ],
)
def test_an_unusual_picture_says_so(tmp_path, name, fact, save):
    save(tmp_path / name)
    seen = look(tmp_path / name)
    assert (getattr(seen, fact), seen.error) == (True, "")


def test_cmyk_is_the_mode_of_the_file(tmp_path):
    noise().convert("CMYK").save(tmp_path / "a.jpg")
    assert look(tmp_path / "a.jpg").mode == "CMYK"


def test_what_cannot_be_read_has_an_error_and_stops_nothing(tmp_path):
    noise().save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "folder.jpg").mkdir()
    names = ("good", "short", "text", "folder", "missing")
    errors = dict(zip(names, (p.error for p in survey([tmp_path / f"{n}.jpg" for n in names])), strict=True))
    assert errors.pop("good") == ""
    for name, error in errors.items():
        assert f"{name}.jpg" in error


def test_a_member_of_a_zip_is_looked_at_in_place(tmp_path):
    content = io.BytesIO()
    noise().save(content, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/1.png", content.getvalue())
    assert look(tmp_path / "a.zip/cat/1.png").size == (60, 40)
    assert look(tmp_path / "a.zip/cat/2.png").error


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(room, "decode", lambda path, real=room.decode: decoded.append(path) or real(path))
    for name in "ab":
        noise(seed=ord(name)).save(tmp_path / f"{name}.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    survey(paths)
    relations(paths)
    relations(paths[::-1])
    assert sorted(decoded) == paths
    noise(30, 30).save(paths[0])
    assert survey(paths)[0].size == (30, 30)
    assert len(decoded) == 3


def test_the_watcher_hears_of_every_picture_and_only_within(tmp_path):
    noise().save(tmp_path / "a.png")
    heard = []
    with watched_by(lambda done, total: heard.append((done, total, threading.current_thread().name))):
        survey([tmp_path / "a.png"] * 3)
    survey([tmp_path / "a.png"])
    assert heard == [(n, 3, threading.current_thread().name) for n in (1, 2, 3)]


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_LARGE", 100)
    busy, most = [], []

    def decode(path, real=room.decode):
        busy.append(path)
        most.append(len(busy))
        try:
            return real(path)
        finally:
            busy.remove(path)

    monkeypatch.setattr(room, "decode", decode)
    for i in range(8):
        noise(seed=i).save(tmp_path / f"{i}.png")
    survey([tmp_path / f"{i}.png" for i in range(8)])
    assert max(most) == 1


def test_an_undecodable_picture_is_like_no_other(tmp_path):
    noise(seed=1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "c.png").write_text("nor this")
    (tmp_path / "d.png").write_text("no picture")
    (relation,) = relations([tmp_path / f"{name}.png" for name in "abcd"] + [tmp_path / "missing.png"])
    assert (relation.exact, relation.image, relation.others) == (True, 1, (3,))


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
def test_tall_pictures_have_no_seams_where_they_are_turned_into_rgb_strip_by_strip(tmp_path, mode):
    rng = np.random.default_rng(0)
    shape, kind = ((600, 9, 4), np.uint8) if mode == "RGBA" else ((600, 9), np.uint16)
    pixels = rng.integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.repeat((pixels >> 8)[..., None], 3, axis=2) if mode != "RGBA" else None
    if mode == "RGBA":
        alpha = pixels[..., 3:] / 255
        expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    seen = np.asarray(open_image(tmp_path / "a.png"))
    assert np.abs(seen - expected).max() <= 1

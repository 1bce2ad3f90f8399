import contextlib
import io
import multiprocessing
import os
import struct
import sys
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.data import container
from tlx.data.container import contents, exists, holder, inside, members, opened, read_bytes, stamp
from tlx.data.images import file_hash, image_size, read_image
from tlx.data.similarity import relations
from tlx.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files:
            archive.writestr(zipfile.ZipInfo(name) if name.endswith("/") else name, content)
    return path


def encoded(colour=(200, 30, 30), size=(40, 30), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def patched(path, old, new):
    """Replace bytes wherever a zip has them, such as in both of a member's headers."""
    content = path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def test_members_are_read_in_place(tmp_path):
    files = [("b/2.txt", b"two"), ("a/1.txt", b"one"), ("empty/", b"")]
    archive = zipped(tmp_path / "a.zip", files)
    assert members(archive) == [archive / "a/1.txt", archive / "b/2.txt"]
    assert contents(archive).folders == [archive / "empty"]
    assert read_bytes(archive / "a/1.txt") == b"one"
    assert holder(archive / "a/1.txt") == archive
    assert stamp(archive / "b/2.txt") == stamp(archive) == (archive.stat().st_size, archive.stat().st_mtime_ns)
    with opened(archive / "b/2.txt") as file:
        assert (file.read(1), file.read()) == (b"t", b"wo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


def test_names_of_other_tools_are_understood(tmp_path):
    archive = zipped(
        tmp_path / "a.zip", [("./a/1.txt", b"1"), ("b\\2.txt", b"2"), ("c//3.txt", b"3"), ("d e/é.txt", b"4")]
    )
    found = members(archive)
    assert [path.relative_to(archive).as_posix() for path in found] == ["a/1.txt", "b/2.txt", "c/3.txt", "d e/é.txt"]
    assert [read_bytes(path) for path in found] == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("name", ["../out.txt", "/etc/hostname", "a/../../out.txt", "@1+2/a.txt", "..", "n" * 1001])
def test_names_that_lead_elsewhere_are_left_out_by_name(tmp_path, name):
    (tmp_path / "out.txt").write_bytes(b"secret")
    archive = zipped(tmp_path / "a.zip", [(name, b"evil"), ("fine.txt", b"fine")])
    assert members(archive) == [archive / "fine.txt"]
    assert [left for left, _ in contents(archive).left_out] == [name]


def test_encrypted_and_unusual_members_are_left_out_by_name(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("open.txt", b"1"), ("secret.txt", b"2")])
    with zipfile.ZipFile(archive) as there:
        local, flags = there.getinfo("secret.txt").header_offset, struct.pack("<H", 1)
    content = bytearray(archive.read_bytes())
    central = content.rindex(b"PK\x01\x02")
    content[local + 6 : local + 8] = content[central + 8 : central + 10] = flags
    archive.write_bytes(bytes(content))
    assert members(archive) == [archive / "open.txt"]
    assert contents(archive).left_out == [("secret.txt", "it is encrypted")]
    packed = zipped(tmp_path / "b.zip", [("a.txt", b"a" * 1000)], zipfile.ZIP_LZMA)
    assert "method 14" in contents(packed).left_out[0][1]


def test_of_two_members_with_one_name_the_last_counts_and_the_other_is_told(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a.txt", b"first"), ("a.txt", b"last")])
    assert [read_bytes(path) for path in members(archive)] == [b"last"]
    assert [name for name, _ in contents(archive).left_out] == ["a.txt"]


def test_ranges_are_read_in_place(tmp_path):
    (tmp_path / "y.record").write_bytes(b"0123456789")
    path = inside(tmp_path / "y.record", 2, 3, "1.jpg")
    assert (path.name, holder(path), exists(path)) == ("1.jpg", tmp_path / "y.record", True)
    assert read_bytes(path) == b"234"
    assert read_bytes(inside(tmp_path / "y.record", 9, 1, "1.jpg")) == b"9"


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc/passwd", "a/b.jpg", "a\\b.jpg", "a\0b\n.jpg", "x" * 5000])
def test_a_range_goes_by_a_name_that_stays_where_it_is(tmp_path, name):
    (tmp_path / "y.record").write_bytes(b"0123456789")
    path = inside(tmp_path / "y.record", 2, 3, name)
    assert os.path.abspath(path) == str(path)
    assert path.parent.parent == tmp_path / "y.record"
    assert path.name.isprintable()
    assert len(path.name) <= 200
    assert read_bytes(path) == b"234"


@pytest.mark.parametrize(
    "rest", ["@5+6/a.jpg", "@10+1/a.jpg", "@999999999999999+1/a.jpg", f"@{'9' * 5000}+1/a.jpg", "@0+999999999/a.jpg"]
)
def test_a_range_beyond_the_end_or_beyond_measure_is_refused(tmp_path, rest):
    (tmp_path / "y.record").write_bytes(b"0123456789")
    with pytest.raises(DataError, match=r"y\.record"):
        read_bytes(tmp_path / "y.record" / rest)


def test_what_is_not_there_is_refused(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a.txt", b"1")])
    for path in (
        tmp_path / "no",
        tmp_path / "no.zip/a.txt",
        archive / "b.txt",
        tmp_path / ("x" * 300),
        tmp_path / "a\0",
    ):
        with pytest.raises(DataError, match="no such file"):
            read_bytes(path)
    assert not exists(tmp_path / "no.zip/a.txt")
    with pytest.raises(DataError, match="no such file"):
        stamp(tmp_path / "no")


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"not a zip at all")
    for read in (members, lambda path: read_bytes(path / "a.txt")):
        with pytest.raises(DataError, match="not a readable zip"):
            read(tmp_path / "a.zip")


def test_a_member_that_holds_more_than_it_says_does_not_fill_the_memory(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a.bin", bytes(300_000_000))])
    patched(archive, struct.pack("<I", 300_000_000), struct.pack("<I", 1000))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a\.bin.*(CRC|restore)"):
            read_bytes(archive / "a.bin")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_member_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "MAX_BYTES", 100)
    archive = zipped(tmp_path / "a.zip", [("large.bin", bytes(101)), ("small.bin", bytes(100))])
    assert read_bytes(archive / "small.bin") == bytes(100)
    with pytest.raises(DataError, match="takes 101 bytes"):
        read_bytes(archive / "large.bin")


def test_a_list_of_files_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "_MAX_LIST", 10_000)
    archive = zipped(tmp_path / "a.zip", [(f"{i}.txt", b"") for i in range(500)])
    with pytest.raises(DataError, match="list of files"):
        members(archive)


def test_a_replaced_file_is_read_anew(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a.txt", b"old")])
    assert read_bytes(archive / "a.txt") == b"old"
    zipped(tmp_path / "b.zip", [("a.txt", b"newer"), ("b.txt", b"")]).replace(archive)
    assert read_bytes(archive / "a.txt") == b"newer"
    assert len(members(archive)) == 2


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_zip_is_read_right_or_refused(tmp_path_factory, data):
    files = {"a/1.txt": b"one" * 50, "b/2.txt": b"two", "c/": b""}
    path = zipped(tmp_path_factory.mktemp("zip") / "a.zip", files.items())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    before = path.read_bytes()
    # A zip's checksum covers what a file holds, not what it is called.
    with contextlib.suppress(DataError):
        for member in members(path):
            assert member.is_relative_to(path)
            assert ".." not in member.parts
            assert read_bytes(member) in (b"", *files.values())
    assert path.read_bytes() == before


def test_threads_may_read_one_zip_at_once(tmp_path):
    files = [(f"{i}.txt", bytes([i]) * (1000 + i)) for i in range(50)]
    archive = zipped(tmp_path / "a.zip", files)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda one: read_bytes(archive / one[0]), files * 10))
    finally:
        sys.setswitchinterval(before)
    assert read == [content for _, content in files * 10]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_does_not_share_its_parents_place_in_the_file(tmp_path):
    archive = zipped(tmp_path / "a.zip", [("a.txt", b"1")])
    assert read_bytes(archive / "a.txt") == b"1"
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply(_zips_open) == 0
    assert _zips_open() > 0


def _zips_open():
    return container._opened_zip.cache_info().currsize


def test_images_in_containers_are_images_like_any_other(tmp_path):
    red, again, blue = encoded(), encoded(), encoded((10, 10, 220), (30, 40), "JPEG")
    archive = zipped(tmp_path / "a.zip", [("x/1.png", red), ("x/2.png", again), ("x/3.png", blue)])
    record = tmp_path / "y.record"
    record.write_bytes(b"head" + red + blue)
    paths = [*members(archive), inside(record, 4, len(red), "r.png"), inside(record, 4 + len(red), len(blue), "b.jpg")]
    assert [image_size(path) for path in paths] == [(40, 30), (40, 30), (30, 40), (40, 30), (30, 40)]
    assert np.array_equal(read_image(paths[0]), read_image(paths[3]))
    hashes = [file_hash(path) for path in paths]
    assert (hashes[0] == hashes[1] == hashes[3], hashes[2] == hashes[4], hashes[0] == hashes[2]) == (True, True, False)
    assert [(one.exact, one.image, one.others) for one in relations(paths, near=False)] == [
        (True, 0, (1, 3)),
        (True, 2, (4,)),
    ]


def test_a_cut_image_in_a_container_is_one_located_error(tmp_path):
    blob = encoded(kind="JPEG")
    (tmp_path / "y.record").write_bytes(blob)
    with pytest.raises(DataError, match=r"y\.record.*1\.jpg"):
        read_image(inside(tmp_path / "y.record", 0, len(blob) // 2, "1.jpg"))

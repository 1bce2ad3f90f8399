"""A file of features is read back as it was written, or not at all."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlx.segment import DamagedError, Layout, proof, read, reserve, size, write

KEY = "0" * 32
LAYOUT = Layout(2, ((2, 3), (4,)), "float32")


def written(path, layout, pictures, blocks):
    with path.open("w+b") as file:
        reserve(file.fileno(), KEY, layout, pictures)
        write(file.fileno(), layout, pictures, blocks)
    return path


def opened(path, layout, wanted):
    with path.open("rb") as file:
        return read(file.fileno(), layout, wanted)


def rows(layout, pictures, seed=0):
    return np.random.default_rng(seed).standard_normal((pictures * layout.views, layout.parts[-1][1]))


@given(
    names=st.lists(st.text(max_size=40), min_size=1, max_size=5, unique=True),
    views=st.integers(1, 4),
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "float16"]),
    at_once=st.integers(1, 7),
)
@settings(max_examples=30)
def test_what_was_written_is_read(tmp_path_factory, names, views, shapes, dtype, at_once):
    layout = Layout(views, shapes, dtype)
    expected = rows(layout, len(names)).astype(dtype)
    blocks = (expected[i : i + at_once] for i in range(0, len(expected), at_once))
    path = written(tmp_path_factory.mktemp("segment") / "file", layout, names, blocks)
    assert path.read_bytes().startswith(proof(KEY))
    assert path.stat().st_size >= size(layout, names) - 3
    found = opened(path, layout, names[-1:])
    assert found.pictures == names
    assert found.rows.dtype == dtype
    np.testing.assert_array_equal(found.rows, expected)
    assert not found.rows.flags.writeable


def test_a_file_without_any_wanted_picture_is_not_read(tmp_path):
    path = written(tmp_path / "file", LAYOUT, ["a", "b"], [rows(LAYOUT, 2)])
    assert opened(path, LAYOUT, ["c"]) is None


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_rows_than_of_views_is_refused(tmp_path, count):
    with pytest.raises(ValueError, match=r"rows were computed for 2 pictures of 2 views"):
        written(tmp_path / "file", LAYOUT, ["a", "b"], [rows(LAYOUT, count)])


def test_every_flipped_byte_behind_the_head_is_noticed(tmp_path):
    path = written(tmp_path / "file", LAYOUT, ["a", "b"], [rows(LAYOUT, 2)])
    sound = path.read_bytes()
    for at in range(64, len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        with pytest.raises(DamagedError):
            opened(path, LAYOUT, ["a"])


def test_every_other_length_is_noticed(tmp_path):
    path = written(tmp_path / "file", LAYOUT, ["a", "b"], [rows(LAYOUT, 2)])
    sound = path.read_bytes()
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(DamagedError):
            opened(path, LAYOUT, ["a"])
    path.write_bytes(sound + b"\0")
    with pytest.raises(DamagedError):
        opened(path, LAYOUT, ["a"])


@pytest.mark.parametrize(
    "other", [Layout(1, LAYOUT.shapes, "float32"), Layout(2, ((3, 2), (4,)), "float32"), Layout(2, ((20,),), "float16")]
)
def test_a_file_of_another_layout_is_not_believed(tmp_path, other):
    path = written(tmp_path / "file", LAYOUT, ["a", "b"], [rows(LAYOUT, 2)])
    with pytest.raises(DamagedError):
        opened(path, other, ["a"])


def test_room_is_taken_before_anything_is_computed(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        reserve(file.fileno(), KEY, LAYOUT, ["a", "b"])
        assert os.fstat(file.fileno()).st_blocks > 0
        assert os.fstat(file.fileno()).st_size == 64 + 2 * LAYOUT.bytes


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux")
def test_what_is_only_checked_takes_no_memory(tmp_path):
    def mapped():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssFile"))

    layout = Layout(1, ((1 << 21,),), "float32")
    path = written(tmp_path / "file", layout, [*"abcdefgh"], (np.zeros((1, 1 << 21)) for _ in range(8)))
    before = mapped()
    found = opened(path, layout, "a")
    assert mapped() - before < path.stat().st_size / 2
    assert found.rows.sum() == 0
    assert mapped() - before > path.stat().st_size / 2

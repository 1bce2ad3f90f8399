import gzip
import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.data.formats import tfrecords
from tlx.data.formats.tfexample import decode
from tlx.data.formats.tfrecords import scan, starts_well, write

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")


def written(*messages):
    file = io.BytesIO()
    for message in messages:
        write(file, message)
    return file.getvalue()


def scanned(content):
    return list(scan(io.BytesIO(content)))


def test_the_bytes_are_tensorflows():
    # Made by tf.io.TFRecordWriter.
    assert written(b"abc").hex() == "0300000000000000b099490e6162636e57f121"


def test_records_come_back_with_their_places():
    content = written(b"one", b"", b"three")
    found = scanned(content)
    assert [(raw.number, raw.data, raw.problem) for raw in found] == [(1, b"one", ""), (2, b"", ""), (3, b"three", "")]
    assert [content[raw.start : raw.start + len(raw.data)] for raw in found] == [b"one", b"", b"three"]
    assert found[2].where == "record 3 at byte 35"
    assert scanned(b"") == []


def test_after_a_damaged_message_the_next_is_read():
    content = bytearray(written(b"one", b"two", b"three"))
    content[content.index(b"two")] ^= 1
    assert [(raw.data, raw.problem) for raw in scanned(content)] == [
        (b"one", ""),
        (b"", "its checksum does not fit its bytes"),
        (b"three", ""),
    ]


def test_a_damaged_length_is_the_end():
    content = bytearray(written(b"one", b"two", b"three"))
    content[19] ^= 1
    found = scanned(content)
    assert [raw.data for raw in found] == [b"one", b""]
    assert "record 2 at byte 19" in found[1].where
    assert "length is damaged" in found[1].problem


@pytest.mark.parametrize("length", [10, 2**31, 2**63, 2**64 - 1])
def test_an_absurd_length_is_the_end(length):
    head = struct.pack("<Q", length)
    content = written(b"one") + head + tfrecords._packed(tfrecords._masked(head)) + b"123"
    found = scanned(content)
    assert [raw.data for raw in found] == [b"one", b""]
    assert f"takes {length:,} bytes where the file has 3 more" in found[1].problem


def test_a_record_beyond_measure_is_passed_over(monkeypatch):
    monkeypatch.setattr(tfrecords, "MAX_BYTES", 4)
    found = scanned(written(b"12345", b"1234"))
    assert [raw.data for raw in found] == [b"", b"1234"]
    assert "takes 5 bytes where at most 4 are read" in found[0].problem


def test_a_compressed_file_is_called_so():
    (found,) = scanned(gzip.compress(written(b"one")))
    assert "GZIP" in found.problem


@given(st.lists(st.binary(max_size=40), max_size=5), st.data())
def test_wherever_a_file_is_cut_the_records_before_are_read(messages, data):
    content = written(*messages)
    cut = data.draw(st.integers(0, len(content)))
    found = scanned(content[:cut])
    whole = [raw.data for raw in found if not raw.problem]
    assert whole == messages[: len(whole)]
    assert len(written(*messages[: len(whole) + 1])) > cut or whole == messages
    assert sum(bool(raw.problem) for raw in found) == (len(written(*whole)) < cut)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.data())
def test_wherever_a_bit_is_flipped_it_is_noticed(messages, data):
    content = bytearray(written(*messages))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    found = scanned(content)
    assert sum(bool(raw.problem) for raw in found) == 1
    assert all(raw.data in messages for raw in found if not raw.problem)


def test_the_head_tells_a_tfrecord(tmp_path):
    for content, expected in (
        (written(b"one"), True),
        (b"", False),
        (b"x" * 50, False),
        (gzip.compress(b"one"), False),
    ):
        (tmp_path / "file").write_bytes(content)
        assert starts_well(tmp_path / "file") == expected


@needs_data
def test_real_records():
    with (DATA / "tf_object_detection_api/pets_examples.record").open("rb") as file:
        found = list(scan(file))
    assert [raw.problem for raw in found] == [""] * 10
    assert list(decode(found[0].data)["image/filename"]) == [b"chihuahua_153.jpg"]

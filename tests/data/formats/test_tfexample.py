import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlx.data.formats.protos import message_class
from tlx.data.formats.tfexample import decode, encode

# What TensorFlow itself reads and writes Examples by.
EXAMPLE = message_class(
    """
    name: "example.proto"
    syntax: "proto3"
    message_type { name: "BytesList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
    message_type { name: "FloatList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
    message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
    message_type {
      name: "Feature"
      oneof_decl { name: "kind" }
      field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".BytesList" oneof_index: 0 }
      field { name: "float_list" number: 2 type: TYPE_MESSAGE type_name: ".FloatList" oneof_index: 0 }
      field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".Int64List" oneof_index: 0 }
    }
    message_type {
      name: "Features"
      field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".Features.FeatureEntry" }
      nested_type {
        name: "FeatureEntry"
        field { name: "key" number: 1 type: TYPE_STRING }
        field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".Feature" }
        options { map_entry: true }
      }
    }
    message_type { name: "Example" field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".Features" } }
    """,
    "Example",
)
LISTS = {bytes: "bytes_list", float: "float_list", int: "int64_list"}

values = st.one_of(
    st.lists(st.binary(max_size=20)),
    st.lists(st.floats(width=32, allow_nan=False)),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
)
features = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), values, max_size=6)


def by_protobuf(drawn):
    example = EXAMPLE()
    for name, content in drawn.items():
        feature = example.features.feature[name]
        if content:
            getattr(feature, LISTS[type(content[0])]).value.extend(content)
    return example


@given(features)
def test_what_protobuf_writes_is_read(drawn):
    assert decode(by_protobuf(drawn).SerializeToString()) == drawn


@given(features)
def test_protobuf_reads_what_is_written(drawn):
    filled = {name: content for name, content in drawn.items() if content}
    assert EXAMPLE.FromString(encode(drawn)).features == by_protobuf(filled).features
    assert decode(encode(drawn)) == filled


@settings(max_examples=300)
@given(features, st.data())
def test_damaged_messages_are_read_or_refused(drawn, data):
    content = bytearray(encode(drawn))
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = decode(content)
    except ValueError:
        return
    assert all(isinstance(value, bytes | float | int) for some in found.values() for value in some)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_have_some_features(content):
    try:
        found = decode(content)
    except ValueError as error:
        found = str(error)
    assert isinstance(found, dict) or "tf.train.Example" in found


def field(number, content):
    length, head = len(content), bytearray([number << 3 | 2])
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes([length]) + content


def feature(content):
    return field(1, field(1, field(1, b"a") + field(2, content)))


def test_lists_may_be_unpacked_and_in_pieces():
    assert decode(feature(field(3, b"\x08\x05\x0a\x02\x06\x07\x08\x08"))) == {"a": [5, 6, 7, 8]}
    assert decode(feature(field(2, b"\x0d\x00\x00\x80\x3f\x0a\x04\x00\x00\x00\x40"))) == {"a": [1.0, 2.0]}
    assert decode(feature(field(3, b"\x08\x05") + field(3, b"\x08\x06"))) == {"a": [5, 6]}
    assert decode(feature(field(1, field(1, b"x")) + field(3, b"\x08\x06"))) == {"a": [6]}
    assert decode(feature(field(3, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))) == {"a": [-1]}


def test_features_set_to_nothing_are_there_and_empty():
    assert decode(feature(field(2, b""))) == {"a": []}
    assert decode(feature(b"")) == {"a": []}
    assert decode(b"") == {}


@pytest.mark.parametrize(
    "bomb",
    [
        field(1, b"\x0a\x00" * 400_000),
        field(1, b"\x08\x00" * 400_000),
        feature(field(1, b"\x0a\x00" * 400_000)),
        feature(field(2, b"\x0d\x00\x00\x00\x00" * 400_000)),
        feature(field(2, field(1, bytes(2_000_000)))),
        feature(field(3, b"\x08\x00" * 400_000)),
        feature(field(3, field(1, bytes(2_000_000)))),
    ],
    ids=["entries", "unknown", "bytes", "floats", "packed floats", "integers", "packed integers"],
)
def test_millions_of_fields_are_refused(bomb):
    with pytest.raises(ValueError, match="has more than"):
        decode(bomb)

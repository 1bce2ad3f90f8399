"""`tf.train.Example` messages, without TensorFlow.

An Example holds named features, each a list of bytes, floats or integers. Format:
tensorflow/core/example/example.proto and feature.proto; protobuf.dev/programming-guides/encoding. A library for
protobuf would take ten times a hostile message's length in memory, and half a minute.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Values = Sequence[bytes] | Sequence[float] | Sequence[int]

# So many fields and list values in all; a message of 10,000 objects has fewer.
_MOST = 300_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1


def decode(data: bytes) -> dict[str, Values]:
    """Return the features of a serialized Example by name; one that is set to nothing is empty.

    Raises:
      ValueError: the bytes are no such message, or it has too many fields and values.
    """
    return dict(_Reader(data).features())


def encode(features: Mapping[str, Values]) -> bytes:
    """Return a serialized Example; a feature's first value decides its type, none means no feature."""
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _list(values)))
        for name, values in sorted(features.items())
        if len(values)
    )
    return _field(1, b"".join(entries))


class _Reader:
    """Reads a message field by field, as far as `_MOST` allows: a short message may have millions of them."""

    def __init__(self, data: bytes):
        self._data = data
        self._left = _MOST

    def features(self) -> Iterator[tuple[str, Values]]:
        for features in self._inside((0, len(self._data)), 1):
            for entry in self._inside(features, 1):
                names = list(self._inside(entry, 1))
                kind, values = 0, []
                for number, _, *lists in (one for value in self._inside(entry, 2) for one in self._fields(*value)):
                    values = values if number == kind else []
                    kind = number
                    values += self._values(kind, lists)
                yield self._text(names[-1]) if names else "", values

    def _values(self, kind: int, place: Sequence[int]) -> list:
        found: list = []
        for number, wire, start, end in self._fields(*place):
            if number != 1:
                continue
            if kind == 1 and wire == _BYTES:
                found.append(self._data[start:end])
            elif kind == 2 and wire in (_BYTES, _FIXED32):
                found += self._floats(start, end)
            elif kind == 3 and wire in (_BYTES, _VARINT):
                found += self._integers(start, end)
        return found

    def _floats(self, start: int, end: int) -> list[float]:
        count, rest = divmod(end - start, 4)
        if rest:
            raise ValueError("is no tf.train.Example (a list of floats ends inside of one)")
        self._spend(count)
        return np.frombuffer(self._data, "<f4", count, start).tolist()

    def _integers(self, at: int, end: int) -> list[int]:
        found = []
        while at < end:
            self._spend(1)
            value, at = self._varint(at, end)
            found.append(value - (value >> 63 << 64))
        return found

    def _inside(self, place: tuple[int, int], number: int) -> Iterator[tuple[int, int]]:
        """Yield where the message's fields of this number are, which hold messages or bytes."""
        return ((s, e) for found, wire, s, e in self._fields(*place) if found == number and wire == _BYTES)

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (number, wire type, start, end) of each field of the message that is at these bytes."""
        while at < end:
            self._spend(1)
            tag, start = self._varint(at, end)
            wire = tag & 7
            if wire == _VARINT:
                _, at = self._varint(start, end)
            elif wire == _BYTES:
                length, start = self._varint(start, end)
                at = start + length
            elif wire in (_FIXED64, _FIXED32):
                at = start + (8 if wire == _FIXED64 else 4)
            else:
                raise ValueError(f"is no tf.train.Example (wire type {wire} at its byte {at})")
            if at > end:
                raise ValueError("is no tf.train.Example (a field passes its end)")
            yield tag >> 3, wire, start, at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        if at < end and self._data[at] < 128:
            return self._data[at], at + 1
        value = 0
        for shift, byte in enumerate(self._data[at : min(end, at + 10)]):
            value |= (byte & 127) << 7 * shift
            if byte < 128:
                return value & _MASK, at + shift + 1
        raise ValueError(f"is no tf.train.Example (a number at its byte {at} has no end)")

    def _text(self, place: tuple[int, int]) -> str:
        try:
            return self._data[slice(*place)].decode()
        except UnicodeDecodeError as error:
            raise ValueError("is no tf.train.Example (the name of a feature is no UTF-8 text)") from error

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError(f"has more than {_MOST:,} fields and values")


def _list(values: Values) -> bytes:
    if isinstance(values[0], bytes):
        return _field(1, b"".join(_field(1, value) for value in values))
    if isinstance(values[0], float):
        return _field(2, _field(1, np.array(values, "<f4").tobytes()))
    return _field(3, _field(1, b"".join(_number(value & _MASK) for value in values)))


def _field(number: int, content: bytes) -> bytes:
    return b"".join((_number(number << 3 | _BYTES), _number(len(content)), content))


def _number(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)

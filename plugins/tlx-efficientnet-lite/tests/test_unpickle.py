"""The checkpoint reader: right on what torch writes, and closed to everything else."""

import collections
import hashlib
import io
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tlx_efficientnet_lite.unpickle import parse, read

from tlx.errors import ModelError

HEADER = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
REFUSALS = (pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError)


class Global:
    """A name of torch's that pickles without torch."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Tensor:
    def __init__(self, key, count, offset, shape, strides, dtype="FloatStorage"):
        self.storage = ("storage", Global("torch", dtype), key, "cpu", count, None)
        self.rest = (offset, shape, strides, False, collections.OrderedDict())


class Pickler(pickle._Pickler):
    """Writes stand-ins as torch writes tensors: a call of a global on a persistent id and numbers."""

    def save(self, item, *args):
        if isinstance(item, Global):
            self.write(pickle.GLOBAL + f"{item.module}\n{item.name}\n".encode())
        elif isinstance(item, Tensor):
            self.save(Global("torch._utils", "_rebuild_tensor_v2"))
            self.write(pickle.MARK)
            self.save(item.storage)
            self.write(pickle.BINPERSID)
            for part in item.rest:
                self.save(part)
            self.write(pickle.TUPLE + pickle.REDUCE)
        else:
            super().save(item, *args)


def checkpoint(state, storages, keys=None, header=HEADER):
    stream = io.BytesIO()
    for part in (*header, state, list(storages) if keys is None else keys):
        Pickler(stream, 2).dump(part)
    for values in storages.values():
        stream.write(len(values).to_bytes(8, "little") + values.tobytes())
    return stream.getvalue()


VALUES = np.arange(24, dtype="<f4")


@settings(max_examples=60)
@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=4),
    order=st.randoms(use_true_random=False),
    offset=st.integers(0, 5),
)
def test_strides_and_offsets_are_honoured(shape, order, offset):
    axes = list(range(len(shape)))
    order.shuffle(axes)
    expected = np.random.default_rng(0).random(shape).astype("<f4")
    laid = np.transpose(expected, axes)
    storage = np.concatenate([np.zeros(offset), np.ravel(laid)]).astype("<f4")
    steps = np.empty(len(shape), int)
    steps[axes] = [stride // 4 for stride in np.ascontiguousarray(laid).strides] if shape else []
    tensor = Tensor("7", len(storage), offset, tuple(shape), tuple(int(step) for step in steps))
    found = parse(checkpoint(collections.OrderedDict(x=tensor), {"7": storage}))
    np.testing.assert_array_equal(found["x"], expected)
    assert found["x"].flags.c_contiguous


def test_integers_and_scalars_are_read():
    state = {"count": Tensor("1", 1, 0, (), (), "LongStorage"), "w": Tensor("2", 24, 0, (24,), (1,))}
    found = parse(checkpoint(state, {"1": np.array([9], "<i8"), "2": VALUES}))
    assert found["count"] == 9
    assert found["count"].shape == ()


class Command:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    "planted", [Command(os.system, "touch ran"), Command(eval, "open('ran', 'w')"), Command(print)]
)
def test_no_other_global_is_ever_found(tmp_path, monkeypatch, place, planted):
    monkeypatch.chdir(tmp_path)
    parts = [*HEADER, {}, []]
    parts[place] = planted
    data = b"".join(pickle.dumps(part, 2) for part in parts)
    with pytest.raises(pickle.UnpicklingError, match=r"it asks for .*, which no weight file needs"):
        parse(data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("1", 24, 0, (25,), (1,)),
        Tensor("1", 24, 20, (5,), (1,)),
        Tensor("1", 24, -1, (5,), (1,)),
        Tensor("1", 24, 0, (5,), (-1,)),
        Tensor("1", 24, 0, (2, 2), (1,)),
        Tensor("1", 24, 0, (2, 2), (1, 23)),
        Tensor("1", 24, 0, (10**9, 10**9), (0, 0)),
        Tensor("1", 24, 0, (0,), (1,)),
        Tensor("1", 24, 0.0, (5,), (1,)),
        Tensor("1", 10**12, 0, (5,), (1,)),
        Tensor("1", -5, 0, (5,), (1,)),
        Tensor("other", 24, 0, (5,), (1,)),
    ],
)
def test_a_tensor_that_its_storage_cannot_hold_is_refused(tensor):
    with pytest.raises(REFUSALS):
        parse(checkpoint({"x": tensor}, {"1": VALUES}))


def test_another_header_or_a_longer_file_is_refused():
    state = {"x": Tensor("1", 24, 0, (24,), (1,))}
    good = checkpoint(state, {"1": VALUES})
    assert list(parse(good)) == ["x"]
    for bad in (good + b"\0", checkpoint(state, {"1": VALUES}, header=(1, *HEADER[1:])), checkpoint(state, {}, ["1"])):
        with pytest.raises(REFUSALS):
            parse(bad)


def test_every_truncation_is_refused():
    good = checkpoint({"x": Tensor("1", 24, 0, (24,), (1,))}, {"1": VALUES})
    for length in range(len(good)):
        with pytest.raises(REFUSALS):
            parse(good[:length])


def test_a_file_is_read_only_if_its_digest_is_the_published_one(tmp_path):
    data = checkpoint({"x": Tensor("1", 24, 0, (24,), (1,))}, {"1": VALUES})
    path, digest = tmp_path / "w.pth", hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path, digest)["x"], VALUES)
    path.write_bytes(data[:-1])
    with pytest.raises(ModelError, match=rf"w\.pth: sha256 \w+, expected {digest}: not the published file"):
        read(path, digest)
    with pytest.raises(ModelError, match=r"w\.pth: no readable checkpoint: .*ends within storage 1"):
        read(path, hashlib.sha256(data[:-1]).hexdigest())
    with pytest.raises(ModelError, match=r"absent\.pth: No such file"):
        read(tmp_path / "absent.pth", digest)

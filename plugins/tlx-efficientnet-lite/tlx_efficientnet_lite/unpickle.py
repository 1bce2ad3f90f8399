"""A reader of torch's first checkpoint format that needs no torch and runs nothing that a file says.

The format is three small pickles (a magic number, a protocol, the writer's system), the pickled state in
which tensors point into storages, the pickled list of the storages' keys, and then for each key an int64
count and that many little-endian values.
"""

import collections
import hashlib
import io
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlx.errors import ModelError

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    count: int


class _Tensor:
    """What a file says of a tensor: where in which storage its values lie."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any):
        numbers = (offset, *shape, *strides)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(strides):
            raise ValueError(f"a tensor of shape {shape!r} and strides {strides!r} at {offset!r}")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        # A stride of 0 could blow a few bytes up to any size.
        if not 0 < math.prod(shape) <= storage.count or last >= storage.count:
            raise ValueError(f"a tensor of shape {shape} does not fit its storage of {storage.count} values")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def read(self, values: np.ndarray) -> np.ndarray:
        steps = [stride * values.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)
        return np.ascontiguousarray(view).reshape(self.shape)


_GLOBALS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weight file needs")
        return _GLOBALS[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, _ = pid
        if kind != "storage" or dtype not in ("<f4", "<i8") or type(key) is not str or type(count) is not int:
            raise pickle.UnpicklingError(f"it points to {pid!r}")
        return _Storage(key, dtype, count)


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read a checkpoint's tensors by name, after its digest proved it to be the expected file.

    Raises:
      ModelError: the file is absent, larger than 64 MiB, another one than expected, or not of this format.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; install its package again") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ModelError(f"{path}: sha256 {digest}, expected {sha256}: not the published file; install it again")
    try:
        return parse(data)
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, LookupError, EOFError) as error:
        raise ModelError(f"{path}: no readable checkpoint: {error}") from error


def parse(data: bytes) -> dict[str, np.ndarray]:
    """Return the tensors in the bytes of a checkpoint; anything unexpected in them raises."""
    stream = io.BytesIO(data)
    magic, protocol, system = (_Unpickler(stream).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL) or system.get("little_endian") is not True:
        raise ValueError(f"magic {magic!r}, protocol {protocol!r}, system {system!r}")
    state = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
    if sorted(keys) != sorted(storages):
        raise ValueError("its storages are not those that its tensors point to")
    values = {key: _values(stream, storages[key]) for key in keys}
    if stream.read(1):
        raise ValueError("it goes on after its last storage")
    return {str(name): tensor.read(values[tensor.storage.key]) for name, tensor in state.items()}


def _values(stream: io.BytesIO, storage: _Storage) -> np.ndarray:
    count = int.from_bytes(stream.read(8), "little", signed=True)
    dtype = np.dtype(storage.dtype)
    if count != storage.count:
        raise ValueError(f"storage {storage.key} has {count} values, its tensors speak of {storage.count}")
    if count * dtype.itemsize > len(stream.getbuffer()) - stream.tell():
        raise EOFError(f"it ends within storage {storage.key}")
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype)

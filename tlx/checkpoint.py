"""Checkpoints that are either whole or not there."""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlx import ownership
from tlx.errors import TlxError

_DIGEST = 32


def write(path: Path, data: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a part.

    Raises:
      TlxError: a file of that name is there that tlx did not write.
    """
    ownership.claim(path)
    partial = ownership.partial(path)
    try:
        partial.write_bytes(data)
        settle(partial, path)
    except OSError as error:
        # A full disk does not say of which file.
        raise OSError(error.errno, error.strerror, str(path)) from None


def settle(partial: Path, path: Path) -> None:
    """Give a finished file its name, after all of it has reached the disk."""
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)


def keep(path: Path, under: Path) -> None:
    """Keep a file under a second name as well, in place of what had that name, when the first one is written anew."""
    if path.exists():
        os.link(path, ownership.fresh(under))


def save(path: Path, variables: Sequence[Any], notes: Any) -> None:
    """Write variables and JSON-able `notes` to one file: an .npz with the SHA-256 of all its bytes behind it."""
    buffer = io.BytesIO()
    arrays = {f"{i:05d}": v.numpy() for i, v in enumerate(variables)}
    np.savez(buffer, notes=np.frombuffer(json.dumps(notes).encode(), np.uint8), **arrays)
    content = buffer.getvalue()
    write(path, content + hashlib.sha256(content).digest())


def notes(path: Path) -> Any:
    """Return the notes that `save` wrote, or None where there is no file; errors as in `load`."""
    return _read(path)[0] if path.exists() else None


def load(path: Path, variables: Sequence[Any], more: bool = False) -> Any:
    """Give the variables the values that `save` wrote, and return its notes, or None where there is no file.

    With `more` the file may hold further variables behind these, which are left alone.

    Raises:
      TlxError: the file is damaged, or was written for other variables.
    """
    if not path.exists():
        return None
    found, arrays = _read(path)
    arrays = arrays[: len(variables)] if more else arrays
    if [a.shape for a in arrays] != [tuple(v.shape) for v in variables]:
        raise TlxError(f"{path} was written for another model; remove it to begin this run again")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return found


def _read(path: Path) -> tuple[Any, list[np.ndarray]]:
    data = path.read_bytes()
    content, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise TlxError(f"{path} is damaged; remove it to begin this run again")
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    return json.loads(arrays.pop("notes").tobytes()), list(arrays.values())

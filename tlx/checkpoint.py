"""Checkpoints that are either whole or not there."""

import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlx.errors import TrainingError


def write(path: Path, data: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def save(path: Path, variables: Sequence[Any], notes: Any) -> None:
    """Write variables and JSON-able `notes` to one file; the zip format keeps a checksum of each array."""
    buffer = io.BytesIO()
    arrays = {f"{i:05d}": v.numpy() for i, v in enumerate(variables)}
    np.savez(buffer, notes=np.frombuffer(json.dumps(notes).encode(), np.uint8), **arrays)
    write(path, buffer.getvalue())


def load(path: Path, variables: Sequence[Any]) -> Any:
    """Give the variables the values that `save` wrote, and return its notes, or None where there is no file.

    Raises:
      TrainingError: the file is damaged, or was written for other variables.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise TrainingError(f"{path} is damaged ({error}); remove it to begin this run again") from None
    notes = json.loads(arrays.pop("notes").tobytes())
    shapes = [tuple(v.shape) for v in variables]
    if [a.shape for a in arrays.values()] != shapes:
        raise TrainingError(f"{path} was written for another model; remove it to begin this run again")
    for variable, array in zip(variables, arrays.values(), strict=True):
        variable.assign(array)
    return notes

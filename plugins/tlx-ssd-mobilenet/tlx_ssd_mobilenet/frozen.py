"""The numbers in a frozen TensorFlow graph, read as data: nothing of the graph is ever run."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from tlx.errors import ModelError
from tlx.lazy import tf


def read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Return the float32 constants of a serialized GraphDef by the names of their nodes.

    Raises:
      ModelError: the file cannot be opened, its digest is another, or it holds no such graph.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; install its package again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(f"{path}: sha256 {found}, expected {sha256}: not the published file; install it again")
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(data)
        return {node.name: _array(node) for node in graph.node if _is_float(node)}
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: no readable frozen graph: {error}") from error


def _is_float(node: Any) -> bool:
    return node.op == "Const" and node.attr["value"].tensor.dtype == tf.float32.as_datatype_enum


def _array(node: Any) -> np.ndarray:
    tensor = node.attr["value"].tensor
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    values = np.frombuffer(tensor.tensor_content, "<f4") if tensor.tensor_content else np.array(tensor.float_val, "<f4")
    if min(shape, default=1) < 0 or values.size != int(np.prod(shape)):
        raise ValueError(f"{node.name}: {values.size} values for the shape {shape}")
    return values.reshape(shape)

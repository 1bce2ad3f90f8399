"""A backbone and a head become a detector."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.backbone import Backbone, choose_taps
from tlx.models.graph import prune
from tlx.models.weights import Restored

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclass(frozen=True, eq=False)
class Detector:
    """A built detector: float32 RGB [b, h, w, 3] in 0..255 -> the taps of `network` -> the outputs of `top`.

    `head` made `top` and knows its loss and how to decode it; `grid` is where its locations lie. `model`
    is both in one, which is what gets saved. `blocks` is the backbone's.
    """

    network: Any
    top: Any
    model: Any
    head: Any
    grid: tuple[np.ndarray, np.ndarray]
    size: tuple[int, int]
    classes: tuple[str, ...]
    blocks: str
    restored: Restored | None


def build(
    backbone: Backbone,
    head: Any,
    classes: tuple[str, ...],
    size: tuple[int, int],
    pretrained: bool = True,
    precision: Precision = "float32",
) -> Detector:
    """Build a detector for pictures of `size` (height, width), with random weights where `pretrained` is False.

    Its variables are float32 and so are its outputs, whatever `precision` its layers compute in.

    Raises:
      ConfigError: the head wants a stride that the backbone has no tap for.
      ModelError: the head gives outputs of less than float32.
    """
    with _computing_in(precision):
        return _build(backbone, head, classes, size, pretrained)


def _build(
    backbone: Backbone, head: Any, classes: tuple[str, ...], size: tuple[int, int], pretrained: bool
) -> Detector:
    base, restored = backbone.build(size, pretrained)
    taps = choose_taps(backbone.taps, head.strides, f"{backbone.name} for a head with strides {head.strides}")
    network = prune(base, taps)
    restored = restored and restored.within(network)
    shapes = [tuple(output.shape[1:]) for output in network.outputs]
    top = head.build(shapes, len(classes))
    if any(output.dtype != "float32" for output in top.outputs):
        raise ModelError(f"{type(head).__name__}: its outputs must be float32; give its last layers dtype='float32'")
    model = keras.Model(network.inputs[0], top(network.outputs), name="detector")
    return Detector(network, top, model, head, head.grid(shapes, size), size, classes, backbone.blocks, restored)


@contextlib.contextmanager
def _computing_in(precision: Precision) -> Iterator[None]:
    """Let layers that are built meanwhile compute in a precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

"""A backbone and a head become a detector."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.backbone import Backbone
from tlx.models.graph import describe_taps, prune, split_after
from tlx.models.head import BuiltHead, Head, TapShape
from tlx.models.weights import UNREADABLE, Restored, restore

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


@dataclass(frozen=True, eq=False)
class Detector:
    """A built model: float32 RGB [b, h, w, 3] in 0..255 -> the taps of `network` -> `head`.

    `network` is the backbone as far as the head reads it, and `backbone` all of it that there is, which a freeze
    policy decides about: `network`, or the whole where the head takes over the rest. `model` holds everything, which
    is what gets saved.
    `size` is the input's (height, width); `blocks` is the backbone's.
    """

    network: Any
    backbone: Any
    head: BuiltHead
    model: Any
    task: str
    size: tuple[int, int]
    classes: tuple[str, ...]
    blocks: str
    restored: Restored | None

    @property
    def head_variables(self) -> list[Any]:
        """The variables of the head that train."""
        return [variable for part in self.head.parts for variable in part.trainable_variables]


def build(
    backbone: Backbone,
    head: Head,
    classes: tuple[str, ...],
    size: tuple[int, int],
    pretrained: bool = True,
    precision: Precision = "float32",
) -> Detector:
    """Build a model for pictures of `size` (height, width), with random weights where `pretrained` is False.

    Its variables are float32, whatever `precision` its layers compute in.

    Raises:
      ConfigError: the head wants a tap that the backbone does not have.
      ModelError: the head gives outputs of less than float32, or takes over the rest of a backbone that cannot be
        split there.
    """
    with _computing_in(precision):
        chosen = head.select(backbone)
        base, restored = backbone.build(size, pretrained)
        network = prune(base, chosen)
        shapes = [TapShape(*shape) for shape in describe_taps(network, chosen).values()]
        rest = split_after(base, chosen[-1])[1] if head.takes_rest else None
        built = head.build(shapes, len(classes), size, **({"rest": rest} if rest else {}))
        if any(output.dtype != "float32" for part in built.parts for output in part.outputs):
            kind = type(head).__name__
            raise ModelError(f"{kind}: its outputs must be float32; give its last layers dtype='float32'")
        whole = _whole([network, *([rest] if rest else []), *built.parts])
    kept = base if rest else network
    restored = restored and restored.within(kept)
    return Detector(network, kept, built, whole, head.task, size, classes, backbone.blocks, restored)


def _whole(models: Sequence[Any]) -> Any:
    """Return one `keras.Model` that holds a backbone and the parts of a head side by side; it is never called."""
    inputs = [image for model in models for image in model.inputs]
    waiting = iter(inputs)
    outputs = [model([next(waiting) for _ in model.inputs]) for model in models]
    return keras.Model(inputs, keras.tree.flatten(outputs), name="detector")


def load_weights(detector: Detector, path: Path) -> None:
    """Give a model the weights that `save_weights` of its `model` wrote, or an earlier tlx did.

    Raises:
      ModelError: the file was written for another model.
    """
    if not _in_parts(path):
        # Until tlx 0.1 the layers of the backbone stood beside the head, not within one of their own.
        restore(detector.model, path, 1.0)
        return
    try:
        # By structure: two parts of a head may have layers of one name. What is missing Keras only warns of.
        with warnings.catch_warnings(action="error", category=UserWarning):
            detector.model.load_weights(path)
    except (*UNREADABLE, UserWarning) as error:
        raise ModelError(f"{path}: does not hold the weights of this model ({error})") from error


def _in_parts(path: Path) -> bool:
    """Return whether a file of weights holds them within parts of a model alone."""
    try:
        with h5py.File(path) as file:
            return not any("0" in layer.get("vars", ()) for layer in file["layers"].values())
    except UNREADABLE:
        # Which is told in better words where it is read.
        return False


@contextlib.contextmanager
def _computing_in(precision: Precision) -> Iterator[None]:
    """Let layers that are built meanwhile compute in a precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

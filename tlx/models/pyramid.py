"""Anchor-free heads: a feature pyramid, a tower over its levels, and a look from every cell of every level."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from tlx.errors import Bounds, above, at_least, refuse_values
from tlx.lazy import keras, tf
from tlx.models.assign import Locations
from tlx.models.backbone import Backbone, Form, Tap, choose_taps
from tlx.models.head import BuiltHead, Head, Size, TapShape, Tensors
from tlx.models.postprocess import Suppression


@dataclass(frozen=True)
class PyramidHead(Head):
    """What anchor-free heads can be set to, as `Gfl` says of each; `name` is the one that a head is registered by.

    Sources: Tian et al., FCOS, ICCV 2019; Lin et al., Feature Pyramid Networks, CVPR 2017; Li et al., Generalized Focal
    Loss, NeurIPS 2020.
    """

    name: ClassVar[str]

    channels: int = 64
    depth: int = 1
    strides: tuple[int, ...] = (8, 16, 32)
    taps: Form | None = None
    box_weight: float = 2.0
    max_detections: int = 100
    min_score: float = 0.01
    nms: float = 0.5

    def __post_init__(self):
        refuse_values(f"heads.{self.name}", self, self.sound)

    @property
    def sound(self) -> dict[str, Bounds | bool | str]:
        """What each setting may be, by its name, as `refuse_values` takes it."""
        in_order = len(self.strides) > 0 and list(self.strides) == sorted(set(self.strides))
        return {
            "channels": (self.channels >= 8 and self.channels % 8 == 0) or "a multiple of 8, 8 or more",
            "depth": at_least(0),
            "strides": in_order or "each once, finest first",
            "box_weight": above(0),
            "max_detections": at_least(1),
            "min_score": at_least(0, below=1),
            "nms": above(0, most=1),
        }

    @property
    def suppression(self) -> Suppression:
        """What is kept of the dense predictions."""
        return Suppression(self.max_detections, self.min_score, self.nms)

    def select(self, backbone: Backbone) -> tuple[Tap, ...]:
        """Return the taps at those of `strides` that the backbone has; the head makes what doubles beyond them."""
        coarsest = max(tap.stride for tap in backbone.taps)
        made = [stride for before, stride in pairwise(self.strides) if stride > coarsest and stride == 2 * before]
        own = [stride for stride in self.strides if stride not in made]
        return choose_taps(backbone.taps, own, f"heads.{self.name}.strides", self.taps)

    def network(self, shapes: Sequence[TapShape], outputs: dict[str, tuple[int, Any]]) -> Any:
        """Return a `keras.Model` from taps [b, h, w, c] to one array [b, n, channels] for each output.

        `outputs` has the channels of each by its name, and the bias that they begin at. The n locations are those of
        all taps, finest first, row by row. All outputs share their tower: one for each would cost a third more time,
        and gained nothing measurable.
        """
        taps = [keras.Input(shape[:3]) for shape in shapes]
        inputs = keras.Input((None, None, self.channels))
        x = tower(inputs, self.depth, self.channels)
        towers = keras.Model(inputs, [output(x, name, *how) for name, how in outputs.items()])
        levels = [towers(level) for level in pyramid(taps, self.strides, self.channels)]
        flat = [[keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])) for x in level] for level in levels]
        together = [keras.ops.concatenate(parts, axis=1) for parts in zip(*flat, strict=True)]
        return keras.Model(taps, together, name=self.name)


@dataclass(frozen=True, eq=False)
class BuiltPyramidHead(BuiltHead):
    """A `PyramidHead` with its network, a `keras.Model`, and the locations of all its levels, finest first."""

    settings: PyramidHead
    network: Any
    locations: Locations

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.network,)

    @abstractmethod
    def boxes(self, outputs: Tensors) -> Any:
        """Return the boxes [b, n, 4] that the head's outputs mean, in input pixels."""

    def predict(self, outputs: Tensors) -> Tensors:
        """Return boxes [b, n, 1, 4] in input pixels and scores [b, n, classes] in 0..1."""
        return {"boxes": self.boxes(outputs)[:, :, None], "scores": tf.sigmoid(outputs["logits"])}

    def postprocess(self, dense: Tensors) -> Tensors:
        return self.settings.suppression(dense)


def quality_focal(logits: Any, wanted: Any) -> Any:
    """Return the quality focal loss of each of `logits`, for the scores in 0..1 that are `wanted` there."""
    return tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits) * tf.abs(wanted - tf.sigmoid(logits)) ** 2


def pyramid(taps: Sequence[Any], strides: Sequence[int], channels: int) -> list[Any]:
    """Return one level [b, h, w, channels] for each of `strides`, finest first, each told of the coarser.

    `taps` [b, h, w, c] are at the first of the strides. What is beyond them is convolved from the level before.
    Source: Lin et al., Feature Pyramid Networks, CVPR 2017.
    """
    merged: list[Any] = []
    for tap, stride in reversed(list(zip(taps, strides, strict=False))):
        level = keras.layers.Conv2D(channels, 1, name=f"lateral_{stride}")(tap)
        # Backbones differ a hundredfold in the size of their activations; here that ends.
        level = keras.layers.GroupNormalization(channels // 8, name=f"lateral_{stride}_norm")(level)
        if merged:
            level = level + keras.ops.image.resize(merged[0], level.shape[1:3], interpolation="nearest")
        merged.insert(0, level)
    levels = [convolved(level, f"smooth_{stride}", channels) for level, stride in zip(merged, strides, strict=False)]
    for stride in strides[len(levels) :]:
        levels.append(convolved(levels[-1], f"coarser_{stride}", channels, 2))
    return levels


def tower(x: Any, depth: int, channels: int, name: str = "tower") -> Any:
    """Return `x` [b, h, w, channels] after `depth` convolutions."""
    for i in range(depth):
        x = convolved(x, f"{name}_{i}", channels)
    return x


def convolved(x: Any, name: str, channels: int, strides: int = 1) -> Any:
    """Return a 3x3 convolution of `x`, rectified."""
    return keras.ops.relu(_separable(x, name, channels, "he_normal", "zeros", strides=strides))


def output(x: Any, name: str, channels: int, bias: Any) -> Any:
    """Return a head's last 3x3 convolution of `x`, float32, which begins at `bias` for whatever picture."""
    weak = keras.initializers.RandomNormal(stddev=0.01)
    # In half precision a distance of 100 pixels would be off by a half.
    return _separable(x, name, channels, weak, keras.initializers.Constant(bias), dtype="float32")


def score_bias() -> float:
    """Return the logit at which scores begin: one location in a hundred is an object.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    return -np.log(99.0)


def level_shapes(taps: Sequence[TapShape], strides: Sequence[int]) -> list[TapShape]:
    """Return the shapes of the levels at `strides`: the taps', and beyond them half of the one before, rounded up."""
    found = list(taps)
    for stride in strides[len(taps) :]:
        h, w, channels, _ = found[-1]
        found.append(TapShape(-(-h // 2), -(-w // 2), channels, stride))
    return found


def locations(levels: Sequence[TapShape], size: Size) -> Locations:
    """Return the places that a head looks from: one at the centre of each cell of each level, in input pixels."""
    centres, strides = [], []
    for h, w, _, stride in levels:
        x, y = (np.arange(w) + 0.5) * size[1] / w, (np.arange(h) + 0.5) * size[0] / h
        centres.append(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
        strides.append(np.full(h * w, stride))
    return Locations(np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32))


def _separable(
    x: Any, name: str, channels: int, pointwise: Any, bias: Any, dtype: str | None = None, strides: int = 1
) -> Any:
    """Return a 3x3 convolution of `x`; a separable one takes a third of a dense one's time on a CPU."""
    layer = keras.layers.SeparableConv2D(
        channels,
        3,
        padding="same",
        strides=strides,
        # Keras counts all channels as a depthwise kernel's inputs, so its default would shrink what passes eightfold.
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / 3),
        pointwise_initializer=pointwise,
        bias_initializer=bias,
        dtype=dtype,
        name=name,
    )
    return layer(x)

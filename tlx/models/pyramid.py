"""What anchor-free heads are built of: a feature pyramid, towers over its levels, and the locations they look from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tlx.lazy import keras
from tlx.models.assign import Locations
from tlx.models.head import Size, TapShape


def pyramid(taps: Sequence[Any], strides: Sequence[int], channels: int) -> list[Any]:
    """Return one level [b, h, w, channels] for each of `taps` [b, h, w, c], finest first, each told of the coarser.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017.
    """
    merged: list[Any] = []
    for tap, stride in reversed(list(zip(taps, strides, strict=True))):
        level = keras.layers.Conv2D(channels, 1, name=f"lateral_{stride}")(tap)
        # Backbones differ a hundredfold in the size of their activations; here that ends.
        level = keras.layers.GroupNormalization(channels // 8, name=f"lateral_{stride}_norm")(level)
        if merged:
            level = level + keras.ops.image.resize(merged[0], level.shape[1:3], interpolation="nearest")
        merged.insert(0, level)
    return [convolved(level, f"smooth_{stride}", channels) for level, stride in zip(merged, strides, strict=True)]


def tower(x: Any, depth: int, channels: int, name: str = "tower") -> Any:
    """Return `x` [b, h, w, channels] after `depth` convolutions."""
    for i in range(depth):
        x = convolved(x, f"{name}_{i}", channels)
    return x


def convolved(x: Any, name: str, channels: int) -> Any:
    """Return a 3x3 convolution of `x`, rectified."""
    return keras.ops.relu(_separable(x, name, channels, "he_normal", "zeros"))


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


def locations(taps: Sequence[TapShape], size: Size) -> Locations:
    """Return the places that a head looks from: one at the centre of each cell of each tap, in input pixels."""
    centres, strides = [], []
    for h, w, _, stride in taps:
        x, y = (np.arange(w) + 0.5) * size[1] / w, (np.arange(h) + 0.5) * size[0] / h
        centres.append(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
        strides.append(np.full(h * w, stride))
    return Locations(np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32))


def _separable(x: Any, name: str, channels: int, pointwise: Any, bias: Any, dtype: str | None = None) -> Any:
    """Return a 3x3 convolution of `x`; a separable one takes a third of a dense one's time on a CPU."""
    layer = keras.layers.SeparableConv2D(
        channels,
        3,
        padding="same",
        # Keras counts all channels as a depthwise kernel's inputs, so its default would shrink what passes eightfold.
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / 3),
        pointwise_initializer=pointwise,
        bias_initializer=bias,
        dtype=dtype,
        name=name,
    )
    return layer(x)

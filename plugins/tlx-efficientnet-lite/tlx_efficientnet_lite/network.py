"""EfficientNet-Lite: EfficientNet without squeeze-and-excite, with ReLU6 and a stem of fixed width.

Source: Tan and Le, "EfficientNet" (ICML 2019), and the Lite variants published in tensorflow/tpu.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tlx.lazy import keras
from tlx.models.backbone import Depth, Tap, expansions, tap_table


@dataclass(frozen=True)
class Block:
    """One inverted bottleneck; `name` is its stage and its letter within it, such as "block3a"."""

    name: str
    kernel: int
    stride: int
    expand: int
    channels: int
    shortcut: bool

    @property
    def output(self) -> str:
        """The name of the layer that the block ends with."""
        return f"{self.name}_{'add' if self.shortcut else 'project_bn'}"


# (blocks, kernel, stride, expansion, channels) of each stage before scaling.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM = 32
_TOP = 1280
BLOCKS = r"^(stem|block\d[a-z]|top)_"


def blocks(width: float, depth: float) -> Iterator[Block]:
    """Yield the blocks of a variant in order; the first and the last stage are never deepened."""
    for stage, (count, kernel, stride, expand, channels) in enumerate(_STAGES, 1):
        repeats = count if stage in (1, len(_STAGES)) else math.ceil(count * depth)
        for i in range(repeats):
            name = f"block{stage}{chr(ord('a') + i)}"
            yield Block(name, kernel, stride if i == 0 else 1, expand, _round(channels * width), shortcut=i > 0)


def _round(channels: float) -> int:
    """Return the nearest multiple of 8 that is not more than a tenth too narrow."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def taps(width: float, depth: float) -> tuple[tuple[Tap, ...], Tap]:
    """Return the taps at strides 4, 8, 16 and 32, and the one behind the last layer; see `tap_table`.

    Behind these come the two wide activations of each block from stage 3 on, such as "block5a_expand" and
    "block5a_depthwise".
    """
    ends = {block.name[5]: block.output for block in blocks(width, depth)}
    stages = {4: ends["2"], 8: ends["3"], 16: ends["5"], 32: ends["7"]}
    taps, final = tap_table(stages, "top_relu6", expansions(stages, "top_relu6", "expand_relu6"))
    depths = _depths(width, depth)
    *known, final = (replace(tap, depth=depths[tap.layer]) for tap in (*taps, *_wide(width, depth), final))
    return tuple(sorted(known, key=lambda tap: tap.stride)), final


def _wide(width: float, depth: float) -> Iterator[Tap]:
    stride = 2
    for block in blocks(width, depth):
        for part, behind in (("expand", stride), ("depthwise", stride * block.stride)):
            if block.name[5] >= "3":
                yield Tap(f"{block.name}_{part}", behind, f"{block.name}_{part}_relu6")
        stride *= block.stride


def _depths(width: float, depth: float) -> dict[str, Depth]:
    """Return how deep each layer is whose output a tap may be; the stem is the first of all."""
    depths, layers, number = {}, 1, 1
    for number, block in enumerate(blocks(width, depth), 2):
        for part in ("expand", "depthwise")[block.expand == 1 :]:
            layers += 1
            depths[f"{block.name}_{part}_relu6"] = Depth(layers, number)
        layers += 1
        depths[block.output] = Depth(layers, number)
    return depths | {"top_relu6": Depth(layers + 1, number + 1)}


def build(name: str, width: float, depth: float, size: tuple[int, int]) -> Any:
    """Return the network without its classifier as a functional `keras.Model` with random weights.

    `size` is (height, width). The input is float32 RGB [b, h, w, 3] in 0..255, the output that of the last
    convolution, [b, ceil(h / 32), ceil(w / 32), 1280].
    """
    image = keras.Input((*size, 3), name="image")
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(image)
    x = _convolve(keras.layers.Conv2D(_STEM, 3, strides=2, **_same("stem_conv")), x, "stem")
    for block in blocks(width, depth):
        x = _bottleneck(block, x)
    # With a seed of its own it draws none: a head on the blocks starts from the values that it has without this layer.
    alone = keras.initializers.GlorotUniform(seed=0)
    x = _convolve(keras.layers.Conv2D(_TOP, 1, kernel_initializer=alone, **_same("top_conv")), x, "top")
    return keras.Model(image, x, name=name)


def _bottleneck(block: Block, entry: Any) -> Any:
    name, x = block.name, entry
    if block.expand > 1:
        x = _convolve(
            keras.layers.Conv2D(x.shape[-1] * block.expand, 1, **_same(f"{name}_expand_conv")), x, f"{name}_expand"
        )
    depthwise = keras.layers.DepthwiseConv2D(block.kernel, strides=block.stride, **_same(f"{name}_depthwise_conv"))
    x = _convolve(depthwise, x, f"{name}_depthwise")
    x = keras.layers.Conv2D(block.channels, 1, **_same(f"{name}_project_conv"))(x)
    x = _normalize(f"{name}_project")(x)
    return keras.layers.Add(name=f"{name}_add")([entry, x]) if block.shortcut else x


def _same(name: str) -> dict[str, Any]:
    return {"padding": "same", "use_bias": False, "name": name}


def _normalize(name: str) -> Callable[[Any], Any]:
    return keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")


def _convolve(convolution: Callable[[Any], Any], x: Any, name: str) -> Any:
    return keras.layers.ReLU(max_value=6, name=f"{name}_relu6")(_normalize(name)(convolution(x)))

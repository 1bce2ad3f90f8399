"""What a backbone is: a pretrained network that owns its preprocessing and names its pyramid taps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlx.models.weights import Restored


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, described but not yet built.

    `build((height, width), pretrained=True)` returns a functional `keras.Model` whose input is float32 RGB
    [b, h, w, 3] in 0..255: the network's own preprocessing is part of it. The second value that it returns
    says what the pretrained weights covered, and is None for random ones, which `pretrained=False` asks for.
    `taps` names, by stride, the layers whose outputs feed the pyramid. `blocks` is a regular expression;
    layers whose names give the same text for its first group form one block, and any other layer belongs to
    the block before it.
    """

    name: str
    build: Callable[..., tuple[Any, Restored | None]]
    taps: Mapping[int, str]
    blocks: str

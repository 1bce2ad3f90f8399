"""What a backbone is: a pretrained network that owns its preprocessing and names its taps."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tlx.errors import MisfitError, suggest
from tlx.models.weights import Restored


class Depth(NamedTuple):
    """How many weight layers and blocks a network has up to a tap: what a freeze policy counts, its own included."""

    weight_layers: int
    blocks: int


@dataclass(frozen=True)
class Tap:
    """A place in a backbone where a head may take its output, known before the network is built.

    `stride` is how many pixels of the picture one step of the output is, and `layer` the layer whose output it is.
    `pool` asks for the average or the maximum over the whole picture, [b, c], instead of the map [b, h, w, c].
    `depth` is how much of the network computes it, if that is known before the network is built.
    """

    name: str
    stride: int
    layer: str
    pool: Literal["avg", "max"] | None = None
    depth: Depth | None = None


@dataclass(frozen=True)
class Backbone:
    """A pretrained network, described but not yet built.

    `build((height, width), pretrained=True)` returns a functional `keras.Model` whose input is float32 RGB
    [b, h, w, 3] in 0..255 and whose output is that of `final`: the network's own preprocessing is part of it, a
    classifier is not. The second value that it returns says what the pretrained weights covered, and is None for
    random ones, which `pretrained=False` asks for.

    `taps` are the places that feed a head, those of a finer stride first; where there are several at one stride,
    the first is the one that serves a feature pyramid: the end of the last block at that stride. `final` is behind
    the network's last layer. `blocks` is a regular expression; layers whose names give the same text for its first
    group form one block, and any other layer belongs to the block before it.
    """

    name: str
    build: Callable[..., tuple[Any, Restored | None]]
    taps: tuple[Tap, ...]
    final: Tap
    blocks: str


def tap_table(
    ends: Mapping[int, str],
    final: str | None = None,
    expansion: str | None = None,
    depths: Sequence[tuple[int, int]] | None = None,
) -> tuple[tuple[Tap, ...], Tap]:
    """Return a backbone's `taps` and `final` from the names of its layers.

    `ends` names by stride the layers that end a stage, finest first: the taps "stride4", "stride8" and so on. `final`
    names the network's last layer where that is not the last of `ends`. A network of inverted residual blocks has
    "expanded" taps as well, from stride 8 on: the wide activation in the first block of the next stage, which is still
    at this stride, and at the last stride that of `final`. `expansion` is the part of its name behind the block's.
    `depths` are those of all taps in order, `final` last.

    Source: Liu et al., SSD, ECCV 2016, as the TensorFlow Object Detection API has it on MobileNets.
    """
    last = max(ends)
    behind = Tap("final", last, final or ends[last])
    taps = []
    for stride, layer in ends.items():
        taps.append(Tap(f"stride{stride}", stride, layer))
        # At stride 4 some families expand and halve in one convolution.
        if expansion and stride >= 8:
            wide = behind.layer if stride == last else f"{_next_block(layer)}_{expansion}"
            taps.append(Tap(f"expanded{stride}", stride, wide))
    if depths:
        *taps, behind = (replace(tap, depth=Depth(*depth)) for tap, depth in zip((*taps, behind), depths, strict=True))
    return tuple(taps), behind


def _next_block(layer: str) -> str:
    """Return the block after that of a layer: "block_6" for "block_5_add", "block4a" for "block3b_add"."""
    prefix, number, letter = re.match(r"(\D+)(\d+)([a-z]?)_", layer).groups()
    return f"{prefix}{int(number) + 1}{letter and 'a'}"


def choose_taps(taps: Sequence[Tap], wanted: Iterable[int | str], owner: str) -> tuple[Tap, ...]:
    """Return the taps that are wanted, in that order: by name, or by stride, which means the first at that stride.

    `owner` is who wants them, such as "heads.fcos.strides", for messages.

    Raises:
      MisfitError: there is no such tap.
    """
    found = []
    for want in wanted:
        tap = next((tap for tap in taps if want in (tap.name, tap.stride)), None)
        if tap is None:
            if isinstance(want, str):
                offered = ", ".join(f"{tap.name} (stride {tap.stride})" for tap in taps)
                what = f"tap {want!r}{suggest(want, [tap.name for tap in taps])}; it has {offered}"
            else:
                offered = ", ".join(map(str, dict.fromkeys(tap.stride for tap in taps)))
                what = f"tap at stride {want}; it has taps at strides {offered}"
            raise MisfitError(f"{owner}: the backbone has no {what}")
        found.append(tap)
    return tuple(found)

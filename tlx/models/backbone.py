"""What a backbone is: a pretrained network that owns its preprocessing and names its taps."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tlx.errors import MisfitError, suggest
from tlx.models.weights import Restored

# Which of a stride's taps a head takes: the end of its last block, or the widest activation.
Form = Literal["ends", "expanded"]
_FORMS = {"ends": "stride", "expanded": "expanded"}


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
    the first is the one that a feature pyramid takes unless its head says which `Form` it wants. `final` is behind
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
    wide: Mapping[int, str] | None = None,
    depths: Sequence[tuple[int, int]] | None = None,
) -> tuple[tuple[Tap, ...], Tap]:
    """Return a backbone's `taps` and `final` from the names of its layers.

    `ends` names by stride the layers that end a stage, finest first: the taps "stride4", "stride8" and so on. `wide`
    names by stride the widest activations, which are within blocks: the taps "expanded4", "expanded8" and so on. Where
    a network has none, because its blocks end as wide as they get, these are the ends, too. `final` names the
    network's last layer where that is not the last of `ends`. `depths` are those of all layers named, in the order of
    the taps, `final` last.
    """
    last = max(ends)
    behind = Tap("final", last, final or ends[last])
    pairs = [(stride, end, (wide or ends)[stride]) for stride, end in ends.items()]
    taps = [
        tap
        for stride, end, widest in pairs
        for tap in (Tap(f"stride{stride}", stride, end), Tap(f"expanded{stride}", stride, widest))
    ]
    if depths:
        layers = dict.fromkeys(tap.layer for tap in (*taps, behind))
        known = dict(zip(layers, depths, strict=True))
        *taps, behind = (replace(tap, depth=Depth(*known[tap.layer])) for tap in (*taps, behind))
    return tuple(taps), behind


def expansions(ends: Mapping[int, str], final: str, part: str) -> dict[int, str]:
    """Return the `wide` of `tap_table` for a network of inverted residual blocks.

    At each stride that is the activation in the first block of the next stage, which has not halved yet, and at the
    last one that of `final`. `part` is what its name has behind the block's.

    Source: Liu et al., SSD, ECCV 2016, as the TensorFlow Object Detection API has it on MobileNets.
    """
    last = max(ends)
    return {stride: final if stride == last else f"{_next_block(end)}_{part}" for stride, end in ends.items()}


def _next_block(layer: str) -> str:
    """Return the block after that of a layer: "block_6" for "block_5_add", "block4a" for "block3b_add"."""
    prefix, number, letter = re.match(r"(\D+)(\d+)([a-z]?)_", layer).groups()
    return f"{prefix}{int(number) + 1}{letter and 'a'}"


def choose_taps(
    taps: Sequence[Tap], wanted: Iterable[int | str], owner: str, form: Form | None = None
) -> tuple[Tap, ...]:
    """Return the taps that are wanted, in that order: by name, or by stride.

    At a stride that is the one of this form, or the first where no form is given. `owner` is who wants them, such as
    "heads.fcos.strides", for messages.

    Raises:
      MisfitError: there is no such tap.
    """
    formed = [tap for tap in taps if form is None or tap.name == f"{_FORMS[form]}{tap.stride}"]
    found = []
    for want in wanted:
        there = taps if isinstance(want, str) else formed
        tap = next((tap for tap in there if want in (tap.name, tap.stride)), None)
        if tap is None:
            if isinstance(want, str):
                offered = ", ".join(f"{tap.name} (stride {tap.stride})" for tap in taps)
                what = f"tap {want!r}{suggest(want, [tap.name for tap in taps])}; it has {offered}"
            else:
                offered = ", ".join(map(str, dict.fromkeys(tap.stride for tap in there))) or "none"
                kind = f" of the form {form!r}" if form else ""
                what = f"tap{kind} at stride {want}; it has taps{kind} at strides {offered}"
            raise MisfitError(f"{owner}: the backbone has no {what}")
        found.append(tap)
    return tuple(found)

"""Test-time fusion: pictures are looked at in several ways, and what these show becomes one prediction."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from tlx.augment import Augmentation, Resize
from tlx.augment.flips import Flip
from tlx.data.dataset import Dataset
from tlx.engines.engine import Engine
from tlx.errors import ConfigError
from tlx.features import settle
from tlx.models.detector import Detector
from tlx.models.graph import Cut
from tlx.pipeline import Views
from tlx.predict import predict
from tlx.tasks.task import task_of
from tlx.windows import Windows

MIRROR = "mirror"
_STEP = 32


@dataclass(frozen=True)
class Fusion:
    """In which ways pictures are looked at, beside as they are.

    `mirror` adds their mirror images, and `scales` inputs that are so many times as large, for which the network is
    built anew with the same weights.
    """

    mirror: bool = False
    scales: tuple[float, ...] = ()

    @classmethod
    def of(cls, text: str, setting: str) -> "Fusion":
        """Return what a list such as "mirror,0.75,1.25" names; `setting` is what an error calls it.

        Raises:
          ConfigError: something in it is neither "mirror" nor a scale from 0.25 to 4 other than 1.
        """
        names = [name.strip() for name in text.split(",")]
        try:
            scales = tuple(float(name) for name in names if name != MIRROR)
        except ValueError:
            scales = (0.0,)
        if not all(0.25 <= scale <= 4 and scale != 1 for scale in scales):
            raise ConfigError(
                f"{setting}={text}: expected 'mirror', scales from 0.25 to 4 beside 1, or both: 'mirror,1.25'"
            )
        return cls(MIRROR in names, scales)

    def ways(self, size: tuple[int, int]) -> list[tuple[tuple[int, int], Augmentation | None]]:
        """Return each input's (height, width), in multiples of 32, and what is done to pictures, as they are first."""
        height, width = size
        sizes = [tuple(max(1, round(side * scale / _STEP)) * _STEP for side in size) for scale in self.scales]
        # Scales may come to one size; what is seen twice would count double.
        each = dict.fromkeys([(height, width), *sizes])
        return [(one, how) for one in each for how in ([None, Flip(1.0)] if self.mirror else [None])]


def looks(
    fusion: Fusion,
    reopened: Callable[[tuple[int, int]], tuple[Detector, Cut]],
    size: tuple[int, int],
    dataset: Dataset,
    batch: int,
    engine: Engine,
    resize: Resize,
    windows: Windows,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[list[Any], float]]:
    """Yield the predictions for every picture of a dataset in each way, as they are first, and the seconds they took.

    Building a network and choosing an engine for it, which is done once for an input, does not count. `reopened`
    returns the trained network for an input of some (height, width); the rest is as `predict` has it.
    """
    for one, group in groupby(fusion.ways(size), key=itemgetter(0)):
        detector, cut = reopened(one)
        settled = settle(engine, cut, Views(dataset, one, resize=resize, windows=windows))
        say(f"frozen layers are computed by {settled}")
        for _, augment in group:
            began = time.monotonic()
            found = predict(detector, cut, dataset, batch, settled, resize, windows, augment)
            yield found, time.monotonic() - began


def fuse(seen: Sequence[Sequence[Any]], dataset: Dataset) -> list[Any]:
    """Return one prediction for each picture of a dataset, from one or several."""
    task = task_of(dataset.task)
    return [task.fuse(one) if len(one) > 1 else one[0] for one in zip(*seen, strict=True)]

"""The input size that the boxes of a dataset ask for, and what other sizes would show of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tlx.data.dataset import Dataset, Example
from tlx.errors import DataError
from tlx.tiles import MOST_ENLARGED, Tiles

# A box with a shorter side than this, in pixels of the input, is less than one cell of the finest level of a head.
LEAST = 8.0
# So many of the boxes are to be at least that large.
ENOUGH = 0.95
# What other sizes are compared with, and the longer side of the smallest and the largest that is chosen.
USUAL, SMALLEST, LARGEST = 320, 320, 1024
# Of what sides are multiples: the coarsest stride.
_STEP = 32
# Where at least this share of the pictures is upright, and this share is not, an input is square.
_MINORITY = 0.1
# Tiles that are advised are one of these, and at least so many times as long as most objects.
_TILES, _ROOM = (320, 480, 640, 960, 1280), 4.0
# What they share is as long as most objects, in steps and between bounds.
_SHARED, _LEAST_SHARED, _MOST_SHARED = 0.05, 0.1, 0.5


@dataclass(frozen=True, eq=False)
class Boxed:
    """The boxes that count of some pictures, as they are brought to an input: whole, or tile by tile."""

    examples: Sequence[Example]
    tiles: Tiles | None = None

    @cached_property
    def frames(self) -> np.ndarray:
        """The (width, height) of what is brought to the input of each picture."""
        sides = np.array([(e.width, e.height) for e in self.examples], np.float64).reshape(-1, 2)
        return sides if self.tiles is None else np.minimum(sides, self.tiles.height_width[::-1])

    @cached_property
    def sides(self) -> np.ndarray:
        """The (shorter, longer) side of each box, in pixels of its picture."""
        counted = [e.objects.boxes[~e.objects.ignore] for e in self.examples]
        boxes = np.concatenate([np.zeros((0, 4)), *counted])
        return np.sort(boxes[:, 2:] - boxes[:, :2], axis=1)

    @cached_property
    def _of(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.examples)), [int((~e.objects.ignore).sum()) for e in self.examples])

    def small(self, size: tuple[int, int]) -> float:
        """Return the share of the boxes whose shorter side is under `LEAST` in an input of `size`, (height, width)."""
        scale = (np.array(size[::-1]) / self.frames).min(1)[self._of]
        return float((self.sides[:, 0] * scale < LEAST).mean())

    @cached_property
    def aspect(self) -> float:
        """The width of a typical frame as a share of its height; 1 where some lie and some stand."""
        ratios = np.log(self.frames[:, 0] / self.frames[:, 1])
        low, high = np.quantile(ratios, (_MINORITY, 1 - _MINORITY))
        return 1.0 if low * high < 0 else float(np.exp(np.median(ratios)))

    def shaped(self, longer: int) -> tuple[int, int]:
        """Return the (height, width) of an input in the shape of a typical frame, whose longer side is `longer`."""
        shorter = max(_STEP, round(longer * min(self.aspect, 1 / self.aspect) / _STEP) * _STEP)
        return (shorter, longer) if self.aspect > 1 else (longer, shorter)


@dataclass(frozen=True)
class Sizing:
    """An input's `size`, (height, width), that was chosen by `boxes` boxes, and why.

    `small` is the share of them that are still small in it, and `usual` the share at 320 pixels.
    """

    size: tuple[int, int]
    boxes: int
    small: float
    usual: float

    @property
    def cost(self) -> float:
        """How many times as many pixels it has as 320 x 320, and so about how much longer a run takes."""
        return self.size[0] * self.size[1] / USUAL**2

    def __str__(self) -> str:
        height, width = self.size
        seen = f"{1 - self.small:.0%} of {self.boxes} boxes are at least {LEAST:g} px on their shorter side"
        beside = f"({1 - self.usual:.0%} at {USUAL} x {USUAL}), for {self.cost:.2g} times the time and memory of that"
        more = "" if self.small <= 1 - ENOUGH else "; run.tiles would show more"
        return f"run.image_size = 'auto': {width} x {height} px, where {seen} {beside}{more}"


def choose(dataset: Dataset, tiles: Tiles | None = None) -> Sizing:
    """Return the smallest input in which 95 % of the boxes are at least 8 pixels on their shorter side.

    It has the shape of the pictures, or of their tiles, and its longer side is 320 to 1024 pixels; where even the
    largest does not do, it is that.

    Raises:
      DataError: the dataset has no boxes that count.
    """
    boxed = Boxed(dataset.examples, tiles)
    if not len(boxed.sides):
        raise DataError(
            f"run.image_size = 'auto' is chosen by boxes, and {dataset.name} has none that count: give pixels, such as"
            f" run.image_size = {USUAL}"
        )
    size = _chosen(boxed)
    return Sizing(size, len(boxed.sides), boxed.small(size), boxed.small((USUAL, USUAL)))


def _chosen(boxed: Boxed) -> tuple[int, int]:
    side = max(boxed.tiles.height_width) if boxed.tiles else LARGEST
    most = min(LARGEST, int(MOST_ENLARGED * side) // _STEP * _STEP)
    sizes = [boxed.shaped(longer) for longer in range(min(SMALLEST, most), most + 1, _STEP)]
    return next((size for size in sizes if boxed.small(size) <= 1 - ENOUGH), sizes[-1])


@dataclass(frozen=True)
class Advice:
    """The input size, and the tiles if any, that show enough of the boxes of some pictures.

    `small` says by what pictures are seen as, in words, which share of the boxes is under 8 pixels there; `bindings`
    are what is advised, and `windows` how many a typical picture then has.
    """

    small: dict[str, float]
    bindings: tuple[str, ...]
    windows: int = 1

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.0%} {way}" for way, share in self.small.items())
        cost = f" ({self.windows} windows a picture)" if self.windows > 1 else ""
        small = f"boxes under {LEAST:g} px on their shorter side: {shares}"
        return f"{small}\nadvice: {'; '.join(self.bindings)}{cost}"


def advise(examples: Sequence[Example]) -> Advice | None:
    """Return which input size, and which tiles, pictures ask for; None where no box counts."""
    boxed = Boxed(examples)
    if not len(boxed.sides):
        return None
    size = _chosen(boxed)
    small = {_at(side): boxed.small(side) for side in dict.fromkeys([(USUAL, USUAL), (2 * USUAL, 2 * USUAL), size])}
    tiles = _tiles(boxed) if boxed.small(size) > 1 - ENOUGH else None
    if tiles is None:
        return Advice(small, (f"run.image_size = {size}",))
    cut = Boxed(examples, tiles)
    size = _chosen(cut)
    small[f"in tiles of {tiles.size} px {_at(size)}"] = cut.small(size)
    bindings = ("run.tiles = @tiles()", f"tiles.size = {tiles.size}", f"tiles.overlap = {tiles.overlap:g}")
    windows = int(np.median([len(tiles(e.width, e.height)) for e in examples]))
    return Advice(small, (f"run.image_size = {size}", *bindings), windows)


def _at(size: tuple[int, int]) -> str:
    return f"at {size[1]} x {size[0]}"


def _tiles(boxed: Boxed) -> Tiles | None:
    """Return tiles in which most objects have room; None where no picture is larger than these."""
    longest = float(np.quantile(boxed.sides[:, 1], ENOUGH))
    side = next((side for side in _TILES if side >= _ROOM * longest), _TILES[-1])
    overlap = float(np.clip(np.ceil(longest / side / _SHARED) * _SHARED, _LEAST_SHARED, _MOST_SHARED))
    return Tiles(side, round(overlap, 2)) if (boxed.frames > side).any() else None

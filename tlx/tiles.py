"""Tiles: large pictures are cut into overlapping windows of one size."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from tlx.data.dataset import Dataset
from tlx.errors import MisfitError, at_least, refuse_values
from tlx.registry import rooms
from tlx.windows import Window

# Enlarged by more than this, a tile shows nothing that it did not show before.
MOST_ENLARGED = 4.0


@rooms.register("tiles")
@dataclass(frozen=True)
class Tiles:
    """How large pictures are cut up.

    `size` is the side of a square tile, or (height, width), in pixels of the upright picture. Tiles cover a picture
    evenly: neighbours share at least `overlap` of a side, 0 to 0.9, and an object that is no longer than what they
    share is whole in one of them. A picture that is smaller than a tile is one window, and so is its shorter side.
    `whole` adds the whole picture as a window of its own, for objects larger than a tile. `empty` is how many tiles
    without an object are trained on for each with some, drawn once for a run; all are predicted.
    """

    size: int | tuple[int, int]
    overlap: float = 0.2
    empty: float = 1.0
    whole: bool = False

    def __post_init__(self):
        size = min(self.height_width) >= 32 or "32 pixels or more to each side"
        refuse_values("tiles", self, {"size": size, "overlap": at_least(0, most=0.9), "empty": at_least(0)})

    @property
    def height_width(self) -> tuple[int, int]:
        """A tile's height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __call__(self, width: int, height: int) -> Sequence[Window]:
        """Return a picture's windows, row by row, and at last the whole picture if it is wanted."""
        tall, wide = self.height_width
        rows, columns = self._spans(height, tall), self._spans(width, wide)
        cut = [Window(x0, y0, x1, y1) for (y0, y1), (x0, x1) in product(rows, columns)]
        return [*cut, Window(0, 0, width, height)] if self.whole and len(cut) > 1 else cut

    def _spans(self, length: int, tile: int) -> list[tuple[int, int]]:
        if tile >= length:
            return [(0, length)]
        step = max(1, int(tile * (1 - self.overlap)))
        count = -(-(length - tile) // step) + 1
        starts = np.linspace(0, length - tile, count).round().astype(int).tolist()
        return [(start, start + tile) for start in starts]

    def refuse_larger(self, dataset: Dataset, setting: str, without: str = "None") -> None:
        """Raise a MisfitError that names `setting` where no picture of a dataset is larger than a tile.

        `without` is the setting's value that cuts nothing.
        """
        tall, wide = self.height_width
        if not any(example.width > wide or example.height > tall for example in dataset.examples):
            largest = max(dataset.examples, key=lambda example: example.width * example.height)
            raise MisfitError(
                f"{setting}: a tile of {wide} x {tall} pixels cuts none of the {len(dataset)} pictures of"
                f" {dataset.name}: the largest, {largest.image}, has {largest.width} x {largest.height};"
                f" give smaller tiles, or {without}"
            )

    def refuse_misfit(self, size: tuple[int, int] | None, resize: str) -> None:
        """Raise a MisfitError where tiles and an input of `size`, (height, width) if known, contradict each other."""
        (tall, wide), (height, width) = self.height_width, size or self.height_width
        scale = min(height / tall, width / wide)
        if scale > MOST_ENLARGED:
            least = (-(-height // int(MOST_ENLARGED)), -(-width // int(MOST_ENLARGED)))
            raise MisfitError(
                f"run.tiles: a tile of {wide} x {tall} pixels would be enlarged {scale:.1f} times to run.image_size ="
                f" {size!r} (height, width), and show nothing more: give tiles of at least {least}, or a smaller input"
            )
        if resize == "crop":
            raise MisfitError(
                "run.resize = 'crop' leaves out a part of each window, so that run.tiles would not cover pictures: use"
                " 'letterbox' or 'stretch'"
            )


def tiles_of(setting: int | tuple[int, int] | Tiles | None) -> Tiles | None:
    """Return what a setting such as `run.tiles` means: numbers are a tile's size.

    Raises:
      ConfigError: the size makes no sense.
    """
    return setting if isinstance(setting, Tiles | None) else Tiles(setting)

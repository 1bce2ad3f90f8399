"""Labelled objects, one by one as most readers find them, and in columns as all of them are worked on."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

Box = tuple[float, float, float, float]


class Object(NamedTuple):
    """One labelled object: `box` in canonical pixels but unchecked, `name` None for an ignore region of no class."""

    name: str | None
    box: Box
    ignore: bool = False
    where: str = ""


class Columns(NamedTuple):
    """The objects of many images: one call of NumPy for all of them takes less than one of Python for each.

    `owners` int [n] are the positions of their images, `names` and `wheres` object arrays [n] of what
    `Object` holds, `boxes` float64 [n, 4], `ignore` bool [n].
    """

    owners: np.ndarray
    names: np.ndarray
    boxes: np.ndarray
    ignore: np.ndarray
    wheres: np.ndarray

    def take(self, which: np.ndarray) -> "Columns":
        """Return the objects at these positions, or under this mask."""
        return Columns(*(column[which] for column in self))

    def moved(self, places: np.ndarray) -> "Columns":
        """Return the objects in the order of their images after these moved to `places` (-1: is left out)."""
        moved = self._replace(owners=places[self.owners])
        order = np.argsort(moved.owners, kind="stable")
        return moved.take(order[np.count_nonzero(moved.owners < 0) :])


def columns(images: Sequence[Sequence[Object]]) -> Columns:
    """Return the objects of each image in columns."""
    objects = list(chain.from_iterable(images))
    names, boxes, ignore, wheres = zip(*objects, strict=True) if objects else ((),) * 4
    return Columns(
        np.repeat(np.arange(len(images)), [len(own) for own in images]),
        np.array(names, np.object_),
        np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(objects)).reshape(-1, 4),
        np.array(ignore, np.bool_),
        np.array(wheres, np.object_),
    )


def joined(parts: Sequence[Columns]) -> Columns:
    """Return the objects of all parts, of which there is at least one."""
    return Columns(*map(np.concatenate, zip(*parts, strict=True)))

"""Assigners: which object each location of a head learns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tlx.data.targets import ANY_CLASS
from tlx.lazy import tf
from tlx.models.head import Tensors


@dataclass(frozen=True, eq=False)
class Locations:
    """Where a head looks for objects: `centres` float32 [n, 2] and `strides` float32 [n], in input pixels.

    `anchors` float32 [n, 4] are the boxes that it starts from, if it starts from boxes.
    """

    centres: np.ndarray
    strides: np.ndarray
    anchors: np.ndarray | None = None


class Assignment(NamedTuple):
    """What each of n locations learns of m objects.

    `chosen` int32 [b, n] is the object, `positive` bool [b, n] whether there is one, and `counted` float32
    [b, n, classes] is 0 where a class's score there is neither rewarded nor punished, and 1 elsewhere. `quality`
    float32 [b, n] is how well the location's prediction serves its object, 0..1, where the assigner says so: the score
    to learn, and the weight of the box.
    """

    chosen: Any
    positive: Any
    counted: Any
    quality: Any = None


class Assigner(ABC):
    """Gives objects to locations."""

    @abstractmethod
    def __call__(self, locations: Locations, targets: Tensors, classes: int, predictions: Tensors | None = None) -> Any:
        """Return the `Assignment` for the arrays of `tlx.tasks.detection`.

        `predictions` are the head's present "boxes" [b, n, 4] in input pixels and "scores" [b, n, classes] in 0..1,
        through which no gradient flows.
        """


def margins(locations: Locations, boxes: Any) -> tuple[Any, Any, Any, Any]:
    """Return how far each box's left, top, right and bottom side is from each location: four tensors [b, n, m].

    All four are positive where the location is inside. They come side by side instead of as one tensor [b, n, m, 4],
    whose reductions would take half the loss's time.
    """
    x_min, y_min, x_max, y_max = (side[:, None] for side in tf.unstack(boxes, axis=-1))
    x, y = locations.centres[:, :1], locations.centres[:, 1:]
    return x - x_min, y - y_min, x_max - x, y_max - y


def within(locations: Locations, boxes: Any) -> tuple[Any, Any]:
    """Return how deep each location is within each box, and how far from its centre, in pixels: [b, n, m] each.

    The depth is negative outside; the distance is the larger one of both axes.
    """
    left, top, right, bottom = margins(locations, boxes)
    inner = tf.minimum(tf.minimum(left, right), tf.minimum(top, bottom))
    return inner, tf.maximum(tf.abs(left - right), tf.abs(top - bottom)) / 2


def with_nearest(fits: Any, off: Any, real: Any) -> Any:
    """Return `fits` bool [b, n, m] and, for each real object that no location fits, the one nearest to its centre.

    An object that slips between all locations would count as background otherwise.
    """
    nearest = tf.one_hot(tf.argmin(off, 1), fits.shape[1], True, False, axis=1, dtype=tf.bool)
    return fits | (nearest & real & ~tf.reduce_any(fits, 1, keepdims=True))


def counted(inside: Any, positive: Any, labels: Any, ignore: Any, classes: int) -> Any:
    """Return 0 where a class's score at a location lies in an ignore region, and 1 elsewhere: [b, n, classes].

    `inside` bool [b, n, m] tells which boxes a location is in; one that is `positive` counts wherever it is.
    """
    spared = tf.one_hot(labels, classes) + tf.cast(labels == ANY_CLASS, tf.float32)[..., None]
    spared *= tf.cast(ignore, tf.float32)[..., None]
    hidden = tf.cast(inside, tf.float32) @ spared > 0
    return tf.cast(~hidden | positive[..., None], tf.float32)

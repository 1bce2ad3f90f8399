"""Assigners: which object each location of a head learns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tlx.data.targets import ANY_CLASS
from tlx.lazy import tf
from tlx.models import boxes as geometry
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
    [b, n, classes] is 0 where a class's score there is neither rewarded nor punished, and 1 elsewhere.
    """

    chosen: Any
    positive: Any
    counted: Any


class Assigner(ABC):
    """Gives objects to locations."""

    @abstractmethod
    def __call__(self, locations: Locations, targets: Tensors, classes: int, predictions: Tensors | None = None) -> Any:
        """Return the `Assignment` for the arrays of `tlx.tasks.detection`; it may look at a head's predictions."""


@dataclass(frozen=True)
class CentreSampling(Assigner):
    """Each location near an object's centre learns it, the smallest one where there are several.

    `radius` is how near, in strides; a level takes the objects that reach 4 to 8 of its strides from their
    centres, and the outermost levels all that are smaller or larger. Source: Tian et al., FCOS, ICCV 2019.
    """

    radius: float

    def __call__(
        self, locations: Locations, targets: Tensors, classes: int, predictions: Tensors | None = None
    ) -> Assignment:
        boxes, labels, ignore = targets["boxes"], targets["labels"], targets["ignore"]
        centres, strides = locations.centres, locations.strides
        # Side by side instead of as one tensor [b, n, m, 4], whose reductions would take half the loss's time.
        x_min, y_min, x_max, y_max = (side[:, None] for side in tf.unstack(boxes, axis=-1))
        left, right = centres[:, :1] - x_min, x_max - centres[:, :1]
        top, bottom = centres[:, 1:] - y_min, y_max - centres[:, 1:]
        inner = tf.minimum(tf.minimum(left, right), tf.minimum(top, bottom))
        reach = tf.maximum(tf.maximum(left, right), tf.maximum(top, bottom)) / strides[:, None]
        off = tf.maximum(tf.abs(left - right), tf.abs(top - bottom)) / 2
        finest, coarsest = strides == strides.min(), strides == strides.max()
        large_enough = (reach > 4) | finest[:, None]
        small_enough = (reach <= 8) | coarsest[:, None]
        real = ((labels >= 0) & ~ignore)[:, None]
        near = off < self.radius * strides[:, None]
        fits = (inner > 0) & near & large_enough & small_enough & real
        # An object that slips between all locations is learnt by the nearest one, or it would count as background.
        nearest = tf.one_hot(tf.argmin(off, 1), len(strides), True, False, axis=1, dtype=tf.bool)
        fits |= nearest & real & ~tf.reduce_any(fits, 1, keepdims=True)
        cost = tf.where(fits, geometry.area(boxes)[:, None], np.inf)
        positive = tf.reduce_any(fits, -1)
        matters = counted(inner > 0, positive, labels, ignore, classes)
        return Assignment(tf.argmin(cost, -1, tf.int32), positive, matters)


def counted(inside: Any, positive: Any, labels: Any, ignore: Any, classes: int) -> Any:
    """Return 0 where a class's score at a location lies in an ignore region, and 1 elsewhere: [b, n, classes].

    `inside` bool [b, n, m] tells which boxes a location is in; one that is `positive` counts wherever it is.
    """
    spared = tf.one_hot(labels, classes) + tf.cast(labels == ANY_CLASS, tf.float32)[..., None]
    spared *= tf.cast(ignore, tf.float32)[..., None]
    hidden = tf.cast(inside, tf.float32) @ spared > 0
    return tf.cast(~hidden | positive[..., None], tf.float32)

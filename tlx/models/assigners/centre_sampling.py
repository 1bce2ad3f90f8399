"""Objects go to the locations near their centres."""

from dataclasses import dataclass

import numpy as np

from tlx.errors import above, refuse_values
from tlx.lazy import tf
from tlx.models import boxes as geometry
from tlx.models.assign import Assigner, Assignment, Locations, counted, margins, with_nearest, within
from tlx.models.head import Tensors
from tlx.registry import assigners


@assigners.register("centre_sampling")
@dataclass(frozen=True)
class CentreSampling(Assigner):
    """Each location near an object's centre learns it, the smallest one where there are several.

    `radius` is how near, in strides; a level takes the objects that reach 4 to 8 of its strides from their
    centres, and the outermost levels all that are smaller or larger. Source: Tian et al., FCOS, ICCV 2019.
    """

    radius: float = 1.5

    def __post_init__(self):
        refuse_values("assigners.centre_sampling", self, {"radius": above(0)})

    def __call__(
        self, locations: Locations, targets: Tensors, classes: int, predictions: Tensors | None = None
    ) -> Assignment:
        boxes, labels, ignore = targets["boxes"], targets["labels"], targets["ignore"]
        strides = locations.strides
        left, top, right, bottom = margins(locations, boxes)
        inner, off = within(locations, boxes)
        reach = tf.maximum(tf.maximum(left, right), tf.maximum(top, bottom)) / strides[:, None]
        finest, coarsest = strides == strides.min(), strides == strides.max()
        large_enough = (reach > 4) | finest[:, None]
        small_enough = (reach <= 8) | coarsest[:, None]
        real = ((labels >= 0) & ~ignore)[:, None]
        near = off < self.radius * strides[:, None]
        fits = with_nearest((inner > 0) & near & large_enough & small_enough & real, off, real)
        cost = tf.where(fits, geometry.area(boxes)[:, None], np.inf)
        positive = tf.reduce_any(fits, -1)
        matters = counted(inner > 0, positive, labels, ignore, classes)
        return Assignment(tf.argmin(cost, -1, tf.int32), positive, matters)

"""What a picture with objects and their points is labelled with."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from tlx.data.targets import Boxes, Targets


@dataclass(frozen=True, eq=False)
class Keypoints(Targets):
    """Objects: `boxes` float32 [n, 4], `labels` int32 [n], `points` float32 [n, k, 2] (x, y) and `visible` bool [n, k].

    Boxes and points are in pixels of the upright picture, as everywhere in tlx.
    """

    task: ClassVar[str] = "keypoints"

    boxes: np.ndarray
    labels: np.ndarray
    points: np.ndarray
    visible: np.ndarray

    @property
    def arrays(self):
        return {"boxes": self.boxes, "labels": self.labels, "points": self.points, "visible": self.visible}

    def fault(self, width, height):
        n, k = self.points.shape[:2]
        if (self.boxes.shape, self.labels.shape, self.visible.shape) != ((n, 4), (n,), (n, k)):
            return "boxes, labels, points and visible differ in number"
        shown = self.points[self.visible]
        if not ((shown >= 0) & (shown <= (width, height))).all():
            return "a visible point is outside the image"
        return self.as_boxes(width, height).fault(width, height)

    def relabelled(self, table):
        return replace(self, labels=table[self.labels])

    def as_boxes(self, width, height):
        return Boxes(self.boxes, self.labels, np.zeros(len(self.boxes), np.bool_))

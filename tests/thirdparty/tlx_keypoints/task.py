"""Finding objects and their points."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import ImageDraw

from tlx.augment import MIN_VISIBLE, move, move_points, restore, restore_points
from tlx.data.targets import Boxes
from tlx.registry import tasks
from tlx.report.pictures import colour_of, draw
from tlx.tasks.task import Task

PADDING = -2


@dataclass(frozen=True, eq=False)
class Found:
    """What a model found in a picture: boxes [n, 4], scores [n], labels [n] and points [n, k, 2], best first."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    points: np.ndarray


@tasks.register("keypoints")
class KeypointTask(Task):
    """Objects of known classes are found as boxes with points; `Keypoints` labels them."""

    name: ClassVar[str] = "keypoints"
    evaluator: ClassVar[str] = "pck"

    def room(self, dataset, pictures):
        """Return the most objects of a picture, and the number of points of each."""
        labelled = [e.targets.points.shape[:2] for e in dataset.examples if e.targets.task]
        return max([1, *(n for n, _ in labelled)]), max([0, *(k for _, k in labelled)])

    def arrays(self, shown, view, room):
        # It combines no pictures.
        (targets,) = shown
        boxes, share = move(targets.boxes, view)
        points, inside = move_points(targets.points, view)
        made = self._empty((), room)
        kept = np.flatnonzero(share >= MIN_VISIBLE)
        for name, array in {
            "boxes": boxes, "labels": targets.labels, "points": points, "visible": targets.visible & inside
        }.items():  # fmt: skip
            made[name][: len(kept)] = array[kept]
        return made

    def worst(self, count, size, room):
        made = self._empty((count,), room)
        made["boxes"][..., 2:] = size[::-1]
        made["labels"][:] = 0
        made["visible"][:] = True
        return made

    def _empty(self, lead, room):
        objects, points = room
        return {
            "boxes": np.zeros((*lead, objects, 4), np.float32),
            "labels": np.full((*lead, objects), PADDING, np.int32),
            "points": np.zeros((*lead, objects, points, 2), np.float32),
            "visible": np.zeros((*lead, objects, points), np.bool_),
        }

    def prediction(self, found, view, example):
        boxes, points = restore(found["boxes"], view), restore_points(found["points"], view)
        real = (found["scores"] > 0) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Found(boxes[real], found["scores"][real], found["labels"][real], points[real])

    def join(self, predictions):
        arrays = zip(*((one.boxes, one.scores, one.labels, one.points) for one in predictions), strict=True)
        boxes, scores, labels, points = map(np.concatenate, arrays)
        best = np.argsort(-scores, kind="stable")
        return Found(boxes[best], scores[best], labels[best], points[best])

    def draw(self, picture, prediction, targets, classes, min_score=0.3):
        truth = None if targets is None else targets.as_boxes(*picture.size)
        drawn = draw(picture, prediction, truth, classes, min_score)
        canvas, factor = ImageDraw.Draw(drawn), drawn.width / picture.width
        for points, score in zip(prediction.points * factor, prediction.scores, strict=True):
            for number, (x, y) in enumerate(points.tolist()) if score >= min_score else ():
                canvas.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour_of(number), outline="black")
        return drawn

    def draw_arrays(self, picture, arrays, classes):
        real = arrays["labels"] != PADDING
        boxes, labels = arrays["boxes"][real], arrays["labels"][real]
        return draw(picture, None, Boxes(boxes, labels, np.zeros(len(boxes), np.bool_)), classes)

    def to_json(self, prediction, classes):
        arrays = (prediction.boxes, prediction.scores, prediction.labels, prediction.points)
        rows = zip(*(array.tolist() for array in arrays), strict=True)
        names = ("box", "score", "class", "points")
        return {"objects": [dict(zip(names, (b, s, classes[c], p), strict=True)) for b, s, c, p in rows]}

    def check(self, patient):
        for example in patient.examples:
            if example.targets.task and not example.targets.visible.any(1).all():
                yield patient.at(example, "no-visible-point", "warning", "an object shows none of its points")

"""Finding objects: boxes in, boxes with classes and scores out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tlx.augment import MIN_VISIBLE, View, move, restore
from tlx.augment.view import Box
from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.doctor.boxes import check_boxes
from tlx.data.doctor.patient import Patient
from tlx.data.targets import Boxes, Targets, iou
from tlx.errors import ModelError
from tlx.registry import tasks
from tlx.report.pictures import draw
from tlx.tasks.seams import once
from tlx.tasks.task import Arrays, Task

# The label of a place that no box takes up.
PADDING = -2
# What the arrays that every detector finds are called; whatever else it finds comes beside them.
_OWN = ("boxes", "scores", "labels")
# Boxes of one class that agree by more than this IoU are fused, where several views saw all of a picture.
_FUSED = 0.55


@dataclass(frozen=True, eq=False)
class Detections:
    """What a model found in one image.

    `boxes` is float32 [n, 4]: (x_min, y_min, x_max, y_max) in pixels of the original upright image;
    `scores` is float32 [n] in 0..1; `labels` is int32 [n]: positions in `Dataset.classes`. `extra` holds
    further arrays [n, ...] by name, which a head gives beside its boxes. `window` is the part of the image that was
    looked at, in its pixels.

    Raises:
      ModelError: a shape or dtype is another.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    window: Box = (-math.inf, -math.inf, math.inf, math.inf)

    def __post_init__(self):
        n = len(self.boxes)
        shapes = (self.boxes.shape, self.scores.shape, self.labels.shape)
        dtypes = (self.boxes.dtype, self.scores.dtype, self.labels.dtype)
        if shapes != ((n, 4), (n,), (n,)) or dtypes != (np.float32, np.float32, np.int32):
            raise ModelError(
                f"detections: boxes, scores and labels have {shapes} {[str(dtype) for dtype in dtypes]}; "
                "expected float32 [n, 4], float32 [n] and int32 [n]"
            )
        if lengths := {name: len(array) for name, array in self.extra.items() if len(array) != n}:
            raise ModelError(f"detections: there are {n} boxes, and of other arrays {lengths}")

    def __len__(self) -> int:
        return len(self.boxes)


@tasks.register("detection")
class Detection(Task):
    """Objects of known classes are found as boxes; `Boxes` labels them."""

    name: ClassVar[str] = "detection"
    evaluator: ClassVar[str] = "coco"
    combines: ClassVar[bool] = True
    labels: ClassVar[str] = "boxes"

    def room(self, dataset: Dataset, pictures: int) -> int:
        """Return the most boxes that so many pictures have, at least one."""
        most = sorted((len(example.objects) for example in dataset.examples), reverse=True)
        return max([1, sum(most[i % len(most)] for i in range(pictures) if most)])

    def arrays(self, shown: Sequence[Targets], view: View, room: int) -> Arrays:
        """Return boxes float32 [room, 4] in input pixels, labels int32 [room] and ignore bool [room].

        Unused places have the label `PADDING`. What is hardly in view is ignored.
        """
        boxes = np.zeros((room, 4), np.float32)
        labels = np.full(room, PADDING, np.int32)
        ignore = np.zeros(room, np.bool_)
        start = 0
        for number, (targets, layer) in enumerate(zip(shown, view.layers, strict=True)):
            moved, visible = move(targets.boxes, view, number)
            kept = (visible > 0) & (moved[:, 2:] - moved[:, :2] >= 1).all(1)
            if layer.objects is not None:
                kept &= np.isin(np.arange(len(kept)), layer.objects)
            stop = start + int(kept.sum())
            boxes[start:stop], labels[start:stop] = moved[kept], targets.labels[kept]
            ignore[start:stop] = targets.ignore[kept] | (visible[kept] < MIN_VISIBLE)
            start = stop
        return {"boxes": boxes, "labels": labels, "ignore": ignore}

    def worst(self, count: int, size: tuple[int, int], room: int) -> Arrays:
        """Return as many boxes as any picture has, all over the input."""
        height, width = size
        low = np.random.default_rng(0).uniform(0, 0.5, (count, room, 2))
        boxes = (np.concatenate([low, low + 0.4], -1) * (width, height, width, height)).astype(np.float32)
        return {
            "boxes": boxes,
            "labels": np.zeros((count, room), np.int32),
            "ignore": np.zeros((count, room), np.bool_),
        }

    def prediction(self, found: Mapping[str, np.ndarray], view: View, example: Example) -> Detections:
        boxes, scores, labels = (found[name] for name in _OWN)
        placed = restore(boxes, view)
        # What is not finite stays, for the evaluator to refuse.
        real = ~((scores <= 0) | (placed[:, 2:] <= placed[:, :2]).any(1))
        extra = {name: array[real] for name, array in found.items() if name not in _OWN}
        return Detections(placed[real], scores[real], labels[real].astype(np.int32), extra, view.layers[0].crop)

    def join(self, predictions: Sequence[Detections]) -> Detections:
        """Return what was found, best first, and of what several predictions found, the best.

        Where windows cut an object it counts once all the same; see `tlx.tasks.seams.once`.
        """
        boxes, scores, labels = (np.concatenate([getattr(one, name) for one in predictions]) for name in _OWN)
        source = np.repeat(np.arange(len(predictions)), [len(one) for one in predictions])
        kept, boxes, scores = once(boxes, scores, labels, source, np.array([one.window for one in predictions]))
        extra = {n: np.concatenate([one.extra[n] for one in predictions])[kept] for n in predictions[0].extra}
        return Detections(boxes, scores, labels[kept], extra)

    def fuse(self, predictions: Sequence[Detections]) -> Detections:
        """Return means, weighted by score, of the boxes that agree, and as scores their means over all predictions.

        Where only some of these saw an object, its score is less by that. What is further known of a box is that of the
        best. Source: Solovyev et al., Weighted boxes fusion, Image and Vision Computing 2021.
        """
        boxes, scores, labels = (np.concatenate([getattr(one, name) for one in predictions]) for name in _OWN)
        source = np.repeat(np.arange(len(predictions)), [len(one) for one in predictions])
        groups: list[list[int]] = []
        means = np.zeros((len(boxes), 4), np.float32)
        for i in np.argsort(-scores, kind="stable").tolist():
            fits = iou(boxes[i], means[: len(groups)]) if groups else np.zeros(0)
            # Each prediction has an object once.
            free = [labels[g[0]] == labels[i] and source[i] not in source[g] for g in groups]
            fits = np.where(np.array(free, np.bool_), fits, 0.0)
            at = int(fits.argmax()) if len(fits) and fits.max() > _FUSED else len(groups)
            if at == len(groups):
                groups.append([])
            groups[at].append(i)
            means[at] = np.average(boxes[groups[at]].astype(np.float64), axis=0, weights=scores[groups[at]])
        fused = np.array([scores[group].sum() / len(predictions) for group in groups], np.float32)
        best = np.argsort(-fused, kind="stable")
        first = np.array([group[0] for group in groups], np.int64)[best]
        extra = {n: np.concatenate([one.extra[n] for one in predictions])[first] for n in predictions[0].extra}
        return Detections(means[: len(groups)][best], fused[best], labels[first], extra)

    def draw(
        self,
        picture: Image.Image,
        prediction: Detections,
        targets: Targets | None,
        classes: Sequence[str],
        min_score: float = 0.3,
    ) -> Image.Image:
        return draw(picture, prediction, targets, classes, min_score)

    def draw_arrays(self, picture: Image.Image, arrays: Arrays, classes: Sequence[str]) -> Image.Image:
        real = arrays["labels"] != PADDING
        return draw(picture, None, Boxes(*(arrays[name][real] for name in ("boxes", "labels", "ignore"))), classes)

    def to_json(self, prediction: Detections, classes: Sequence[str]) -> dict[str, Any]:
        """Return {"detections": [{"class", "score", "box"}, ...]}, best first, boxes in pixels of the picture."""
        arrays = (prediction.boxes, prediction.scores, prediction.labels, *prediction.extra.values())
        rows = zip(*(array.tolist() for array in arrays), strict=True)
        return {
            "detections": [
                {"class": classes[label], "score": score, "box": box, **dict(zip(prediction.extra, more, strict=True))}
                for box, score, label, *more in rows
            ]
        }

    def results(self, image: str, number: int, prediction: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return COCO's results, one for each detection, with the names of image and class beside their numbers.

        Images are numbered from 0 in the order of the split in `data.json`, and classes from 1 in the order there;
        "bbox" is (x_min, y_min, width, height) in pixels of the picture. Source: cocodataset.org, results format.
        """
        corners = prediction.boxes.astype(np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
        named = {"image_id": number, "file_name": image}
        more = (array.tolist() for array in prediction.extra.values())
        rows = zip(boxes, prediction.scores.tolist(), prediction.labels.tolist(), *more, strict=True)
        return [
            {
                **named,
                "category_id": label + 1,
                "category": classes[label],
                "bbox": box,
                "score": score,
                **dict(zip(prediction.extra, extra, strict=True)),
            }
            for box, score, label, *extra in rows
        ]

    def check(self, patient: Patient) -> Iterator[Finding]:
        return check_boxes(patient)

"""How good predictions are: COCO's metrics, computed by pycocotools from checked input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from types import FunctionType
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval
from rich.markup import escape
from rich.table import Table

from tlx.data.dataset import ANY_CLASS, Dataset
from tlx.errors import ConfigError, ModelError, TrainingError
from tlx.registry import evaluators

Metrics = dict[str, Any]

SIZES = ("small", "medium", "large")
FEW_BOXES = 30


@dataclass(frozen=True, eq=False)
class Detections:
    """What a model found in one image.

    `boxes` is float32 [n, 4]: (x_min, y_min, x_max, y_max) in pixels of the original upright image;
    `scores` is float32 [n] in 0..1; `labels` is int32 [n]: positions in `Dataset.classes`.

    Raises:
      ModelError: a shape or dtype is another. Values are checked by `check`, which can name the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        n = len(self.boxes)
        shapes = (self.boxes.shape, self.scores.shape, self.labels.shape)
        dtypes = (self.boxes.dtype, self.scores.dtype, self.labels.dtype)
        if shapes != ((n, 4), (n,), (n,)) or dtypes != (np.float32, np.float32, np.int32):
            raise ModelError(
                f"detections: boxes, scores and labels have {shapes} {[str(dtype) for dtype in dtypes]}; "
                "expected float32 [n, 4], float32 [n] and int32 [n]"
            )

    def __len__(self) -> int:
        return len(self.boxes)


def check(detections: Detections, image: object, classes: int) -> None:
    """Refuse detections that no metric should count; `image` is named in the message.

    pycocotools counts a NaN without a word, hence this check before it.

    Raises:
      TrainingError: a box or score is not finite.
      ModelError: a box is inverted, a score outside 0..1 or a label outside the `classes` classes.
    """
    boxes, scores, labels = detections.boxes, detections.scores, detections.labels
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    if not finite.all():
        worst = int(np.argmin(finite))
        raise TrainingError(
            f"{image}: detection {worst} is not finite (box {boxes[worst].tolist()}, score {scores[worst]}); "
            "the weights probably diverged: lower fit.learning_rate"
        )
    faults = {
        "box has its maximum below its minimum": (boxes[:, :2] > boxes[:, 2:]).any(axis=1),
        "score is outside 0..1": (scores < 0) | (scores > 1),
        f"label is outside the {classes} classes": (labels < 0) | (labels >= classes),
    }
    for fault, bad in faults.items():
        if bad.any():
            at = int(np.argmax(bad))
            found = f"box {boxes[at].tolist()}, score {scores[at]}, label {labels[at]}"
            raise ModelError(f"{image}: detection {at}: its {fault} ({found})")


@evaluators.register("coco")
@dataclass(frozen=True)
class Coco:
    """COCO average precision and recall, overall, per box size and per class.

    An ignored box is a crowd region to COCO: a detection of which at least the IoU threshold's share lies
    inside it, and that matches no object that counts, is neither rewarded nor punished, any number of
    times. That is KITTI's rule for DontCare. For an object that VOC calls difficult, VOC asks for IoU
    instead, so a small detection inside a difficult object is forgiven here and punished there.

    Sizes are box areas in pixels of the original image: small up to 32², large from 96². (COCO's own
    annotations measure the mask instead, so sizes differ a little from its leaderboard.)

    Arguments:
      max_detections: the highest-scoring detections counted, per image and class, at least 1.
    """

    max_detections: int = 100

    def __post_init__(self):
        if self.max_detections < 1:
            raise ConfigError(f"evaluators.coco.max_detections is {self.max_detections}; it must be at least 1")

    def __call__(self, dataset: Dataset, predictions: Sequence[Detections]) -> Metrics:
        """Compare one `Detections` per example of `dataset`, in the same order.

        Returns a dict ready for JSON: "AP" (mean over IoU 0.50:0.95), "AP50", "AP75", "AP_small",
        "AP_medium", "AP_large" and "AR", each the mean over the classes that have boxes; "images"; "boxes",
        "boxes_small", "boxes_medium" and "boxes_large", the boxes behind those numbers; and "per_class", a
        dict by class name of "AP", "AP50" and "boxes". A metric without a single box behind it is None.

        Raises:
          ModelError, TrainingError: predictions are too few or too many, or `check` refuses them.
        """
        if len(predictions) != len(dataset):
            raise ModelError(f"{dataset.name}: {len(predictions)} predictions for {len(dataset)} images")
        for example, detections in zip(dataset.examples, predictions, strict=True):
            check(detections, example.image, len(dataset.classes))
        evaluation = _Evaluation(dataset, predictions, self.max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        return _metrics(dataset, evaluation)


def _without_prints(method: Callable) -> Callable:
    # Redirecting stdout instead would swallow what a progress bar's thread prints meanwhile.
    return FunctionType(
        method.__code__, {**method.__globals__, "print": _no_print}, method.__name__, method.__defaults__
    )


def _no_print(*_: object) -> None:
    pass


class _Evaluation(COCOeval):
    """pycocotools' evaluation, fed directly and silent."""

    evaluate = _without_prints(COCOeval.evaluate)
    accumulate = _without_prints(COCOeval.accumulate)

    def __init__(self, dataset: Dataset, predictions: Sequence[Detections], max_detections: int):
        super().__init__(iouType="bbox")
        self.params.imgIds = list(range(len(dataset)))
        self.params.catIds = list(range(len(dataset.classes)))
        self.params.maxDets = [max_detections]
        # Number 0 would mean "unmatched" to pycocotools.
        numbers = count(1)
        for image, (example, detections) in enumerate(zip(dataset.examples, predictions, strict=True)):
            for box, label, ignore in zip(_xywh(example.boxes), example.labels, example.ignore, strict=True):
                for category in self.params.catIds if label == ANY_CLASS else [int(label)]:
                    crowd = int(ignore or label == ANY_CLASS)
                    truth = {"bbox": box, "area": box[2] * box[3], "iscrowd": crowd, "ignore": crowd}
                    self._gts[image, category].append({"id": next(numbers), **truth})
            for box, score, label in zip(_xywh(detections.boxes), detections.scores, detections.labels, strict=True):
                found = {"bbox": box, "area": box[2] * box[3], "score": float(score)}
                self._dts[image, int(label)].append({"id": next(numbers), **found})

    def _prepare(self) -> None:
        """Keep what __init__ laid out; pycocotools would fetch it from its own data class here."""


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    exact = boxes.astype(np.float64)
    return np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1).tolist()


def _metrics(dataset: Dataset, evaluation: _Evaluation) -> Metrics:
    # precision is [IoU thresholds, recall steps, classes, sizes, 1] and recall lacks the second; -1 means undefined.
    precision, recall = evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]
    at50, at75 = (int(np.argmin(np.abs(evaluation.params.iouThrs - iou))) for iou in (0.5, 0.75))
    counts = dataset.counts()
    return {
        "AP": _mean(precision[..., 0]),
        "AP50": _mean(precision[at50, ..., 0]),
        "AP75": _mean(precision[at75, ..., 0]),
        **{f"AP_{size}": _mean(precision[..., i]) for i, size in enumerate(SIZES, start=1)},
        "AR": _mean(recall[..., 0]),
        "images": len(dataset),
        "boxes": sum(counts.values()),
        **_boxes_by_size(evaluation),
        "per_class": {
            name: {"AP": _mean(precision[:, :, k, 0]), "AP50": _mean(precision[at50, :, k, 0]), "boxes": counts[name]}
            for k, name in enumerate(dataset.classes)
        },
    }


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _boxes_by_size(evaluation: _Evaluation) -> dict[str, int]:
    areas = np.array([truth["area"] for truths in evaluation._gts.values() for truth in truths if not truth["ignore"]])
    ranges = zip(SIZES, evaluation.params.areaRng[1:], strict=True)
    return {f"boxes_{size}": int(((areas >= low) & (areas <= high)).sum()) for size, (low, high) in ranges}


def summary(metrics: Metrics) -> Table:
    """Lay out what `Coco` returned as a table: overall, by size and by class, with the boxes behind each number.

    Rows that rest on fewer than `FEW_BOXES` boxes are dimmed and starred, as a few pictures can move them.
    """
    table = Table(title=f"{metrics['images']} images", caption=f"* fewer than {FEW_BOXES} boxes")
    table.add_column("")
    for heading in ("boxes", "AP", "AP50", "AP75", "AR"):
        table.add_column(heading, justify="right")
    _add_row(table, "all", metrics["boxes"], *(metrics[key] for key in ("AP", "AP50", "AP75", "AR")))
    for size in SIZES:
        _add_row(table, size, metrics[f"boxes_{size}"], metrics[f"AP_{size}"])
    table.add_section()
    for name, of_class in metrics["per_class"].items():
        _add_row(table, escape(name), of_class["boxes"], of_class["AP"], of_class["AP50"])
    return table


def _add_row(table: Table, name: str, boxes: int, *values: float | None) -> None:
    few = boxes < FEW_BOXES
    numbers = ["-" if value is None else f"{value:.3f}" for value in values]
    table.add_row(name, f"{boxes}{'*' if few else ' '}", *numbers, style="dim" if few else "")

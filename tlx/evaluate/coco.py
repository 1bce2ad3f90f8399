"""How good predictions are: COCO's metrics of checked input, by pycocotools, and by hotcoco where it is to be quick."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, product
from types import FunctionType
from typing import Any, ClassVar, NamedTuple

import hotcoco
import numpy as np
from pycocotools.cocoeval import COCOeval, Params
from rich.markup import escape
from rich.table import Table

from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.errors import ConfigError, ModelError, TrainingError
from tlx.evaluate.evaluator import Evaluator, Metric, Metrics, paired
from tlx.registry import evaluators
from tlx.tasks.detection import Detections

SIZES = ("small", "medium", "large")
FEW_BOXES = 30
_AVERAGES = ("AP", "AP50", "AP75")
_OVERALL = (*_AVERAGES, "AR")
_PARAMS = Params(iouType="bbox")


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


class Record(NamedTuple):
    """What was found for one picture: pycocotools' records by class and size, and the labels and areas that count."""

    found: list[dict[str, Any] | None]
    labels: np.ndarray
    areas: np.ndarray


@evaluators.register("coco")
@dataclass(frozen=True)
class Coco(Evaluator):
    """COCO average precision and recall, overall, per box size and per class.

    An ignored box is a crowd region to COCO: a detection of which at least the IoU threshold's share lies
    inside it, and that matches no object that counts, is neither rewarded nor punished, any number of
    times. That is KITTI's rule for DontCare. For an object that VOC calls difficult, VOC asks for IoU
    instead, so a small detection inside a difficult object is forgiven here and punished there.

    Sizes are box areas in pixels of the original image: small up to 32², large from 96². (COCO's own
    annotations measure the mask instead, so sizes differ a little from its leaderboard.)

    Looks while a run goes on are computed by hotcoco, which agrees with pycocotools to 1e-9 on all that passes
    `check`, in a thirtieth of the time; what a run ends with is pycocotools' own.

    Arguments:
      max_detections: the highest-scoring detections counted, per image and class, at least 1.
    """

    task: ClassVar[str] = "detection"
    metrics: ClassVar[tuple[Metric, ...]] = tuple(map(Metric, (*_AVERAGES, *(f"AP_{size}" for size in SIZES), "AR")))
    primary: ClassVar[str] = "AP"

    max_detections: int = 100

    def __post_init__(self):
        if self.max_detections < 1:
            raise ConfigError(f"evaluators.coco.max_detections is {self.max_detections}; it must be at least 1")

    def match(self, example: Example, prediction: Detections, classes: Sequence[str]) -> Record:
        """Return what pycocotools finds for one picture, by class, size and picture.

        Raises:
          ModelError, TrainingError: `check` refuses the detections.
        """
        check(prediction, example.image, len(classes))
        return _Picture(example.objects, prediction, len(classes), self.max_detections).record()

    def summarize(self, records: Sequence[Record], classes: Sequence[str]) -> Metrics:
        """Return the metrics of a set of pictures, ready for JSON.

        Of "values", "AP" is the mean over IoU 0.50:0.95, and each is the mean over the classes that have boxes.
        "counts" has "images", "boxes", "boxes_small", "boxes_medium" and "boxes_large", the boxes behind those
        numbers; "per_class" has "AP", "AP50" and "boxes" by class name. A metric without a single box behind it
        is None.
        """
        labels = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)])
        areas = np.concatenate([np.zeros(0), *(record.areas for record in records)])
        curves = _whole(records, len(classes), self.max_detections)
        return {"primary": self.primary, **_metrics(len(records), labels, areas, classes, curves)}

    def quick(self, dataset: Dataset, predictions: Sequence[Detections]) -> Metrics:
        """Return what calling the evaluator returns, and raise what it raises, in a thirtieth of the time."""
        for example, prediction in paired(dataset, predictions):
            check(prediction, example.image, len(dataset.classes))
        labels, areas, curves = _at_once(dataset, predictions, self.max_detections)
        return {"primary": self.primary, **_metrics(len(dataset), labels, areas, dataset.classes, curves)}

    def table(self, metrics: Metrics) -> Table:
        """Return metrics overall, by size and by class, with the boxes behind each number.

        Rows that rest on fewer than `FEW_BOXES` boxes are dimmed and starred, as a few pictures can move them.
        """
        values, counts = metrics["values"], metrics["counts"]
        table = Table(title=f"{counts['images']} images", caption=f"* fewer than {FEW_BOXES} boxes")
        table.add_column("")
        for heading in ("boxes", *_OVERALL):
            table.add_column(heading, justify="right")
        _add_row(table, "all", counts["boxes"], *(values[key] for key in _OVERALL))
        for size in SIZES:
            _add_row(table, size, counts[f"boxes_{size}"], values[f"AP_{size}"])
        table.add_section()
        for name, of_class in metrics["per_class"].items():
            _add_row(table, escape(name), of_class["boxes"], of_class["AP"], of_class["AP50"])
        return table


def _without_prints(method: Callable) -> Callable:
    # Redirecting stdout instead would swallow what a progress bar's thread prints meanwhile.
    return FunctionType(
        method.__code__, {**method.__globals__, "print": _no_print}, method.__name__, method.__defaults__
    )


def _no_print(*_: object) -> None:
    pass


class _Picture(COCOeval):
    """pycocotools' evaluation of one picture, fed directly."""

    def __init__(self, truth: Boxes, found: Detections, classes: int, max_detections: int):
        super().__init__(iouType="bbox")
        self.params.imgIds = [0]
        self.params.catIds = list(range(classes))
        self.params.maxDets = [max_detections]
        # Number 0 would mean "unmatched" to pycocotools.
        numbers = count(1)
        for x, y, width, height, category, crowd in _truth_rows(truth, classes).tolist():
            region = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": crowd, "ignore": crowd}
            self._gts[0, int(category)].append({"id": next(numbers), **region})
        for x, y, width, height, score, category in _found_rows(found).tolist():
            one = {"bbox": [x, y, width, height], "area": width * height, "score": score}
            self._dts[0, int(category)].append({"id": next(numbers), **one})

    def record(self) -> Record:
        """Return what pycocotools finds: by class and then by size, or None where there is nothing to find."""
        params = self.params
        self.ious = {(0, category): self.computeIoU(0, category) for category in params.catIds}
        places = product(params.catIds, params.areaRng)
        found = [self.evaluateImg(0, category, area, params.maxDets[-1]) for category, area in places]
        truths = [(category, t) for (_, category), of in self._gts.items() for t in of if not t["ignore"]]
        labels, areas = [category for category, _ in truths], [truth["area"] for _, truth in truths]
        return Record(found, np.array(labels, np.int64), np.array(areas, np.float64))


def _whole(records: Sequence[Record], classes: int, max_detections: int) -> dict[str, np.ndarray]:
    """Return pycocotools' curves for all pictures, accumulated from what was found for each."""
    evaluation = COCOeval(iouType="bbox")
    evaluation.params.imgIds = list(range(len(records)))
    evaluation.params.catIds = list(range(classes))
    evaluation.params.maxDets = [max_detections]
    evaluation._paramsEval = evaluation.params
    sizes = len(evaluation.params.areaRng)
    evaluation.evalImgs = [record.found[place] for place in range(classes * sizes) for record in records]
    _without_prints(COCOeval.accumulate)(evaluation)
    return evaluation.eval


def _at_once(
    dataset: Dataset, predictions: Sequence[Detections], max_detections: int
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return labels and areas of the boxes that count, and hotcoco's curves."""
    classes = len(dataset.classes)
    rows = _numbered([_truth_rows(example.objects, classes) for example in dataset.examples])
    pictures, boxes, labels, crowds = rows[:, 0].astype(int), rows[:, 1:5], rows[:, 5].astype(int), rows[:, 6] > 0
    areas = boxes[:, 2:].prod(1)
    images = [{"id": number} for number in range(len(dataset))]
    # Of classes without a name it would print a warning.
    categories = [{"id": number, "name": str(number)} for number in range(classes)]
    truth = hotcoco.COCO.from_arrays(images, categories, pictures, labels, boxes, area=areas, iscrowd=crowds)
    found = truth.load_res(_numbered([_found_rows(prediction) for prediction in predictions]))
    evaluation = hotcoco.COCOeval(truth, found, "bbox")
    evaluation.params.max_dets = [max_detections]
    evaluation.evaluate()
    evaluation.accumulate()
    return labels[~crowds], areas[~crowds], evaluation.eval


def _truth_rows(truth: Boxes, classes: int) -> np.ndarray:
    """Return x, y, width, height, class and whether it is a crowd; a region of no class is one of each class."""
    anywhere = truth.labels == ANY_CLASS
    rows = np.column_stack([_xywh(truth.boxes), truth.labels, truth.ignore | anywhere])
    rows = np.repeat(rows, np.where(anywhere, classes, 1), axis=0)
    rows[rows[:, 4] == ANY_CLASS, 4] = np.tile(np.arange(classes), anywhere.sum())
    return rows


def _found_rows(found: Detections) -> np.ndarray:
    """Return x, y, width, height, score and class of each."""
    return np.column_stack([_xywh(found.boxes), found.scores, found.labels])


def _xywh(boxes: np.ndarray) -> np.ndarray:
    # float64 is what both compute in.
    exact = boxes.astype(np.float64)
    return np.concatenate([exact[:, :2], exact[:, 2:] - exact[:, :2]], axis=1)


def _numbered(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the rows of all pictures, each behind the number of its picture."""
    rows = (np.insert(table, 0, number, axis=1) for number, table in enumerate(pictures))
    return np.concatenate([np.zeros((0, 7)), *rows])


def _metrics(
    images: int, labels: np.ndarray, areas: np.ndarray, classes: Sequence[str], curves: dict[str, np.ndarray]
) -> Metrics:
    # precision is [IoU thresholds, recall steps, classes, sizes, 1] and recall lacks the second; -1 means undefined.
    precision, recall = curves["precision"][..., 0], curves["recall"][..., 0]
    at50, at75 = (int(np.argmin(np.abs(_PARAMS.iouThrs - iou))) for iou in (0.5, 0.75))
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    ranges = zip(SIZES, _PARAMS.areaRng[1:], strict=True)
    by_size = {f"boxes_{size}": int(((areas >= low) & (areas <= high)).sum()) for size, (low, high) in ranges}
    return {
        "values": {
            "AP": _mean(precision[..., 0]),
            "AP50": _mean(precision[at50, ..., 0]),
            "AP75": _mean(precision[at75, ..., 0]),
            **{f"AP_{size}": _mean(precision[..., i]) for i, size in enumerate(SIZES, start=1)},
            "AR": _mean(recall[..., 0]),
        },
        "counts": {"images": images, "boxes": sum(counts), **by_size},
        "per_class": {
            name: {"AP": _mean(precision[:, :, k, 0]), "AP50": _mean(precision[at50, :, k, 0]), "boxes": counts[k]}
            for k, name in enumerate(classes)
        },
    }


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _add_row(table: Table, name: str, boxes: int, *values: float | None) -> None:
    few = boxes < FEW_BOXES
    numbers = ["-" if value is None else f"{value:.3f}" for value in values]
    table.add_row(name, f"{boxes}{'*' if few else ' '}", *numbers, style="dim" if few else "")

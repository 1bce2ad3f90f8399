"""How good found points are."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from rich.table import Table

from tlx.data.targets import iou
from tlx.errors import TrainingError
from tlx.evaluate.evaluator import Evaluator, Metric
from tlx.registry import evaluators


class Record(NamedTuple):
    """Of one picture's visible points: their objects' labels, how far off each is, and how far that may be."""

    labels: np.ndarray
    errors: np.ndarray
    allowed: np.ndarray


@evaluators.register("pck")
@dataclass(frozen=True)
class Pck(Evaluator):
    """The share of points that are found right (PCK), and how many pixels they are off on average.

    A point is right within `share` of its object's longer side. A point of an object that was not found is off by the
    picture's diagonal. Source: Yang and Ramanan, Articulated Human Detection, PAMI 2013.
    """

    task: ClassVar[str] = "keypoints"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("PCK"), Metric("pixel_error", "minimize", 1000.0))
    primary: ClassVar[str] = "PCK"

    share: float = 0.2

    def match(self, example, prediction, classes):
        if not np.isfinite(prediction.points).all():
            raise TrainingError(f"{example.image}: a point is not finite; lower fit.learning_rate")
        truth, labels, errors, allowed = example.targets, [], [], []
        for box, label, points, visible in zip(*truth.arrays.values(), strict=True):
            same = np.flatnonzero(prediction.labels == label)
            overlaps = iou(box, prediction.boxes[same])
            off = np.full(len(points), np.hypot(example.width, example.height))
            if len(same) and overlaps.max() > 0:
                off = np.linalg.norm(prediction.points[same[overlaps.argmax()]] - points, axis=1)
            labels += [label] * int(visible.sum())
            errors += off[visible].tolist()
            allowed += [self.share * max(box[2:] - box[:2])] * int(visible.sum())
        return Record(np.array(labels, np.int32), np.array(errors), np.array(allowed))

    def summarize(self, records, classes):
        labels, errors, allowed = (
            np.concatenate(column) if records else np.zeros(0) for column in zip(*records, strict=True)
        )
        per_class = {
            name: {**_values(errors[labels == i], allowed[labels == i]), "points": int((labels == i).sum())}
            for i, name in enumerate(classes)
        }
        counts = {"images": len(records), "points": len(errors)}
        return {"primary": "PCK", "values": _values(errors, allowed), "counts": counts, "per_class": per_class}

    def table(self, metrics):
        table = Table("class", "PCK", "pixel error", title=f"{metrics['counts']['points']} points")
        for name, values in {"all": metrics["values"], **metrics["per_class"]}.items():
            shown = ("-" if values[m.name] is None else f"{values[m.name]:.3f}" for m in self.metrics)
            table.add_row(name, *shown)
        return table


def _values(errors, allowed):
    if not len(errors):
        return {"PCK": None, "pixel_error": None}
    return {"PCK": float((errors <= allowed).mean()), "pixel_error": float(errors.mean())}

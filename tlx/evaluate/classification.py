"""How often the class of a picture is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from tlx.data.dataset import Example
from tlx.errors import ModelError, TrainingError
from tlx.evaluate.evaluator import Evaluator, Metric, Metrics
from tlx.registry import evaluators
from tlx.tasks.classification import ClassScores

FEW_IMAGES = 30
_TOP = 5


class Record(NamedTuple):
    """Of one picture: its class, the class that it was taken for, and how many classes came before the right one."""

    label: int
    predicted: int
    rank: int


@evaluators.register("classification")
@dataclass(frozen=True)
class ClassificationEvaluator(Evaluator):
    """Accuracy, overall and by class, and what was taken for what.

    "top5_accuracy" counts a picture as right where its class is among the five most likely, and
    "balanced_accuracy" is the mean of the classes' accuracies, so that rare ones count like common ones.
    """

    task: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = tuple(map(Metric, ("accuracy", "top5_accuracy", "balanced_accuracy")))
    primary: ClassVar[str] = "accuracy"

    def match(self, example: Example, prediction: ClassScores, classes: Sequence[str]) -> Record:
        """Return how a picture's scores compare with its class.

        Raises:
          ModelError: there is not one score for each class.
          TrainingError: a score is not finite.
        """
        scores = prediction.scores
        if scores.shape != (len(classes),):
            raise ModelError(f"{example.image}: {scores.shape[0]} scores for {len(classes)} classes")
        if not np.isfinite(scores).all():
            raise TrainingError(
                f"{example.image}: a score is not finite; the weights probably diverged: lower fit.learning_rate"
            )
        label = int(example.targets.labels[0])
        # Of equal scores the first counts as the higher one, as it does for the most likely class.
        rank = (scores > scores[label]).sum() + (scores[:label] == scores[label]).sum()
        return Record(label, prediction.best, int(rank))

    def summarize(self, records: Sequence[Record], classes: Sequence[str]) -> Metrics:
        """Return the metrics of a set of pictures, ready for JSON.

        "confusion" is a list of rows: how many pictures of each class (row) were taken for each class (column), in
        the order of `classes`. A class without pictures has None for its accuracy, and counts in no mean.
        """
        table = np.zeros((len(classes), len(classes)), np.int64)
        for record in records:
            table[record.label, record.predicted] += 1
        images = table.sum(1)
        right = [int(table[i, i]) / int(n) if n else None for i, n in enumerate(images)]
        known = [value for value in right if value is not None]
        total = len(records)
        values = {
            "accuracy": int(np.trace(table)) / total if total else None,
            "top5_accuracy": sum(record.rank < _TOP for record in records) / total if total else None,
            "balanced_accuracy": sum(known) / len(known) if known else None,
        }
        named = zip(classes, right, images.tolist(), strict=True)
        return {
            "primary": self.primary,
            "values": values,
            "counts": {"images": total},
            "per_class": {name: {"accuracy": accuracy, "images": count} for name, accuracy, count in named},
            "confusion": table.tolist(),
        }

    def table(self, metrics: Metrics) -> Table:
        """Return the accuracy of each class, and what its pictures were most often taken for instead.

        Rows that rest on fewer than `FEW_IMAGES` pictures are dimmed and starred, as a few of them can move these.
        """
        table = Table(title=f"{metrics['counts']['images']} images", caption=f"* fewer than {FEW_IMAGES} images")
        table.add_column("")
        table.add_column("images", justify="right")
        table.add_column("accuracy", justify="right")
        table.add_column("mostly taken for")
        for name, value in metrics["values"].items():
            table.add_row(name.replace("_", " "), "", "-" if value is None else f"{value:.3f}", "")
        table.add_section()
        names = list(metrics["per_class"])
        for i, (name, known) in enumerate(metrics["per_class"].items()):
            few = known["images"] < FEW_IMAGES
            wrong = {names[j]: n for j, n in enumerate(metrics["confusion"][i]) if n and j != i}
            worst = max(wrong, key=wrong.get) if wrong else None
            shown = "-" if known["accuracy"] is None else f"{known['accuracy']:.3f}"
            cells = (escape(name), f"{known['images']}{'*' if few else ' '}", shown)
            table.add_row(*cells, escape(f"{worst} ({wrong[worst]})") if worst else "", style="dim" if few else "")
        return table

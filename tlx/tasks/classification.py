"""Telling the class of a whole picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tlx.augment import View
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import Targets
from tlx.errors import ModelError
from tlx.registry import tasks
from tlx.report.pictures import caption
from tlx.tasks.task import Arrays, Task

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ClassScores:
    """How likely a picture is of each class: `scores` is float32 [classes], 0..1.

    Raises:
      ModelError: the shape or dtype is another.
    """

    scores: np.ndarray

    def __post_init__(self):
        if self.scores.ndim != 1 or self.scores.dtype != np.float32:
            raise ModelError(f"class scores: have {self.scores.shape} {self.scores.dtype}; expected float32 [classes]")

    @property
    def best(self) -> int:
        """The most likely class."""
        return int(self.scores.argmax())


@tasks.register("classification")
class Classification(Task):
    """A picture is of one of the known classes; `ImageClass` labels it."""

    name: ClassVar[str] = "classification"
    evaluator: ClassVar[str] = "classification"
    labels: ClassVar[str] = "labels"
    sized: ClassVar[bool] = False

    def room(self, dataset: Dataset, pictures: int) -> int:
        """Return 1: a picture has one class."""
        return 1

    def arrays(self, shown: Sequence[Targets], view: View, room: int) -> Arrays:
        """Return the label, int32 []."""
        return dict(shown[0].arrays)

    def worst(self, count: int, size: tuple[int, int], room: int) -> Arrays:
        return {"label": np.zeros(count, np.int32)}

    def prediction(self, found: Mapping[str, np.ndarray], view: View, example: Example) -> ClassScores:
        return ClassScores(found["scores"])

    def join(self, predictions: Sequence[ClassScores]) -> ClassScores:
        """Return the mean of the scores."""
        return ClassScores(np.mean([one.scores for one in predictions], axis=0, dtype=np.float32))

    def draw(
        self,
        picture: Image.Image,
        prediction: ClassScores,
        targets: Targets | None,
        classes: Sequence[str],
        min_score: float = 0.3,
    ) -> Image.Image:
        """Return the picture with the most likely class beneath it and, where that is wrong, the true one."""
        said = f"{classes[prediction.best]} {prediction.scores[prediction.best]:.0%}"
        true = None if targets is None else int(targets.labels[0])
        if true is None:
            return caption(picture, said, None)
        right = prediction.best == true
        return caption(picture, said if right else f"{said}, is {classes[true]}", right)

    def draw_arrays(self, picture: Image.Image, arrays: Arrays, classes: Sequence[str]) -> Image.Image:
        return caption(picture, classes[int(arrays["label"])], None)

    def to_json(self, prediction: ClassScores, classes: Sequence[str]) -> dict[str, Any]:
        """Return {"class", "score", "scores": the most likely classes with theirs, best first}."""
        best = np.argsort(-prediction.scores, kind="stable")[:_SHOWN].tolist()
        scores = {classes[i]: float(prediction.scores[i]) for i in best}
        return {"class": classes[best[0]], "score": scores[classes[best[0]]], "scores": scores}

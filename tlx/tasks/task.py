"""What a task is: what a picture's labels and a model's predictions mean, in one object."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from tlx import registry
from tlx.augment import View
from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.doctor.patient import Patient
from tlx.data.targets import Targets
from tlx.errors import DataError, suggest

Arrays = dict[str, np.ndarray]


class Task(ABC):
    """Knows the labels and predictions of one task, and nothing of models; one file holds all of it.

    `name` is the registered name, as `Dataset.task` and `Head.task` give it. `evaluator` is the registered
    name of the evaluator that judges it by default. `combines` is whether augmentations may put several pictures into
    one. `labels` is what a report calls the labels of pictures, and `sized` whether each is of a place in a picture,
    whose size is worth telling. A prediction is what `prediction` returns; only the task, its evaluators and its heads
    look into one.
    """

    name: ClassVar[str]
    evaluator: ClassVar[str]
    combines: ClassVar[bool] = False
    labels: ClassVar[str] = "objects"
    sized: ClassVar[bool] = True

    @abstractmethod
    def room(self, dataset: Dataset, pictures: int) -> Any:
        """Return how much room the arrays of a view of so many pictures of a dataset need at most.

        It is in the task's own terms, such as a number of boxes; `arrays` and `worst` are given it.
        """

    @abstractmethod
    def arrays(self, shown: Sequence[Targets], view: View, room: Any) -> Arrays:
        """Return the targets of a view: `shown` are those of the picture in each of its layers.

        All views of a dataset give arrays of the same names, shapes and dtypes, so that they form batches.
        """

    @abstractmethod
    def worst(self, count: int, size: tuple[int, int], room: Any) -> Arrays:
        """Return made-up arrays [count, ...] of the kind that takes most memory in training."""

    @abstractmethod
    def prediction(self, found: Mapping[str, np.ndarray], view: View, example: Example) -> Any:
        """Return what a head found in one picture, in the picture's own terms.

        `found` are the arrays of `BuiltHead.postprocess` for one example, in terms of the input that `view` shows.
        """

    @abstractmethod
    def join(self, predictions: Sequence[Any]) -> Any:
        """Return one prediction of a picture from several, such as those of its windows or of a mirrored view.

        Each is in terms of the whole picture. What several of them saw, because windows overlap, belongs in it once.
        """

    def fuse(self, predictions: Sequence[Any]) -> Any:
        """Return one prediction of a picture from several that all saw the whole of it: by default, joined ones."""
        return self.join(predictions)

    @abstractmethod
    def draw(
        self,
        picture: Image.Image,
        prediction: Any,
        targets: Targets | None,
        classes: Sequence[str],
        min_score: float = 0.3,
    ) -> Image.Image:
        """Return a copy of a picture that shows a prediction and, if `targets` are given, the truth beside it."""

    def draw_arrays(self, picture: Image.Image, arrays: Arrays, classes: Sequence[str]) -> Image.Image:
        """Return an input picture with what `arrays` gave for it drawn: by default, nothing."""
        return picture

    @abstractmethod
    def to_json(self, prediction: Any, classes: Sequence[str]) -> dict[str, Any]:
        """Return a prediction as values that JSON can hold, for the picture's row in `predictions.json`."""

    def results(self, image: str, number: int, prediction: Any, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of a picture in `predictions-SPLIT.json`: by default, one.

        `image` is its path as `data.json` lists it, and `number` its place in that list, from 0.
        """
        return [{"image": image, **self.to_json(prediction, classes)}]

    def check(self, patient: Patient) -> Iterator[Finding]:
        """Yield what is odd about a dataset's labels, beyond what holds for every task."""
        yield from ()


def task_of(name: str) -> Task:
    """Return the task that is registered under a name.

    Raises:
      DataError: there is none.
    """
    if name not in registry.tasks.entries:
        registry.discover()
    known = registry.tasks.entries
    if name not in known:
        raise DataError(f"there is no task {name!r}{suggest(name, known)} (there are {', '.join(sorted(known))})")
    return known[name].factory()

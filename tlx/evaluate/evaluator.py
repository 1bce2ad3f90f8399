"""What an evaluator is: metrics that are declared, matched picture by picture, and summed up."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rich.table import Table

from tlx.data.dataset import Dataset, Example
from tlx.errors import ConfigError, ModelError, suggest

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """A number that an evaluator gives, which of its ends is the better one, and the value of a useless model.

    Raises:
      ConfigError: the metric is to be minimized, and a useless model would have the best value.
    """

    name: str
    direction: Literal["maximize", "minimize"] = "maximize"
    worst: float = 0.0

    def __post_init__(self):
        if self.direction == "minimize" and self.worst <= 0:
            raise ConfigError(f"the metric {self.name} is to be minimized: say which value a useless model has (worst)")

    def score(self, metrics: Metrics) -> float:
        """Return the metric's value as a number that is the higher the better; undefined ones are as bad as can be."""
        value = metrics["values"][self.name]
        return self.lowest if value is None else self._signed(value)

    @property
    def lowest(self) -> float:
        """The score of a useless model."""
        return self._signed(self.worst)

    def _signed(self, value: float) -> float:
        return value if self.direction == "maximize" else -value


class Evaluator(ABC):
    """Judges predictions of the task that `task` names.

    `metrics` are what it gives, and `primary` names the one that training and searching go by. Judging has two
    steps, so that samples of pictures can be summed up without matching them again: `match` compares one picture's
    prediction with its labels, and `summarize` makes metrics of such comparisons.
    """

    task: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    primary: ClassVar[str]

    @abstractmethod
    def match(self, example: Example, prediction: Any, classes: Sequence[str]) -> Any:
        """Return a record of how the prediction of one picture compares with its labels.

        Raises:
          ModelError, TrainingError: the prediction is not sound; the picture is named.
        """

    @abstractmethod
    def summarize(self, records: Sequence[Any], classes: Sequence[str]) -> Metrics:
        """Return metrics of a set of pictures from their records, ready for JSON.

        "values" holds a number or None (nothing defines it) for each of `metrics`, "primary" the name of the
        primary one, "counts" what the numbers rest on, and "per_class" a dict of numbers by class name.
        """

    @abstractmethod
    def table(self, metrics: Metrics) -> Table:
        """Return metrics laid out for people."""

    def __call__(self, dataset: Dataset, predictions: Sequence[Any]) -> Metrics:
        """Return the metrics of one prediction for each example of a dataset, in the same order.

        Raises:
          ModelError, TrainingError: predictions are too few or too many, or one is not sound.
        """
        pairs = paired(dataset, predictions)
        return self.summarize([self.match(*pair, dataset.classes) for pair in pairs], dataset.classes)

    def quick(self, dataset: Dataset, predictions: Sequence[Any]) -> Metrics:
        """Return what calling the evaluator returns, sooner where it knows how: for looks while a run goes on.

        Whoever changes what calling returns changes this as well.
        """
        return self(dataset, predictions)

    def judge(
        self, dataset: Dataset, predictions: Sequence[Any], metric: str | None = None, quick: bool = False
    ) -> Metrics:
        """Return the metrics, with that of the given name, if any, as the primary one: the one that decides."""
        found = self.quick(dataset, predictions) if quick else self(dataset, predictions)
        return {**found, "primary": self.metric(metric).name}

    def metric(self, name: str | None = None, owner: str = "metric") -> Metric:
        """Return the metric of that name, or the primary one.

        `owner` is the setting that names it, for messages.

        Raises:
          ConfigError: there is no such metric; the message names the closest one.
        """
        known = {metric.name: metric for metric in self.metrics}
        name = name or self.primary
        if name not in known:
            raise ConfigError(f"{owner} = {name!r} is no metric{suggest(name, known)} (there are {', '.join(known)})")
        return known[name]


def paired(dataset: Dataset, predictions: Sequence[Any]) -> list[tuple[Example, Any]]:
    """Return each example with its prediction.

    Raises:
      ModelError: predictions are too few or too many.
    """
    if len(predictions) != len(dataset):
        raise ModelError(f"{dataset.name}: {len(predictions)} predictions for {len(dataset)} images")
    return list(zip(dataset.examples, predictions, strict=True))


def headline(metrics: Metrics) -> dict[str, float | None]:
    """Return the two values that one line tells: the primary one, and the next."""
    names = [metrics["primary"], *(name for name in metrics["values"] if name != metrics["primary"])][:2]
    return {name: metrics["values"][name] for name in names}


def in_words(metrics: Metrics) -> str:
    """Return the headline as text, such as "AP 0.515, AP50 0.948"."""
    return ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in headline(metrics).items())

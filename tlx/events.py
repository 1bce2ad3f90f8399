"""What a run or a search tells while it goes on, and what it may be answered: one protocol for all who listen."""

from dataclasses import dataclass, field
from typing import Any, Literal

# "stop" ends the training as if it were at its end; "prune" ends the run without a result.
Answer = Literal["continue", "stop", "prune"]
# What a metric on the sample of training pictures is called among a look's scalars.
_ON_TRAIN = "train/metric/"


class PrunedError(Exception):
    """A listener has seen enough of this run."""


@dataclass(frozen=True)
class Look:
    """What is known after look `number`, counted from 1, of `of` looks at the validation split.

    `score` is what the best look has most of. `phase` is counted from 0. `scalars` are means since the look before,
    named as in TensorBoard; `learning_rates` are those of the last update, by group of weights. `seconds` count from
    the run's beginning, all of its attempts together, `memory_bytes` is what the process held, and `gpu_percent` how
    busy the busiest GPU was, where there is one. `answer` is what a listener answered to it, once it has.
    """

    number: int
    of: int
    update: int
    updates: int
    epoch: float
    score: float
    metrics: dict[str, Any]
    scalars: dict[str, float]
    phase: int = 0
    learning_rates: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    memory_bytes: int = 0
    gpu_percent: int | None = None
    answer: Answer | None = None

    def record(self) -> dict[str, Any]:
        """Return the look as a line of `history.jsonl` holds it; the phase is counted from 1 there."""
        losses = {split: self._losses(f"{split}/loss") for split in ("train", "validation")}
        on_train = {k.removeprefix(_ON_TRAIN): v for k, v in self.scalars.items() if k.startswith(_ON_TRAIN)}
        return {
            "update": self.update,
            "updates": self.updates,
            "epoch": self.epoch,
            "phase": self.phase + 1,
            "losses": losses,
            "metrics": self.metrics,
            "metrics_on_training_sample": on_train,
            "learning_rates": self.learning_rates,
            "gradient_norm": self.scalars.get("train/gradient_norm"),
            "images_per_second": self.scalars.get("images_per_second"),
            "memory_bytes": self.memory_bytes,
            "gpu_percent": self.gpu_percent,
            "seconds": self.seconds,
            "answer": self.answer,
        }

    def _losses(self, prefix: str) -> dict[str, float]:
        found = {name.removeprefix(prefix): value for name, value in self.scalars.items() if name.startswith(prefix)}
        return {name.removeprefix("/") or "total": value for name, value in found.items()}


class Listener:
    """Whoever follows a run or a search: a terminal, a driver, another process. Each method may be left as it is."""

    def say(self, message: str) -> None:
        """Take one line of news."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take how far a piece of work is."""

    def phase(self, number: int, of: int) -> None:
        """Take that a run begins, or goes on with, phase `number`, counted from 0, of the `of` of its freeze policy."""

    def evaluated(self, look: Look) -> Answer:
        """Take a look at the validation split, and answer whether the run goes on; raising ends it, too."""
        return "continue"

    def trials(self, rows: list[dict[str, Any]], wanted: int) -> None:
        """Take all trials of a search so far, as `result.json` lists them, and how many are to be finished."""


NOBODY = Listener()

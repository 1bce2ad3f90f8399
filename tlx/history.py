"""What is known about a run so far, and how that outlasts its process."""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tlx import checkpoint, ownership
from tlx.errors import TlxError
from tlx.learner import Learner

_LAST, _BEFORE, _BEST = "checkpoint.npz", "checkpoint-before.npz", "best-{}.npz"
_BEST_FORM = re.compile(r"best-\d+\.npz")


@dataclass(frozen=True)
class Look:
    """What is known after look `number`, counted from 1, of `of` looks at the validation split.

    `score` is what the best look has most of.
    """

    number: int
    of: int
    update: int
    updates: int
    epoch: float
    score: float
    metrics: dict[str, Any]
    scalars: dict[str, float]


@dataclass
class History:
    """How a run went: its looks, the best of them, its speed, and how long its attempts took, this one and earlier."""

    looks: list[Look] = field(default_factory=list)
    best: Look | None = None
    seconds: float = 0.0
    earlier_seconds: float = 0.0
    images_per_second: float = 0.0
    micro_batch: int = 0


def keep(learner: Learner, history: History, seen: Look, folder: Path, seconds: float) -> None:
    """Note down a look, and write a checkpoint of the learner; its weights apart where they are the best so far."""
    history.looks.append(seen)
    before = history.best
    if before is None or seen.score >= before.score:
        history.best = seen
        with learner.averaged():
            checkpoint.save(_best(folder, seen), learner.model_state, None)
    history.seconds = seconds
    if (folder / _LAST).exists():
        ownership.claim(folder / _LAST, folder / _BEFORE)
        (folder / _LAST).replace(folder / _BEFORE)
    checkpoint.save(folder / _LAST, learner.state, asdict(history))
    _tidy(folder, {_best(folder, look) for look in (before, history.best) if look})


def _best(folder: Path, look: Look) -> Path:
    # Named by its look, so that a checkpoint never meets the weights of a best look that it does not know of.
    return folder / _BEST.format(look.update)


def _tidy(folder: Path, wanted: set[Path]) -> None:
    for path in {path for path in folder.iterdir() if _BEST_FORM.fullmatch(path.name)} - wanted:
        ownership.discard(path)


def mend(folder: Path) -> str | None:
    """Where the last checkpoint in `folder` is damaged, go back to the one before, and return what to tell of it.

    Raises:
      TlxError: it is damaged, and there is none before.
    """
    if not (folder / _LAST).exists() and (folder / _BEFORE).exists():
        # It ended between two names.
        ownership.claim(folder / _LAST, folder / _BEFORE)
        (folder / _BEFORE).replace(folder / _LAST)
    try:
        checkpoint.notes(folder / _LAST)
    except TlxError as error:
        if not (folder / _BEFORE).exists():
            raise
        ownership.claim(folder / _LAST, folder / _BEFORE)
        (folder / _BEFORE).replace(folder / _LAST)
        return f"{str(error).partition(';')[0]}; the run goes on from the checkpoint before it"
    return None


def take_best(folder: Path, learner: Learner, history: History) -> None:
    """Give the learner the weights of the best look, at the end of a run, which needs no other checkpoint any more."""
    checkpoint.load(_best(folder, history.best), learner.model_state)
    ownership.discard(folder / _BEFORE)
    _tidy(folder, {_best(folder, history.best)})


def seen_updates(folder: Path) -> int:
    """Return how many updates the run in `folder` had done at its last checkpoint; 0 where there is none."""
    notes = checkpoint.notes(folder / _LAST)
    return notes["looks"][-1]["update"] if notes else 0


def resume(folder: Path, learner: Learner, history: History) -> int:
    """Bring learner and history to the last checkpoint in `folder`, and return how many updates that had seen."""
    notes = checkpoint.load(folder / _LAST, learner.state)
    if notes is None:
        return 0
    for name, value in notes.items():
        setattr(history, name, value)
    history.looks = [Look(**look) for look in notes["looks"]]
    history.best = Look(**notes["best"])
    history.earlier_seconds = history.seconds
    return history.looks[-1].update

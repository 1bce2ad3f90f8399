"""What is known about a run so far, and how that outlasts its process."""

import contextlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tlx import checkpoint, ownership
from tlx.devices import Devices
from tlx.errors import TlxError
from tlx.events import Answer, Look
from tlx.learner import Learner

_LAST, _BEFORE, _BEST = "checkpoint.npz", "checkpoint-before.npz", "best-{}.npz"
_BEST_FORM = re.compile(r"best-\d+\.npz")
_LINES = "history.jsonl"


@dataclass
class History:
    """How a run went: its looks, the best of them, its speed, and how long its attempts took, this one and earlier.

    `phase` is the one that it is in, and `micro_batches` how many examples fitted in memory at once in each phase so
    far; 0 where it had no updates. `halved` are the phases in which more were tried and did not fit. `stopped` is
    whether the training ended early, and `converged` whether that was because looks got no better. `began` is when this
    attempt did, by `time.monotonic`. `fills` is how many seconds it took to fill each feature cache that was used,
    by its key; 0 where all was there.
    """

    looks: list[Look] = field(default_factory=list)
    best: Look | None = None
    seconds: float = 0.0
    earlier_seconds: float = 0.0
    images_per_second: float = 0.0
    micro_batches: list[int] = field(default_factory=list)
    halved: list[int] = field(default_factory=list)
    phase: int = 0
    stopped: bool = False
    converged: bool = False
    fills: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """The seconds that the run's attempts have taken, each from its beginning: this one and those before it."""
        return self.earlier_seconds + time.monotonic() - self.began

    def enter(self, phase: int) -> None:
        """Be in a phase, the one that it was in already or a later one."""
        self.phase = phase
        self.micro_batches += [0] * (phase + 1 - len(self.micro_batches))

    def filled(self, key: str, seconds: float) -> None:
        """Note that a cache was used, and how long it took to compute what was missing there."""
        self.fills[key] = self.fills.get(key, 0.0) + seconds

    def fits(self, micro: int, halved: bool) -> None:
        """Note that so many examples fit at once in this phase, and whether more did not."""
        self.micro_batches[self.phase] = micro
        if halved and self.phase not in self.halved:
            self.halved.append(self.phase)


def keep(learner: Learner, history: History, seen: Look, folder: Path) -> None:
    """Note down a look, and write a checkpoint of the learner; its weights apart where they are the best so far."""
    history.looks.append(seen)
    before = history.best
    if before is None or seen.score >= before.score:
        history.best = seen
        with learner.averaged():
            checkpoint.save(_best(folder, seen), learner.model_state, None)
    history.seconds = seen.seconds
    save(learner, history, folder)
    record(folder, history)
    _tidy(folder, {_best(folder, look) for look in (before, history.best) if look})


def save(learner: Learner, history: History, folder: Path) -> None:
    """Write a checkpoint of the learner, and keep the one before it under another name."""
    if (folder / _LAST).exists():
        ownership.claim(folder / _LAST, folder / _BEFORE)
        (folder / _LAST).replace(folder / _BEFORE)
    # A later attempt has a clock of its own.
    notes = {name: value for name, value in asdict(history).items() if name != "began"}
    checkpoint.save(folder / _LAST, learner.state, notes)


def note_answer(folder: Path, history: History, answer: Answer) -> None:
    """Note down what was answered to the last look: in `history.jsonl`, for a checkpoint is large."""
    history.looks[-1] = replace(history.looks[-1], answer=answer)
    record(folder, history)


def record(folder: Path, history: History) -> None:
    """Write `history.jsonl`: one line for each look that the last checkpoint knows of, and no other."""
    lines = (json.dumps(look.record()) + "\n" for look in history.looks)
    checkpoint.write(folder / _LINES, "".join(lines).encode())


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
    """Give the learner the weights of the best look, at the end of a run, which needs no other checkpoint any more.

    Of several workers only the chief reads them, and tells the others.
    """
    if learner.devices.chief:
        checkpoint.load(_best(folder, history.best), learner.model_state)
        ownership.discard(folder / _BEFORE)
        _tidy(folder, {_best(folder, history.best)})
    learner.devices.follow(learner.model_state)


def first_untold(folder: Path) -> int:
    """Return the first update of the run in `folder` whose look is to be told: the last one, if nobody answered it."""
    notes = checkpoint.notes(folder / _LAST)
    if not notes:
        return 1
    last = Look(**notes["looks"][-1])
    return last.update + bool(_answer(folder, last))


def reached(folder: Path, variables: Sequence[Any], phases: int, devices: Devices) -> int:
    """Return which of a run's phases, counted from 0, the last checkpoint in `folder` is of; 0 where there is none.

    Past the first one, `variables`, which are all that any phase changes, are given their values from there, so that
    the phase begins as it did: what it freezes, earlier ones may have changed.

    Raises:
      TlxError: the checkpoint is of another policy with more phases, or of another model.
    """
    phase = devices.told(_phase(checkpoint.notes(folder / _LAST)) if devices.chief else 0)
    if phase >= phases:
        raise TlxError(
            f"{folder / _LAST} was written in phase {phase + 1}, and run.freeze has only {phases} now;"
            " use another --run_dir, or --overwrite"
        )
    if phase:
        if devices.chief:
            checkpoint.load(folder / _LAST, variables, more=True)
        devices.follow(variables)
    return phase


def resume(folder: Path, learner: Learner, history: History, phase: int) -> int:
    """Bring learner and history to the last checkpoint in `folder`, and return how many updates that had seen.

    Nothing happens, and 0 is returned, where there is none or it is of another phase: this one has only begun then.
    """
    notes = checkpoint.notes(folder / _LAST)
    if notes is None or _phase(notes) != phase:
        return 0
    checkpoint.load(folder / _LAST, learner.state)
    for name, value in notes.items():
        setattr(history, name, value)
    history.looks = [Look(**look) for look in notes["looks"]]
    history.looks[-1] = replace(history.looks[-1], answer=_answer(folder, history.looks[-1]))
    history.best = Look(**notes["best"])
    history.earlier_seconds = history.seconds
    return history.looks[-1].update


def _answer(folder: Path, last: Look) -> Answer | None:
    path = folder / _LINES
    # The checkpoint was written before it was answered.
    noted = last.answer or _noted(path.read_text(errors="replace") if path.exists() else "", last.update)
    # Another run of this trial may be told otherwise than to end without a result.
    return noted if noted in ("continue", "stop") else None


def _noted(lines: str, update: int) -> Any:
    """Return what `history.jsonl` says was answered after an update; None where somebody has changed the file."""
    for line in lines.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            look = json.loads(line)
            if look["update"] == update:
                return look["answer"]
    return None


def _phase(notes: Any) -> int:
    return notes.get("phase", 0) if notes else 0

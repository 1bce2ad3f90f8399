"""Training that always fits: micro-batches chosen by what was measured, and halved where that was wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlx import checkpoint
from tlx.config import Experiment, build
from tlx.errors import TlxError, TrainingError
from tlx.memory import Limit, Memory
from tlx.report.runlog import Listener
from tlx.work.hand import Hand, Outcome
from tlx.work.ledger import Ledger, Need, kind

LEDGER = Path("~/.cache/tlx/memory.json")
# Two sizes give a line; where the larger one does not fit, the smaller ones say less, but something.
_PROBES = ((2, 8), (1, 2))
# What these arguments of `run` say makes no difference to the memory that a step takes.
_WITHOUT = ("fit", "seed", "judge", "evaluator", "augment", "memory")


class Attempts:
    """Runs experiments in a worker process, each as often as its memory demands, and never too large.

    `sharing` is how many such processes share the memory. `hear` is told of (kind, content), as
    `tlx.work.hand.Hand.do` says, and of what is decided here.
    """

    def __init__(self, experiment: Experiment, settings: Memory, file: Path, log: Path, sharing: int = 1):
        self.experiment, self.settings = experiment, settings
        whole = settings.limit()
        self.limit = Limit(whole.bytes // sharing, whole.why + (f", shared by {sharing}" if sharing > 1 else ""))
        watched = settings.resident()
        watched = Limit(watched.bytes // sharing, watched.why)
        self.ledger = Ledger(LEDGER)
        self.hand = Hand(file, experiment.allow_imports, log, watched)
        # Measures in a process of its own: one that has worked before uses again what it holds, and tells too little.
        self._prober = Hand(file, experiment.allow_imports, log, watched)
        self._stopped = False

    def stop(self) -> None:
        """End the worker; what it was at ends as "lost", and nothing more is begun."""
        self._stopped = True
        self.hand.stop()
        self._prober.stop()

    def train(
        self, bindings: list[str], folder: Path, more: list[str], hear: Callable[[str, Any], str | None]
    ) -> Outcome:
        """Train one experiment to its end in `folder`; ("infeasible", why) where not even one example fits.

        `more` are bindings that change nothing about the memory. A worker that dies for want of memory is
        replaced; the next one goes on from the last checkpoint with half the micro-batch.
        """
        experiment = self.experiment.with_bindings(bindings)
        what = describe(experiment)
        need = self._need(what, bindings, hear)
        batch = experiment.value("fit.batch_size")
        wanted = min(batch, experiment.value("fit.micro_batch") or batch)
        micro = need.largest(wanted, self.limit.bytes, self.settings.margin) if need else wanted
        if need and micro:
            predicted = f"predicted peak {need.peak(micro) / 1e9:.2f} GB of {self._allowed()}"
            hear("say", f"{micro} of {batch} examples at once: {predicted}")
        while micro and not self._stopped:
            outcome = self.hand.do("train", [*bindings, *more], hear, folder=folder, micro=micro)
            if outcome.kind != "memory":
                return outcome
            need = self.ledger.died(kind(what), micro, what)
            hear("say", f"{micro} examples at once were too many: {outcome.content}")
            micro //= 2
        if self._stopped:
            return Outcome("lost", "ended")
        return Outcome("infeasible", self._infeasible(experiment, need))

    def judge(self, bindings: list[str], folder: Path, hear: Callable[[str, Any], str | None]) -> Outcome:
        """Judge the detector that was trained in `folder`."""
        return self.hand.do("judge", bindings, hear, folder=folder)

    def need(self, bindings: list[str], hear: Callable[[str, Any], str | None] = lambda *_: None) -> Need | None:
        """Return how much memory an experiment takes, measured if it is not known yet; None where that failed."""
        return self._need(describe(self.experiment.with_bindings(bindings)), bindings, hear)

    def _need(self, what: str, bindings: list[str], hear: Callable[[str, Any], str | None]) -> Need | None:
        known = self.ledger.get(kind(what))
        if known or not self.settings.probe:
            return known
        for micros in _PROBES:
            outcome = self._prober.do("probe", bindings, hear, micros=micros)
            self._prober.stop()
            if outcome.kind == "done":
                need = Need(**outcome.content)
                self.ledger.put(kind(what), need, what)
                return need
            if outcome.kind != "memory":
                return None
        return self.ledger.died(kind(what), 1, what)

    def _allowed(self) -> str:
        return f"{self.limit.bytes / 1e9:.2f} GB ({self.limit.why})"

    def _infeasible(self, experiment: Experiment, need: Need | None) -> str:
        first = f"not even one example fits in {self._allowed()}"
        if not need or not need.fixed:
            return f"{first}; try a smaller run.image_size, fewer unfrozen layers or a smaller backbone"
        size = experiment.value("run.image_size")
        sides = (size, size) if isinstance(size, int) else size
        smaller = tuple(side * 3 // 4 // 32 * 32 for side in sides)
        area = smaller[0] * smaller[1] / (sides[0] * sides[1])
        return (
            f"{first}: it takes {need.peak(1) / 1e9:.2f} GB, {need.fixed / 1e9:.2f} GB of that whatever its size;"
            f" run.image_size = {smaller} would take about {Need(need.fixed, need.each * area).peak(1) / 1e9:.2f} GB;"
            " fewer unfrozen layers and a smaller backbone take less, too (`tlx memory` measures how much)"
        )


def describe(experiment: Experiment) -> str:
    """Return in words the kind of run that an experiment is: all that the memory of its steps depends on."""
    arguments = experiment.trees["run"].arguments
    parts = [f"{name} = {value}" for name, value in arguments.items() if name not in _WITHOUT]
    strategy = f"strategy = {experiment.value('fit.strategy')}"
    return "\n".join([*parts, f"ema = {experiment.value('fit.ema') is not None}", strategy])


def train(experiment: Experiment, folder: Path, listener: Listener) -> dict[str, Any]:
    """Train one experiment in a worker process and return what its `result.json` holds.

    Raises:
      TrainingError: it cannot be trained as it is configured, or the worker died for another reason than memory.
      TlxError: what only the user can mend.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write(folder / "config.gin", experiment.text().encode())
    settings = build(experiment.trees["run"].arguments["memory"])
    attempts = Attempts(experiment, settings, folder / "config.gin", folder / "worker.log")
    try:
        outcome = attempts.train([], folder, [], tells(listener))
    finally:
        attempts.stop()
    if outcome.kind == "done":
        return outcome.content
    raise (TlxError if outcome.kind == "refused" else TrainingError)(outcome.content.strip())


def tells(listener: Listener) -> Callable[[str, Any], str | None]:
    """Return what passes a worker's news on to a listener, and lets every trial go on."""

    def hear(kind: str, content: Any) -> str | None:
        getattr(listener, kind)(*(content if isinstance(content, tuple) else (content,)))
        return "go on" if kind == "look" else None

    return hear

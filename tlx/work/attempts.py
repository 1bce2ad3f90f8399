"""Training that always fits: micro-batches chosen by what was measured, and halved where that was wrong."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlx import checkpoint, gpu, ownership
from tlx.augment import arranged, pictures_of
from tlx.config import Experiment, build, build_value, given
from tlx.errors import ConfigError, TlxError, TrainingError
from tlx.events import NOBODY, Listener
from tlx.memory import Limit, Memory
from tlx.pipeline import height_width
from tlx.predict import BATCH
from tlx.tree import walk
from tlx.work.hand import Hand, Outcome
from tlx.work.ledger import Ledger, Need, kind
from tlx.work.verdict import wants_memory

LEDGER = Path("~/.cache/tlx/memory.json")
# Two sizes give a line; where the larger one does not fit, the smaller ones say less, but something.
_PROBES = ((2, 16), (1, 2))
# What these arguments of `run` say makes no difference to the memory that a step takes.
_WITHOUT = ("fit", "seed", "judge", "evaluator", "metric", "augment", "resize", "memory")


class Attempts:
    """Runs experiments in a worker process, each as often as its memory demands, and never too large.

    `sharing` is how many such processes share the memory. Listeners are told of
    what the runs tell, and of what is decided here.
    """

    def __init__(self, experiment: Experiment, settings: Memory, file: Path, log: Path, sharing: int = 1):
        self.experiment, self.settings = experiment, settings
        whole = settings.limit()
        self.limit = Limit(whole.bytes // sharing, whole.why + (f", shared by {sharing}" if sharing > 1 else ""))
        watched = settings.resident()
        watched = Limit(watched.bytes // sharing, watched.why)
        on_gpu = settings.on_gpu()
        self.ledger = Ledger(LEDGER)
        self.hand = Hand(file, experiment.allow_imports, log, watched, on_gpu)
        # Measures in a process of its own: one that has worked before uses again what it holds, and tells too little.
        self._prober = Hand(file, experiment.allow_imports, log, watched, on_gpu)
        self._stopped = False

    def stop(self) -> None:
        """End the worker; what it was at ends as "lost", and nothing more is begun."""
        self._stopped = True
        self.hand.close()
        self._prober.close()

    def train(self, bindings: list[str], folder: Path, more: list[str], listener: Listener) -> Outcome:
        """Train one experiment to its end in `folder`; ("infeasible", why) where not even one example fits.

        `more` are bindings that change nothing about the memory. A worker that dies for want of memory is
        replaced; the next one goes on from the last checkpoint with half the micro-batch.
        """
        try:
            experiment = self.experiment.with_bindings(bindings)
        except ConfigError as error:
            # Values that are each sound need not be so together.
            return Outcome("infeasible", str(error))
        what = describe(experiment)
        need = self._need(what, bindings, listener)
        batch = experiment.value("fit.batch_size")
        wanted = min(batch, experiment.value("fit.micro_batch") or batch)
        micro = need.largest(wanted, self.limit.bytes, self.settings.margin) if need else wanted
        if need and micro:
            predicted = f"predicted peak {need.peak(micro) / 1e9:.2f} GB of {self._allowed()}"
            listener.say(f"{micro} of {batch} examples at once: {predicted}")
        while micro and not self._stopped:
            outcome = self.hand.do("train", [*bindings, *more], listener, folder=folder, micro=micro)
            if gpu.free() is not None:
                # What it held of the machine says nothing about the GPU.
                outcome = replace(outcome, held=0)
            smaller = _smaller(outcome, micro, need, self.settings.margin)
            if smaller is not None:
                need = self.ledger.died(kind(what), smaller, self.limit.bytes, what)
            if outcome.kind == "done" or smaller is None:
                return outcome
            listener.say(f"{micro} examples at once were too many: {outcome.content}")
            micro = smaller
        if self._stopped:
            return Outcome("lost", "ended")
        return Outcome("infeasible", self._infeasible(bindings, need, listener))

    def judge(self, bindings: list[str], folder: Path, listener: Listener) -> Outcome:
        """Judge the detector that was trained in `folder`, with as many pictures at once as fit."""
        at_once = BATCH
        while (outcome := self.hand.do("judge", bindings, listener, folder=folder, at_once=at_once)).kind == "memory":
            if at_once == 1:
                break
            at_once //= 2
        return outcome

    def need(self, bindings: list[str], listener: Listener = NOBODY) -> Need | None:
        """Return how much memory an experiment takes, measured if it is not known yet; None where that failed."""
        return self._need(describe(self.experiment.with_bindings(bindings)), bindings, listener)

    def _need(self, what: str, bindings: list[str], listener: Listener) -> Need | None:
        known = self.ledger.get(kind(what))
        # Where measuring itself died, there may be more room now.
        if (known and (known.fixed or known.largest_tried(1, self.limit.bytes) == 0)) or not self.settings.probe:
            return known
        for micros in _PROBES:
            outcome = self._prober.do("probe", bindings, listener, micros=micros)
            self._prober.stop()
            if outcome.kind == "done":
                need = Need(**outcome.content)
                self.ledger.put(kind(what), need, what)
                return need
            if outcome.kind != "memory":
                return None
        return self.ledger.died(kind(what), 0, self.limit.bytes, what)

    def _allowed(self) -> str:
        return f"{self.limit.bytes / 1e9:.2f} GB ({self.limit.why})"

    def _infeasible(self, bindings: list[str], need: Need | None, listener: Listener) -> str:
        takes = f": it takes {need.peak(1) / 1e9:.2f} GB" if need and need.fixed else ""
        ways = []
        for changed, more in changes(self.experiment.with_bindings(bindings)):
            change = ", ".join(changed)
            listener.say(f"not even one example fits; would it with {change}?")
            try:
                other = self.need([*bindings, *changed, *more], listener)
            except ConfigError as error:
                ways.append(f"\n  {change}: does not go with the rest: {error}")
                continue
            if other:
                takes_less = f"{other.peak(1) / 1e9:.2f} GB, which " if other.fixed else ""
                fits = other.largest(1, self.limit.bytes, self.settings.margin)
                ways.append(f"\n  {change}: {takes_less}{'fits' if fits else 'does not fit either'}")
        measured = "".join(["; measured with other bindings:", *ways]) if ways else ""
        margin = f" with memory.margin = {self.settings.margin:g}"
        return f"not even one example fits in {self._allowed()}{margin}{takes}{measured}\n{_ADVICE}"


_ADVICE = "make run.image_size smaller, let less train, take a smaller run.backbone, or give it more memory"


def _smaller(outcome: Outcome, micro: int, need: Need | None, margin: float) -> int | None:
    """Return the next micro-batch to try where `micro` was too many, 0 where there is none; None where it was not."""
    if outcome.kind == "done":
        # On a GPU the training loop has halved it by itself.
        used = outcome.content["micro_batch"]
        return used if used < micro else None
    if outcome.kind == "infeasible" and wants_memory(outcome.content):
        return 0
    if outcome.kind != "memory" or micro == 1:
        return 0 if outcome.kind == "memory" else None
    # What it held when it died is what it may hold, if nobody else knows the limit.
    seen = need.largest(micro, outcome.held, margin) if need and need.fixed and outcome.held else micro
    return max(1, min(micro // 2, seen))


def changes(experiment: Experiment) -> Iterator[tuple[list[str], list[str]]]:
    """Yield bindings by which an experiment takes less memory, each with others that only measuring it needs.

    Beside a smaller picture they are what the experiment's factories say of themselves.
    """
    height, width = (side * 3 // 4 // 32 * 32 for side in height_width(experiment.value("run.image_size")))
    if min(height, width) > 0:
        yield [f"run.image_size = ({height}, {width})"], []
    for node in walk([experiment.trees["run"]]):
        if node.entry.smaller:
            yield from node.entry.smaller(**given(node, node.entry.smaller))


def describe(experiment: Experiment) -> str:
    """Return in words the kind of run that an experiment is: all that the memory of its steps depends on."""
    arguments = experiment.trees["run"].arguments
    parts = [f"{name} = {value}" for name, value in arguments.items() if name not in _WITHOUT]
    strategy = f"strategy = {experiment.value('fit.strategy')}"
    chosen = experiment.value("fit.optimizer")
    # Its numbers may well be searched, and hardly matter to the memory.
    optimizer = f"optimizer = {chosen.entry.full_name if hasattr(chosen, 'entry') else type(chosen).__name__}"
    # What is drawn makes no difference, but for how many pictures' objects there is room.
    pictures = f"pictures a view = {pictures_of(arranged(build_value(arguments.get('augment'))))}"
    return "\n".join([*parts, f"ema = {experiment.value('fit.ema') is not None}", optimizer, strategy, pictures])


def train(experiment: Experiment, folder: Path, listener: Listener) -> dict[str, Any]:
    """Train one experiment in a worker process and return what its `result.json` holds.

    Raises:
      TrainingError: it cannot be trained as it is configured, or the worker died for another reason than memory.
      TlxError: what only the user can mend.
    """
    ownership.take(folder, "run")
    checkpoint.write(folder / "config.gin", experiment.text().encode())
    settings = build(experiment.trees["run"].arguments["memory"])
    attempts = Attempts(experiment, settings, folder / "config.gin", folder / "worker.log")
    try:
        outcome = attempts.train([], folder, [], listener)
    finally:
        attempts.stop()
    if outcome.kind == "done":
        return outcome.content
    raise (TlxError if outcome.kind == "refused" else TrainingError)(outcome.content.strip())

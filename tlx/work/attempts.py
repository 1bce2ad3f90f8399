"""Training that always fits: micro-batches chosen by what was measured, and halved where that was wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tlx import checkpoint, gpu, ownership
from tlx.config import Experiment, build
from tlx.errors import ConfigError, TlxError, TrainingError
from tlx.events import NOBODY, Listener
from tlx.memory import Limit, Memory
from tlx.predict import BATCH
from tlx.work import kinds
from tlx.work.hand import Hand, Outcome, persist
from tlx.work.ledger import UNKNOWN, Ledger, Need, kind
from tlx.work.verdict import wants_memory

LEDGER = Path("~/.cache/tlx/memory.json")
# Two sizes give a line; where the larger one does not fit, the smaller ones say less, but something.
_PROBES = ((2, 16), (1, 2))
# What a process holds, in bytes, that has imported TensorFlow and waits for work; a little more than was measured.
_WAITING = 500_000_000


class Attempts:
    """Runs experiments in a worker process, each as often as its memory demands, and never too large.

    `sharing` is how many such processes share the memory, and `most` the largest values that runs may have of what
    takes more memory the larger it is, by their targets in full. Listeners are told of what the runs tell, and of what
    is decided here.
    """

    def __init__(
        self,
        experiment: Experiment,
        settings: Memory,
        file: Path,
        log: Path,
        sharing: int = 1,
        most: Mapping[str, int] | None = None,
    ):
        self.experiment, self.settings, self.most = experiment, settings, most or {}
        whole = settings.limit()
        self.limit = Limit(whole.bytes // sharing, whole.why + (f", shared by {sharing}" if sharing > 1 else ""))
        watched = settings.resident()
        watched = Limit(watched.bytes // sharing, watched.why)
        on_gpu = settings.on_gpu()
        self.ledger = Ledger(LEDGER)
        self.hand = Hand(file, experiment.allow_imports, log, watched, on_gpu)
        # Measures each phase in a process of its own: one that has worked before uses again what it holds, and tells
        # too little of what each example takes.
        self._prober = Hand(file, experiment.allow_imports, log, watched, on_gpu)
        self._beside = _WAITING * sharing
        self._stopped = False

    def stop(self) -> None:
        """End the worker; what it was at ends as "lost", and nothing more is begun."""
        self._stopped = True
        self.hand.close()
        self._prober.close()

    def train(self, bindings: list[str], folder: Path, more: list[str], listener: Listener) -> Outcome:
        """Train one experiment to its end in `folder`; ("infeasible", why) where not even one example fits.

        `more` are bindings that change nothing about the memory. A worker that dies for want of memory is
        replaced; the next one goes on from the last checkpoint with half the micro-batch in the phase that it was in.
        Where it had begun none, what all phases hold was too much, and all micro-batches are halved.
        """
        try:
            experiment = self.experiment.with_bindings(bindings)
        except ConfigError as error:
            # Values that are each sound need not be so together.
            return Outcome("infeasible", str(error))
        what = kinds.describe(experiment)
        # It gets ready while another process measures.
        ready = self.hand if self.settings.spares(self._beside) else None
        needs = self._bound(experiment, bindings, listener, ready)
        needs = needs or self._needs(experiment, bindings, listener, ready)
        needs = needs or UNKNOWN * kinds.phases(experiment)
        micros = self._fitting(experiment, needs, listener)
        while all(micros) and not self._stopped:
            outcome = self.hand.do("train", [*bindings, *more], listener, folder=folder, micros=micros)
            if gpu.free() is not None:
                # What it held of the machine says nothing about the GPU.
                outcome = replace(outcome, held=0)
            smaller = _smaller(outcome, micros, needs, self.settings.margin)
            learnt = any(micro is not None for micro in smaller)
            if learnt:
                needs = self.ledger.died(kind(what), smaller, self.limit.bytes, what)
            if outcome.kind == "done" or not learnt:
                return outcome
            listener.say(_too_many(outcome, micros))
            micros = [old if new is None else new for old, new in zip(micros, smaller, strict=True)]
        if self._stopped:
            return Outcome("lost", "ended")
        return Outcome("infeasible", self._infeasible(bindings, needs, micros, listener))

    def judge(self, bindings: list[str], folder: Path, listener: Listener) -> Outcome:
        """Judge the detector that was trained in `folder`, with as many pictures at once as fit."""
        at_once = BATCH
        while (outcome := self.hand.do("judge", bindings, listener, folder=folder, at_once=at_once)).kind == "memory":
            if at_once == 1:
                break
            at_once //= 2
        return outcome

    def cost(self, bindings: list[str], folder: Path, wanted: Sequence[str], listener: Listener) -> Outcome:
        """Measure those of `tlx.costs.COSTS` that are wanted of the detector that was trained in `folder`.

        Whose costs cannot be measured, at a second attempt either, is infeasible: it trained to its end, so that
        training it again would only come to the same.
        """
        names = ", ".join(wanted)
        measure = partial(self.hand.do, "cost", bindings, listener, folder=folder, wanted=list(wanted))
        outcome = persist(measure, f"measuring {names}", listener)
        # It is done picture by picture: where memory was short, there is nothing to halve.
        if self._stopped or outcome.kind not in ("memory", "crash", "lost"):
            return outcome
        last = outcome.content.strip().splitlines()[-1]
        return replace(outcome, kind="infeasible", content=f"{names} could not be measured: {last}")

    def needs(self, bindings: list[str], listener: Listener = NOBODY) -> tuple[Need, ...] | None:
        """Return how much memory each phase of an experiment takes, measured if need be; None where that failed."""
        return self._needs(self.experiment.with_bindings(bindings), bindings, listener)

    def _bound(
        self, experiment: Experiment, bindings: list[str], listener: Listener, ready: Hand | None
    ) -> tuple[Need, ...] | None:
        """Return the needs of a run like this with more that trains, if even those leave room for the whole batch.

        So a search measures once, and a later run with less that trains does not measure at all.
        """
        target = kinds.grows(experiment)
        if target is None or self.ledger.get(kind(kinds.describe(experiment))):
            return None
        size, most = experiment.value(target), self.most.get(target, 0)
        for needs in self.ledger.above(kind(kinds.family(experiment, target)), size):
            if self._leaves_room(needs, experiment):
                return needs
        if most <= size:
            return None
        larger = [*bindings, f"{target} = {most}"]
        try:
            needs = self._needs(self.experiment.with_bindings(larger), larger, listener, ready)
        except ConfigError:
            # Not every alternative of a search has as much that could train.
            return None
        return needs if needs and self._leaves_room(needs, experiment) else None

    def _leaves_room(self, needs: tuple[Need, ...], experiment: Experiment) -> bool:
        """Return whether needs that were measured leave room for the whole batch of an experiment in each phase."""
        wanted, margin = kinds.wanted(experiment), self.settings.margin
        return all(need.fixed and need.largest(wanted, self.limit.bytes, margin) == wanted for need in needs)

    def _needs(
        self, experiment: Experiment, bindings: list[str], listener: Listener, ready: Hand | None = None
    ) -> tuple[Need, ...] | None:
        what = kinds.describe(experiment)
        known = self.ledger.get(kind(what))
        measured = known and all(need.fixed for need in known)
        # Where measuring itself died, there may be more room now.
        hopeless = known and not all(need.largest_tried(1, self.limit.bytes) for need in known)
        if measured or hopeless or not self.settings.probe:
            return known
        needs: list[Need] = []
        for phase in range(kinds.phases(experiment)):
            if (need := self._measured(phase, bindings, listener, ready)) is None:
                return known
            earlier = sum(one.left for one in needs) if need.fixed else 0.0
            taught = {"tried": known[phase].tried, "within": known[phase].within} if known and need.fixed else {}
            needs.append(replace(need, fixed=need.fixed + earlier, **taught))
        target = kinds.grows(experiment)
        related = (kind(kinds.family(experiment, target)), experiment.value(target)) if target else ()
        self.ledger.put(kind(what), needs, what, *related)
        return tuple(needs)

    def _measured(self, phase: int, bindings: list[str], listener: Listener, ready: Hand | None) -> Need | None:
        for micros in _PROBES:
            outcome = self._prober.do("probe", bindings, listener, ready=ready, phase=phase, micros=micros)
            self._prober.stop()
            if outcome.kind == "done":
                return Need(**outcome.content)
            if outcome.kind != "memory":
                return None
        return Need(0.0, 0.0, tried=0, within=self.limit.bytes)

    def _fitting(self, experiment: Experiment, needs: tuple[Need, ...], listener: Listener) -> list[int]:
        """Return the micro-batch of each phase, and tell what is predicted of them if they all fit."""
        batch, wanted = experiment.value("fit.batch_size"), kinds.wanted(experiment)
        micros = [need.largest(wanted, self.limit.bytes, self.settings.margin) for need in needs]
        for phase, (need, micro) in enumerate(zip(needs, micros, strict=True)):
            if need.fixed and all(micros):
                predicted = f"predicted peak {need.peak(micro) / 1e9:.2f} GB of {self._allowed()}"
                listener.say(f"{_named([phase], needs)}{micro} of {batch} examples at once: {predicted}")
        return micros

    def _allowed(self) -> str:
        return f"{self.limit.bytes / 1e9:.2f} GB ({self.limit.why})"

    def _infeasible(self, bindings: list[str], needs: tuple[Need, ...], micros: list[int], listener: Listener) -> str:
        none = [phase for phase, micro in enumerate(micros) if not micro]
        peak = max(needs[phase].peak(1) for phase in none)
        takes = f": it takes {peak / 1e9:.2f} GB" if peak else ""
        ways = []
        for changed, more in kinds.changes(self.experiment.with_bindings(bindings)):
            change = ", ".join(changed)
            listener.say(f"not even one example fits; would it with {change}?")
            try:
                others = self.needs([*bindings, *changed, *more], listener)
            except ConfigError as error:
                ways.append(f"\n  {change}: does not go with the rest: {error}")
                continue
            if others:
                less = max(other.peak(1) for other in others)
                takes_less = f"{less / 1e9:.2f} GB, which " if less else ""
                fits = all(other.largest(1, self.limit.bytes, self.settings.margin) for other in others)
                ways.append(f"\n  {change}: {takes_less}{'fits' if fits else 'does not fit either'}")
        measured = "".join(["; measured with other bindings:", *ways]) if ways else ""
        margin = f" with memory.margin = {self.settings.margin:g}"
        no_room = f"{_named(none, needs)}not even one example fits in {self._allowed()}{margin}"
        return f"{no_room}{takes}{measured}\n{_ADVICE}"


_ADVICE = "make run.image_size smaller, let less train, take a smaller run.backbone, or give it more memory"


def _named(phases: Sequence[int], of: Sequence[Any]) -> str:
    """Return what begins a line about some of a run's phases; nothing where it has only one."""
    return " and ".join(f"phase {phase + 1}" for phase in phases) + ": " if len(of) > 1 else ""


def _too_many(outcome: Outcome, micros: list[int]) -> str:
    if outcome.phase is None and len(micros) > 1:
        return f"it died before a phase began; all take fewer examples at once: {outcome.content}"
    phase = outcome.phase or 0
    return f"{_named([phase], micros)}{micros[phase]} examples at once were too many: {outcome.content}"


def _smaller(outcome: Outcome, micros: list[int], needs: tuple[Need, ...], margin: float) -> list[int | None]:
    """Return the next micro-batch to try in each phase in which it was too large, 0 where there is none, else None."""
    smaller: list[int | None] = [None] * len(micros)
    if outcome.kind == "done":
        # On a GPU the training loop has halved it by itself. One may be smaller for want of pictures, too.
        for phase in outcome.content.get("halved", ()):
            smaller[phase] = outcome.content["micro_batches"][phase]
    elif outcome.kind == "memory" or (outcome.kind == "infeasible" and wants_memory(outcome.content)):
        phases = range(len(micros)) if outcome.phase is None else [outcome.phase]
        # Where one phase of several has come down to a single example, others may still take fewer.
        least = int(outcome.kind == "memory" and outcome.phase is None and max(micros) > 1)
        for phase in phases:
            smaller[phase] = max(least, _next(outcome, micros[phase], needs[phase], margin))
    return smaller


def _next(outcome: Outcome, micro: int, need: Need, margin: float) -> int:
    if outcome.kind == "infeasible" or micro == 1:
        return 0
    # What it held when it died is what it may hold, if nobody else knows the limit.
    seen = need.largest(micro, outcome.held, margin) if need.fixed and outcome.held else micro
    return max(1, min(micro // 2, seen))


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

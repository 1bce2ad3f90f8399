"""Training through the phases of a freeze policy, each with its own cut, source of features and learner."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlx import freeze, memory
from tlx.devices import Devices
from tlx.engines.engine import Engine
from tlx.events import Answer, Listener, Look
from tlx.features import Source, encoder, settle, source
from tlx.fit import fit
from tlx.freeze import Frozen, Span
from tlx.history import History, reached, take_best
from tlx.lazy import keras
from tlx.learner import Learner
from tlx.looks import GAIN
from tlx.models.detector import Detector
from tlx.models.graph import Cut, WeightLayer, cut, steps
from tlx.pipeline import Element, Unit
from tlx.predict import BATCH, Predictor
from tlx.report.runlog import RunLog
from tlx.runfolder import describe_engine

# So many training pictures show whether a network learns by heart.
_SAMPLE, _FEWEST = 32, 4


@dataclass(frozen=True, eq=False)
class Trained:
    """What training came to: how it went, and what predicts with the weights that it left.

    `engine` computes what was frozen in the last phase.
    """

    history: History
    predictor: Predictor
    engine: Engine

    @property
    def sees_validation(self) -> bool:
        """Whether the predictor's source is the one that the best look saw, of the same phase."""
        return self.history.best.phase == self.history.phase


class Training:
    """A run's training: `run` is a `tlx.run.Run`.

    `micros` is how many examples fit in memory at once in each phase, if that is known, and `began` when this attempt
    at the run did, by `time.monotonic`.
    """

    def __init__(
        self,
        run: Any,
        detector: Detector,
        layers: list[WeightLayer],
        log: RunLog,
        devices: Devices,
        micros: Sequence[int] | None = None,
        began: float | None = None,
    ):
        self.run, self.detector, self.layers = run, detector, layers
        self.log, self.devices, self.micros = log, devices, micros
        self.began = time.monotonic() if began is None else began
        self.engine: Engine = run.engine
        self.views = run.views

    def __call__(self) -> Trained:
        """Train through the phases, from the one on that the last checkpoint is of, and take the best weights."""
        policy, network, folder = self.run.freeze, self.detector.backbone, self.log.folder
        changing = freeze.changing(policy, self.detector.model, network, self.layers)
        learner = predictor = None
        self._tell_of_repeats()
        spans, history = policy.spans(self.run.fit.updates(len(self.views.parts))), History(began=self.began)
        for span in spans[reached(folder, changing, len(spans), self.devices) :]:
            if span.start == span.stop or history.stopped:
                continue
            self.log.listener.phase(span.number, len(spans))
            frozen = freeze.apply(policy, network, self.layers, span.number)
            self._tell(frozen, span, len(spans))
            # What the phase before held is not to stand beside what this one takes.
            learner = predictor = None
            self.engine = self.run.engine
            gc.collect()
            memory.give_back()
            learner, predictor = self._phase(frozen, changing, span, history)
            frozen.verify()
        if history.converged:
            last, why = history.looks[-1], f"fit.patience = {self.run.fit.patience} looks gained no more than {GAIN}"
            self.log.say(f"the run has converged at update {last.update} of {last.updates}: {why}")
        take_best(folder, learner, history)
        return Trained(history, predictor, self.engine)

    def _tell(self, frozen: Frozen, span: Span, phases: int) -> None:
        self.log.say((f"{span}: " if phases > 1 else "") + frozen.summary())
        self.log.note(frozen.table())
        self.log.board.text(f"freeze/{span.number + 1}" if phases > 1 else "freeze", frozen.table())

    def _phase(self, frozen: Frozen, changing: list[Any], span: Span, history: History) -> tuple[Learner, Predictor]:
        run, parts = self.run, cut(self.detector.network, self.detector.blocks)
        micro = self.micros[span.number] if self.micros else None
        at_once = min(BATCH, micro or BATCH)
        self.engine = self._settled(parts, span)
        train, validation = self._sources(parts, at_once)
        for one in (train, validation):
            if one.cached:
                history.filled(one.key, one.filled)
        try:
            predictor = Predictor(self.detector, parts, validation, at_once)
            judge = _Judge(run, predictor, self._sample(parts, validation.cached), self.log)
            learner = Learner(self.detector, parts, train, run.fit, self.devices, frozen.rates, changing)
            self._warn_of_norms(micro)
            fit(learner, train, run.fit, run.seed, judge, self.log.folder, micro, judge, span, history)
        finally:
            train.release()
            validation.release()
        return learner, predictor

    def _settled(self, parts: Cut, span: Span) -> Engine:
        """Return the engine that computes what is frozen in a phase, and tell which one it is, and why."""
        settled = settle(self.run.engine, parts, self.views)
        if steps(parts.prefix):
            self.log.say(f"frozen layers are computed by {settled}")
            describe_engine(self.log.folder, span.number + 1, str(settled))
        return settled

    def _sources(self, parts: Cut, at_once: int) -> tuple[Source, Source]:
        run, progress = self.run, self.log.listener.progress
        train = source(self.views, parts, run.features, progress, at_once, self.engine)
        self.log.say(train.note)
        whole = run.plain(run.data.validation)
        validation = source(whole, parts, run.features, progress, at_once, self.engine, train.bytes)
        if train.cached and not validation.cached:
            self.log.say(f"validation: {validation.note}")
        return train, validation

    def _sample(self, parts: Cut, cached: bool) -> Source:
        """Return a source of a fixed sample of the training pictures, kept in memory, like that of validation."""
        train, forward = self.run.data.train, self.engine.compile(parts.prefix)
        # Of pictures with many windows fewer do, but not one alone.
        count = max(_FEWEST, _SAMPLE * len(train) // len(self.views.numbers))
        spread = np.linspace(0, len(train) - 1, min(count, len(train))).round().astype(int).tolist()
        views = self.run.plain(train.subset(spread, train.name))
        kept: dict[Unit, Element] = {}

        def load(unit: Unit) -> Element:
            if unit not in kept:
                (picture,), targets = views.element(unit)
                inputs = tuple(array[0] for array in forward(picture[None])) if cached else (picture,)
                kept[unit] = inputs, targets
            return kept[unit]

        return Source(views, load, encoder(parts, cached), cached, "")

    def _tell_of_repeats(self) -> None:
        repeats = self.views.repeats(self.run.fit.oversample)
        if more := int((repeats > 1).sum()):
            often = f"more often than the others, up to {repeats.max():.1f} times"
            self.log.say(f"fit.oversample: {more} of {len(repeats)} training examples come {often}")

    def _warn_of_norms(self, micro: int | None) -> None:
        run, network = self.run, self.detector.backbone
        size = run.fit.batch(len(self.views.parts))
        share = len(self.devices.share(size))
        parts = -(-share // min(n for n in (share, micro, run.fit.micro_batch) if n))
        together = -(-share // (parts * self.devices.replicas_here))
        layers = (*network.layers, *(layer for part in self.detector.head.parts for layer in part.layers))
        norms = sum(isinstance(x, keras.layers.BatchNormalization) and x.trainable for x in layers)
        if together < size and norms:
            what = f"they see the statistics of {together} examples, not of all {size}"
            self.log.say(f"{norms} BatchNorm layers train: {what}")


class _Judge(Listener):
    """Judges the present weights, and passes on what `fit` tells, with pictures of what was just predicted."""

    def __init__(self, run: Any, predictor: Predictor, sample: Source, log: RunLog):
        self.run, self.predictor, self.sample, self.log = run, predictor, sample, log
        self.metric = run.evaluator.metric(run.metric)
        self.latest: list[Any] = []

    def __call__(self) -> tuple[float, dict[str, Any], dict[str, float]]:
        """Return the score, the metrics on the validation split, and scalars."""
        self.latest, losses = self.predictor()
        metrics = self.run.evaluator.judge(self.run.data.validation, self.latest, self.metric.name, quick=True)
        learnt, _ = self.predictor(self.sample)
        on_train = self.run.evaluator.quick(self.sample.views.dataset, learnt)["values"][self.metric.name]
        scalars = {f"validation/{name}": value for name, value in losses.items()}
        if on_train is not None:
            scalars[f"train/metric/{self.metric.name}"] = on_train
        return self.metric.score(metrics), metrics, scalars

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.log.listener.progress(what, done, total, note)

    def evaluated(self, look: Look) -> Answer:
        return self.log.evaluated(look, self.run.data.validation, self.latest)

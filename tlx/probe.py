"""How much memory training takes: a few real steps on the worst case, measured."""

import contextlib
import gc
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from tlx import freeze, memory
from tlx.data.recent import most_held
from tlx.devices import several_here
from tlx.engines.engine import Compiled
from tlx.events import Listener
from tlx.features import Source, encoder, settle, why_not
from tlx.lazy import tf
from tlx.learner import Learner
from tlx.models.detector import Detector
from tlx.models.graph import Cut, cut
from tlx.pipeline import AHEAD, Views
from tlx.predict import BATCH, Predictor
from tlx.run import Run, assemble, refuse_errors

# What comes in a real run on top of what is measured, in bytes: curves, the last batch's own shape.
_REST = 75_000_000
# The first time traces and allocates what is kept; TensorFlow gives little of it back.
_TIMES = 2


def measure(run: Run, phase: int, micros: Sequence[int], listener: Listener) -> dict[str, float]:
    """Train and evaluate on made-up examples of the worst kind, and return the memory that a phase takes, in bytes.

    First the engine is chosen and its network compiled. Then some updates are done on each of `micros` (two sizes,
    growing), then everything else on each: evaluation, and the frozen part on pictures, which take at most
    `tlx.predict.BATCH` at once. From the five peaks follows what the phase takes ("fixed"), what each example of a
    micro-batch takes ("each"), and what each example that is evaluated takes on top of that ("look"). "left" is what
    the process still holds afterwards. The examples have the input's full size and as many boxes as any training
    picture. What is loaded ahead is counted in, and so are the pictures that stay decoded.
    """
    refuse_errors(run.data)
    devices = several_here(run.fit.strategy)
    detector, layers = assemble(run, devices)
    before = memory.own()
    rates = freeze.apply(run.freeze, detector.backbone, layers, phase).rates
    parts = cut(detector.network, detector.blocks)
    views = run.views
    cached = not why_not(views, parts, run.features)
    source = Source(views, views.element, encoder(parts, cached), cached, "")
    learner = Learner(detector, parts, source, run.fit, devices, rates)
    listener.progress("measuring memory", 0, 2, "training")
    # What fills the cache is there before training begins, and stays.
    forward = cache(partial(_forward, run, parts, views))
    compiled = _peak(forward)
    small, large = micros
    trained = [_peak(partial(_train, parts, learner, source, micro)) for micro in micros]
    listener.progress("measuring memory", 1, 2, "evaluation")
    looked = [_peak(_evaluation(detector, parts, source, min(micro, BATCH), forward)) for micro in micros]
    listener.progress("measuring memory", 2, 2)
    each = max(0.0, (trained[1] - trained[0]) / (large - small))
    look = max(0.0, (looked[1] - looked[0]) / (min(large, BATCH) - min(small, BATCH)))
    kept = max(0.0, looked[1] - trained[1] - min(large, BATCH) * look)
    ahead = (AHEAD + 1) * sum(np.asarray(a).nbytes for a in tf.nest.flatten(_worst(parts, source, 1)))
    del learner, source
    _clean()
    left = max(0, memory.own() - before)
    recent = most_held((example.width, example.height) for example in run.data.train.examples)
    fixed = max(trained[0] - small * each + kept, compiled) + recent + _REST
    return {"fixed": fixed, "each": each + ahead, "look": look, "left": left}


def _clean() -> None:
    gc.collect()
    memory.give_back()


def _peak(do: Callable[[], Any]) -> int:
    _clean()
    memory.reset_peak()
    for _ in range(_TIMES):
        do()
    return memory.own_peak()


def _train(parts: Cut, learner: Learner, source: Source, micro: int) -> None:
    with contextlib.suppress(OverflowError):
        learner.update([(*_worst(parts, source, micro), np.zeros((micro, 2), np.int32))], 0.0)


def _forward(run: Run, parts: Cut, views: Views) -> Compiled:
    """Return what fills the cache in a run; choosing and compiling it takes memory, too."""
    return settle(run.engine, parts, views).compile(parts.prefix)


def _evaluation(
    detector: Detector, parts: Cut, source: Source, count: int, forward: Callable[[], Compiled]
) -> Callable[[], Any]:
    """Return what evaluates `count` examples, and takes them through the frozen part as the cache does."""
    evaluated = Predictor(detector, parts, source, count)

    def do() -> None:
        evaluated.run(*_worst(parts, source, count))
        if source.cached:
            forward()(np.zeros((count, *detector.size, 3), np.uint8))

    return do


def _worst(parts: Cut, source: Source, count: int) -> tuple[tuple, dict[str, Any]]:
    """Return the inputs and targets of `count` examples of the kind that takes most memory."""
    views = source.views
    rng = np.random.default_rng(0)
    inputs = [
        rng.standard_normal((count, *shape), np.float32)
        if source.cached
        else rng.integers(0, 256, (count, *shape), np.uint8)
        for shape in (parts.shapes if source.cached else [(*views.size, 3)])
    ]
    return tuple(inputs), views.task.worst(count, views.size, views.room)

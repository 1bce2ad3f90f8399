"""How much memory training takes: a few real steps on the worst case, measured."""

import contextlib
import gc
from collections.abc import Sequence
from typing import Any

import numpy as np

from tlx import memory
from tlx.devices import several_here
from tlx.features import Source, encoder, why_not
from tlx.lazy import tf
from tlx.learner import Learner
from tlx.models.detector import Detector
from tlx.models.graph import Cut, cut
from tlx.pipeline import AHEAD, Views
from tlx.predict import BATCH, Predictor
from tlx.report.runlog import Listener
from tlx.run import Run, assemble, refuse_errors

# The first update traces and allocates; the second has what every later one has.
_STEPS = 2


def measure(run: Run, micros: Sequence[int], listener: Listener) -> dict[str, float]:
    """Train and evaluate on made-up examples of the worst kind, and return the memory that it takes, in bytes.

    Each of `micros` (two sizes, growing) gives a peak; the line through them has the memory that every run
    takes ("fixed") and that of each example of a micro-batch ("each"). The examples have the input's full
    size and as many boxes as any training picture. What is loaded ahead is counted in.
    """
    refuse_errors(run.data)
    devices = several_here(run.fit.strategy)
    detector, _ = assemble(run, devices)
    parts = cut(detector.network, detector.blocks)
    views = Views(run.data.train, run.size, run.augment, run.features.views, run.seed)
    cached = not why_not(views, parts, run.features)
    source = Source(views, views.element, encoder(parts, cached), cached, "")
    learner = Learner(detector, parts, source, run.fit, devices)
    peaks = []
    for number, micro in enumerate(micros):
        listener.progress("measuring memory", number, len(micros), f"micro-batch {micro}")
        peaks.append(_peak(detector, parts, learner, source, micro))
    listener.progress("measuring memory", len(micros), len(micros))
    arrays = _worst(parts, source, 1)
    ahead = (AHEAD + 1) * sum(np.asarray(a).nbytes for a in arrays)
    each = max(0.0, (peaks[1] - peaks[0]) / (micros[1] - micros[0]))
    return {"fixed": max(0.0, peaks[0] - each * micros[0]), "each": each + ahead}


def _peak(detector: Detector, parts: Cut, learner: Learner, source: Source, micro: int) -> int:
    gc.collect()
    memory.give_back()
    memory.reset_peak()
    for _ in range(_STEPS):
        with contextlib.suppress(OverflowError):
            learner.update([_worst(parts, source, micro)], 0.0)
    at_once = min(micro, BATCH)
    evaluated = Predictor(detector, parts, source, at_once)
    # What fills the cache runs the frozen part on pictures.
    start = tf.function(encoder(parts, False))
    for _ in range(_STEPS):
        evaluated.run(_worst(parts, source, at_once))
        if source.cached:
            start([np.zeros((at_once, *detector.size, 3), np.uint8)])
    return memory.own_peak()


def _worst(parts: Cut, source: Source, count: int) -> list[Any]:
    """Return a batch of `count` examples, each with as many boxes as any picture has, all over the image."""
    (height, width), slots = source.views.size, source.views.slots
    rng = np.random.default_rng(0)
    shapes = parts.shapes if source.cached else [(height, width, 3)]
    inputs = [
        rng.standard_normal((count, *shape), np.float32)
        if source.cached
        else rng.integers(0, 256, (count, *shape), np.uint8)
        for shape in shapes
    ]
    low = rng.uniform(0, 0.5, (count, slots, 2))
    boxes = (np.concatenate([low, low + 0.4], -1) * (width, height, width, height)).astype(np.float32)
    return [*inputs, boxes, np.zeros((count, slots), np.int32), np.zeros((count, slots), np.bool_)]

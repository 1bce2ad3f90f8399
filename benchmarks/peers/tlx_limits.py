"""What an update of tlx takes, beside what the machine can do: it tells why a goal of `peers.py` is not reached."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from timed import BATCH

from tlx import config, freeze
from tlx.devices import Devices
from tlx.features import Source, encoder
from tlx.lazy import keras, tf
from tlx.learner import Learner
from tlx.models.graph import cut, steps
from tlx.run import assemble


def limits(experiment: config.Experiment) -> dict[str, Any]:
    """Return the GFLOP/s that matrix products reach, and what an update takes: GFLOP a picture, and seconds."""
    square = tf.random.normal((2048, 2048))
    seconds = _median_seconds(lambda: tf.linalg.matmul(square, square))
    told: dict[str, Any] = {"peak_gflops": 2 * 2048**3 / seconds / 1e9}
    for what, policy in (("frozen", "backbone"), ("all", "none")):
        run = config.build(experiment.with_bindings([f"run.freeze = @freezes.{policy}()"]).trees["run"])
        told[what] = _update(run)
    return told


def _update(run: Any) -> dict[str, float]:
    detector, layers = assemble(run, Devices())
    rates = freeze.apply(run.freeze, detector.backbone, layers, 0).rates
    parts = cut(detector.network, detector.blocks)
    cached = bool(steps(parts.prefix))
    source = Source(run.views, run.views.element, encoder(parts, cached), cached, "")
    learner = Learner(detector, parts, source, run.fit, Devices(), rates)
    _, pictures, targets = next(iter(source.batches(run.views.units[:BATCH], BATCH)))
    inputs = tuple(tf.nest.flatten(parts.prefix(tf.cast(pictures[0], tf.float32)))) if cached else pictures
    part = inputs, targets, tf.zeros((BATCH, 2), tf.int32)
    add, apply = (_median_seconds(step) for step in (partial(learner._add, part), learner._apply))
    graph = learner._add.get_concrete_function(part).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    counted = tf.compat.v1.profiler.profile(graph, options=options.with_empty_output().build())
    took = {"gradients": add, "step": apply, "depthwise": _depthwise(detector.backbone)}
    return {"gflop": counted.total_float_ops / BATCH / 1e9, "seconds": took}


def _depthwise(network: Any) -> float:
    """Return the seconds that the depthwise layers that train take alone, forward and back, for one batch."""
    seconds = 0.0
    for layer in network.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D) and layer.trainable:
            inputs = tf.random.normal((BATCH, *layer.input.shape[1:]))
            seconds += _median_seconds(partial(tf.function(_gradients), layer, inputs))
    return seconds


def _gradients(layer: Any, inputs: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
    return tape.gradient(outputs, [inputs, *layer.trainable_variables])


def _median_seconds(do: Callable[[], Any], times: int = 7) -> float:
    do()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)

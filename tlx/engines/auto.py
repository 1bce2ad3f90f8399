"""The engine that is chosen for a network: the first in a fixed order that agrees with TensorFlow."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlx.engines.engine import Compiled, Engine, Settled, difference
from tlx.engines.litert import LiteRT
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ModelError, refuse_values
from tlx.lazy import tf
from tlx.models.graph import steps
from tlx.registry import engines


@engines.register("auto")
@dataclass(frozen=True)
class Auto(Engine):
    """The first engine of `order` that is installed and agrees with TensorFlow on some pictures, else TensorFlow.

    TensorFlow it is, too, where that computes on a GPU. Nothing is timed, so that the same experiment on the same
    machine gives the same numbers.
    """

    order: tuple[Engine, ...] = (LiteRT(),)

    def __post_init__(self):
        others = not any(isinstance(engine, Auto) for engine in self.order)
        refuse_values("engines.auto", self, {"order": others or "other engines than auto"})

    @property
    def key(self) -> str:
        raise TypeError("engines.auto computes nothing: `settle` it for a model, and ask for that one's key")

    def compile(self, model: Any) -> Compiled:
        raise TypeError("engines.auto computes nothing: `settle` it for a model, and compile by that")

    def settle(self, model: Any, pictures: Callable[[], np.ndarray]) -> Settled:
        if tf.config.list_physical_devices("GPU"):
            return Settled(TensorFlow(), model, "on the GPU")
        if not steps(model):
            return Settled(TensorFlow(), model, "there is nothing to compute")
        some, against = pictures(), []
        outputs = tf.nest.flatten(model(some.astype(np.float32), training=False))
        expected = [np.asarray(output, np.float32) for output in outputs]
        for engine in self.order:
            try:
                compiled = engine.compile(model)
            except ModelError as error:
                against.append(str(error))
                continue
            apart = difference(compiled(some), expected)
            agrees = f"{apart:.1e} of the largest output on {len(some)} pictures, of {engine.tolerance:.0e} allowed"
            if apart <= engine.tolerance:
                return Settled(engine, model, "; ".join([*against, f"differs from TensorFlow by {agrees}"]), compiled)
            against.append(f"{engine.key} differs from TensorFlow by {agrees}")
        return Settled(TensorFlow(), model, "; ".join(against) or "engines.auto.order names no other")

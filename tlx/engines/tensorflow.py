"""TensorFlow's own graph as an engine."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tlx.engines.engine import Compiled, Engine, as_pictures
from tlx.lazy import tf
from tlx.registry import engines


@engines.register("tensorflow")
@dataclass(frozen=True)
class TensorFlow(Engine):
    """TensorFlow, in the precision that the network was built in; gives the very numbers that training sees."""

    @property
    def key(self) -> str:
        return f"tensorflow {tf.__version__}, precision of the network"

    def compile(self, model: Any) -> Compiled:
        height, width = model.inputs[0].shape[1:3]

        # With a free batch size a short last batch traces no second graph.
        @tf.function(input_signature=[tf.TensorSpec((None, height, width, 3), tf.uint8)])
        def graph(pictures: Any) -> list[Any]:
            return tf.nest.flatten(model(tf.cast(pictures, tf.float32), training=False))

        def forward(pictures: np.ndarray) -> list[np.ndarray]:
            return [output.numpy().astype(np.float32, copy=False) for output in graph(as_pictures(pictures, model))]

        return forward

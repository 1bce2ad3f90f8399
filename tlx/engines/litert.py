"""LiteRT, formerly TensorFlow Lite, as an engine: the XNNPACK kernels for CPUs."""

import importlib.metadata
import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tlx.engines.engine import Compiled, Engine, as_pictures, needing, refuse_missing
from tlx.engines.tflite import convert
from tlx.errors import ModelError, above, refuse_values
from tlx.lazy import quiet
from tlx.registry import engines

_PACKAGE = "ai-edge-litert"


def _check(threads: int | None) -> None:
    LiteRT(threads)
    refuse_missing("litert", "ai_edge_litert", _PACKAGE)


@engines.register("litert", check=_check)
@dataclass(frozen=True)
class LiteRT(Engine):
    """LiteRT with XNNPACK, on the CPU in float32; `threads` are as many as the machine has cores where None is given.

    It computes about twice as fast as TensorFlow.
    """

    threads: int | None = None

    tolerance: ClassVar[float] = 1e-4

    def __post_init__(self):
        refuse_values("engines.litert", self, {"threads": above(0)})

    @property
    def key(self) -> str:
        with needing(_PACKAGE, _PACKAGE):
            return f"litert {importlib.metadata.version(_PACKAGE)}, float32"

    def compile(self, model: Any) -> Compiled:
        with needing(_PACKAGE, _PACKAGE):
            from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - 60 MB that few commands need
        file = convert(model)
        with quiet():  # It greets on stderr.
            try:
                interpreter = Interpreter(model_content=file, num_threads=self.threads or os.cpu_count())
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ModelError(f"LiteRT cannot compute this network ({error})") from error
        (image,), outputs = interpreter.get_input_details(), interpreter.get_output_details()

        def forward(pictures: np.ndarray) -> list[np.ndarray]:
            rows = []
            for picture in as_pictures(pictures, model):
                interpreter.set_tensor(image["index"], picture[None].astype(np.float32))
                interpreter.invoke()
                rows.append([interpreter.get_tensor(output["index"]) for output in outputs])
            return [np.concatenate(column) for column in zip(*rows, strict=True)]

        return forward

"""OpenVINO as an engine: Intel's kernels for CPUs, in float32 or bfloat16."""

import contextlib
import importlib.metadata
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlx.engines.engine import Compiled, Engine, as_pictures, needing, refuse_missing
from tlx.engines.tflite import convert
from tlx.errors import ModelError, above, refuse_values
from tlx.registry import engines

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# In bfloat16 up to 0.18 was seen, on EfficientNet-Lite0; what is converted wrongly is further off.
_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.5}
_INSTALL = "'tlx[openvino]'"
_TELEMETRY = "openvino_telemetry"


def _check(precision: str, threads: int | None) -> None:
    OpenVINO(precision, threads)
    refuse_missing("openvino", "openvino", _INSTALL)


@engines.register("openvino", check=_check)
@dataclass(frozen=True)
class OpenVINO(Engine):
    """OpenVINO on the CPU; `threads` are as many as the machine has cores where None is given.

    `precision` is what it computes in: bfloat16 is about twice as fast where the CPU has it (AVX512-BF16 or AMX), moves
    boxes by up to some pixels, and is refused elsewhere. It comes with `pip install tlx[openvino]`.
    """

    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = None

    def __post_init__(self):
        refuse_values("engines.openvino", self, {"threads": above(0)})

    @property
    def tolerance(self) -> float:
        return _TOLERANCES[self.precision]

    @property
    def key(self) -> str:
        with needing("openvino", _INSTALL):
            return f"openvino {importlib.metadata.version('openvino')}, {self.precision}"

    def compile(self, model: Any) -> Compiled:
        openvino = _imported()
        core = openvino.Core()
        if self.precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError("this CPU does not compute in bfloat16: set engines.openvino.precision = 'float32'")
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.threads or os.cpu_count(),
            # Several pictures at once, each by few threads, are faster than one after another by all of them.
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.tflite"
            file.write_bytes(convert(model))
            try:
                compiled = core.compile_model(core.read_model(file), "CPU", settings)
            except RuntimeError as error:
                raise ModelError(f"OpenVINO cannot compute this network ({error})") from error
        optimal = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # Not its AsyncInferQueue: where a callback is the last to let go of a network, it takes the process down.
        requests = [compiled.create_infer_request() for _ in range(optimal)]

        def result(request: Any) -> list[np.ndarray]:
            request.wait()
            return [np.array(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))]

        def forward(pictures: np.ndarray) -> list[np.ndarray]:
            rows, waiting = [], deque()
            for picture, request in zip(as_pictures(pictures, model), cycle(requests), strict=False):
                if len(waiting) == len(requests):
                    rows.append(result(waiting.popleft()))
                request.start_async([picture[None].astype(np.float32)])
                waiting.append(request)
            rows.extend(map(result, waiting))
            return [np.concatenate(column) for column in zip(*rows, strict=True)]

        return forward


def _imported() -> Any:
    with needing("openvino", _INSTALL), _silent():
        import openvino  # noqa: PLC0415 - an extra, and 180 MB
    return openvino


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Let OpenVINO be imported without its telemetry, which writes to the home folder and reports to Intel unasked."""
    if _TELEMETRY in sys.modules:
        yield  # Somebody else has brought it.
        return
    # OpenVINO does without a module that cannot be imported.
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]

"""The memory of this machine's GPUs, as TensorFlow uses it and as the driver tells; nothing where there is none."""

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pynvml

from tlx.lazy import tf

_ASK = "import tensorflow; print(len(tensorflow.config.list_physical_devices('GPU')))"
_SECONDS = 120


def peak() -> int | None:
    """Return the most bytes that this process held on any one GPU since `reset_peak`, or None where it uses none."""
    return max((tf.config.experimental.get_memory_info(gpu)["peak"] for gpu in _used()), default=None)


def held() -> int | None:
    """Return the bytes that this process holds on the GPU where it holds most, or None where it uses none."""
    return max((tf.config.experimental.get_memory_info(gpu)["current"] for gpu in _used()), default=None)


def reset_peak() -> None:
    """Start counting the peak anew."""
    for gpu in _used():
        tf.config.experimental.reset_memory_stats(gpu)


def _used() -> list[str]:
    """Return the names of the GPUs that this process works on."""
    # Whoever has not imported TensorFlow holds nothing on a GPU, and need not import it to find out.
    if "tensorflow" not in sys.modules or not tf.config.list_physical_devices("GPU"):
        return []
    return [gpu.name.removeprefix("/device:") for gpu in tf.config.list_logical_devices("GPU")]


@functools.cache
def free() -> tuple[str, int] | None:
    """Return the name and the free bytes of the GPU that has least of those visible; None where TensorFlow sees none.

    Asks the driver and another process, as one that asks TensorFlow by itself would take memory there.
    """
    found = []
    for gpu in _visible():
        # A GPU that is part of the processor has no memory of its own to tell of.
        with contextlib.suppress(pynvml.NVMLError):
            found.append((pynvml.nvmlDeviceGetName(gpu), pynvml.nvmlDeviceGetMemoryInfo(gpu).free))
    return min(found, key=lambda one: one[1]) if found and _usable() else None


def held_by(process: int) -> int:
    """Return the bytes that a process holds on the GPU where it holds most; 0 where the driver does not tell.

    The driver's own context counts, some hundreds of megabytes. In a container it may know processes by other numbers.
    """
    most = 0
    for gpu in _visible():
        with contextlib.suppress(pynvml.NVMLError):
            running = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
            most = max(most, *(one.usedGpuMemory or 0 for one in running if one.pid == process), 0)
    return most


def busy() -> int | None:
    """Return how busy the busiest GPU was lately, in percent; None where there is none, or the driver does not tell."""
    found = []
    for gpu in _visible():
        with contextlib.suppress(pynvml.NVMLError):
            found.append(int(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu))
    return max(found, default=None)


@functools.cache
def _visible() -> tuple[Any, ...]:
    """Return the driver's handles of the GPUs that this process and its children may use."""
    return tuple(_chosen(os.environ.get("CUDA_VISIBLE_DEVICES")))


def _chosen(visible: str | None) -> Iterator[Any]:
    names = None if visible is None else [word.strip() for word in visible.split(",")]
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(gpu)
            if names is None or str(index) in names or any(word and uuid.startswith(word) for word in names):
                yield gpu
    except pynvml.NVMLError:
        # No driver, or one that fails: TensorFlow cannot use its GPUs either.
        return


def _usable() -> bool:
    """Return whether TensorFlow can use a GPU here."""
    command = (sys.executable, "-c", _ASK)
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    # Its last word: TensorFlow may greet before.
    count = said.split()[-1:]
    return bool(count) and count[0].isdigit() and count != ["0"]

"""The memory of this machine's GPUs, as TensorFlow uses it and as the driver tells; nothing where there is none."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tlx.lazy import tf

_SMI = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.free", "--format=csv,noheader,nounits")
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

    Asks other processes, as one that asks by itself would take memory there.
    """
    visible = list(_visible())
    return min(visible, key=lambda gpu: gpu[1]) if visible and _usable() else None


def _visible() -> Iterator[tuple[str, int]]:
    if shutil.which(_SMI[0]) is None:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else [word.strip() for word in visible.split(",")]
    for line in _said(_SMI).splitlines():
        index, uuid, name, megabytes = (word.strip() for word in line.split(","))
        wanted = chosen is None or index in chosen or any(word and uuid.startswith(word) for word in chosen)
        # An integrated GPU says "[N/A]" of memory that is the machine's.
        if wanted and megabytes.isdigit():
            yield name, int(megabytes) << 20


def _usable() -> bool:
    # Its last line: TensorFlow may greet before.
    return _said((sys.executable, "-c", _ASK)).split()[-1:] not in ([], ["0"])


def _said(command: tuple[str, ...]) -> str:
    """Return what a program wrote, or "" where it failed: then there is no GPU to be used."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""

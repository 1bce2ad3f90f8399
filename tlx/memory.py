"""How much memory this process takes."""

import contextlib
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak() -> None:
    """Start counting the peak anew, where the system can; elsewhere the peak is that of the whole process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most resident memory, in bytes, that this process held since `reset_peak`."""
    # macOS counts bytes where Linux counts KiB.
    of_system = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _status("VmHWM") or of_system


def current() -> int:
    """Return the resident memory, in bytes, that this process holds now; its peak where the system cannot tell."""
    return _status("VmRSS") or peak()


def _status(field: str) -> int | None:
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), None)

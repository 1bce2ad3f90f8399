"""How much memory this process takes."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def reset_peak() -> None:
    """Start counting the peak anew, where the system can; elsewhere the peak is that of the whole process."""
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most resident memory, in bytes, that this process held since `reset_peak`."""
    if _STATUS.exists():
        return _status("VmHWM")
    # macOS counts bytes where Linux counts KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def current() -> int:
    """Return the resident memory, in bytes, that this process holds now; its peak where the system cannot tell."""
    return _status("VmRSS") if _STATUS.exists() else peak()


def _status(field: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024

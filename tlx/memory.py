"""How much memory a process takes, and how much it may take."""

import contextlib
import ctypes
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tlx import gpu
from tlx.errors import above, at_least, refuse_values
from tlx.registry import rooms

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
# What is left to everything else on the machine: a share of what is available now.
_SPARE = 0.1
_UNLIMITED = 1 << 60
# What the driver itself takes of a GPU for a process, in bytes: no budget is meant to count it.
_CONTEXT = 1_000_000_000


@rooms.register("memory")
@dataclass(frozen=True)
class Memory:
    """How much memory a run may take, and how that is seen to.

    `budget_gb` is the most that the process which trains may hold, on each GPU where there is one; None means
    nine tenths of what the GPU, or else the machine or the control group, has free. `margin` is by how much
    more than a predicted peak must fit. `probe` has a few real steps measured before the first run of its
    kind; without it, a run learns what fits by dying of what does not.
    """

    budget_gb: float | None = None
    margin: float = 1.2
    probe: bool = True

    def __post_init__(self):
        sound = {"budget_gb": above(0), "margin": at_least(1)}
        refuse_values("memory", self, sound)

    def limit(self) -> "Limit":
        """Return the limit on what training takes: the budget, or what the GPU, or else this machine, has free."""
        if self.budget_gb is not None:
            return Limit(int(self.budget_gb * 1e9), f"memory.budget_gb = {self.budget_gb}")
        if (found := gpu.free()) is not None:
            name, free = found
            return Limit(int(free * (1 - _SPARE)), f"nine tenths of the free memory of the GPU {name}")
        return self._machine()

    def resident(self) -> "Limit":
        """Return the limit on what a process may hold of the machine's own memory, whatever it holds on a GPU."""
        return self.limit() if gpu.free() is None else self._machine()

    def on_gpu(self) -> "Limit | None":
        """Return the limit on what a process may hold of a GPU by a given budget; without one, the GPU is the limit."""
        if self.budget_gb is None or gpu.free() is None:
            return None
        limit = self.limit()
        return Limit(limit.bytes + _CONTEXT, f"{limit.why}, on the GPU")

    def spares(self, size: int) -> bool:
        """Return whether the machine has `size` bytes beside all that a run may take."""
        machine = self._machine().bytes
        return machine / (1 - _SPARE) - min(machine, self.resident().bytes) >= size

    @staticmethod
    def _machine() -> "Limit":
        return min(_limits(), key=lambda limit: limit.bytes)


@dataclass(frozen=True)
class Limit:
    """The most bytes that a process may hold, and who says so."""

    bytes: int
    why: str


def _limits() -> Iterator[Limit]:
    free = _fields(_PROC / "meminfo").get("MemAvailable")
    yield Limit(int(free * (1 - _SPARE)) if free else _UNLIMITED, "nine tenths of the machine's free memory")
    for name, what in ((resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")):
        soft, _ = resource.getrlimit(name)
        if soft != resource.RLIM_INFINITY:
            yield Limit(soft, f"ulimit {what} of this shell")
    for path in _control_groups():
        most, now, cached = _V2 if (path / _V2[0]).exists() else _V1
        limit = _number(path / most)
        if limit is not None and limit < _UNLIMITED:
            # Pages of files that nobody needs just now are taken back when somebody needs memory.
            used = (_number(path / now) or 0) - _counts(path / "memory.stat").get(cached, 0)
            yield Limit(int((limit - used) * (1 - _SPARE)), f"nine tenths of what {path} allows")


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _control_groups() -> Iterator[Path]:
    """Yield this process's control groups that may limit memory, the innermost first."""
    file = _PROC / "self/cgroup"
    for line in file.read_text().splitlines() if file.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = _CGROUPS / controllers
            here = root / path.lstrip("/")
            yield from (group for group in (here, *here.parents) if group.is_relative_to(root) and group.exists())


def _number(file: Path) -> int | None:
    text = file.read_text().strip() if file.exists() else ""
    return int(text) if text.isdigit() else None


def kills_by_system() -> int:
    """Return how many processes of this control group the system has killed so far for want of memory."""
    files = [group / name for group in _control_groups() for name in ("memory.events", "memory.oom_control")]
    return next((_counts(file).get("oom_kill", 0) for file in files if file.exists()), 0)


def _counts(file: Path) -> dict[str, int]:
    """Return what a file of a control group counts, by name."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {name: int(count) for name, _, count in (line.partition(" ") for line in lines) if count.isdigit()}


def available() -> int | None:
    """Return how many bytes the machine can still give without swapping, or None where it does not say."""
    return _fields(_PROC / "meminfo").get("MemAvailable")


def held(process: int) -> tuple[int, int]:
    """Return the bytes that a process holds for itself alone, and its address space; zeros once it is gone.

    Pages of files, such as those of the feature cache, do not count: the system takes them back when it needs them.
    """
    try:
        space, resident, of_files = map(int, (_PROC / str(process) / "statm").read_text().split()[:3])
    except (OSError, ValueError):
        return 0, 0
    return (resident - of_files) * resource.getpagesize(), space * resource.getpagesize()


def give_back() -> None:
    """Give free memory back to the system, where the C library can; it keeps much of it for later."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def reset_peak() -> None:
    """Start counting the peak anew, where the system can; elsewhere the peak is that of the whole process."""
    gpu.reset_peak()
    with contextlib.suppress(OSError):
        (_PROC / "self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most memory, in bytes, that this process held since `reset_peak`: of a GPU, or else resident."""
    return gpu.peak() or _peak()


def _peak() -> int:
    # macOS counts bytes where Linux counts KiB.
    of_system = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _own("VmHWM") or of_system


def own_peak() -> int:
    """Return `peak` without the pages of files, which are taken to have been those of now."""
    return gpu.peak() or _peak() - (_own("RssFile") or 0)


def own() -> int:
    """Return the memory, in bytes, that this process holds now, as `own_peak` counts it; its peak at worst."""
    return gpu.held() or (_own("VmRSS") or _peak()) - (_own("RssFile") or 0)


def _own(field: str) -> int | None:
    return _fields(_PROC / "self/status").get(field)


def _fields(file: Path) -> dict[str, int]:
    """Return the fields of a file of /proc that are in kB, in bytes."""
    lines = file.read_text().splitlines() if file.exists() else []
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}

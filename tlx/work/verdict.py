"""What a process died of: want of memory, a crash, or somebody's hand."""

import re
import signal
from dataclasses import dataclass
from typing import Literal

Cause = Literal["memory", "crash", "lost"]

# A process that held so much of what it may hold, when it died without a word, died for want of more.
_NEAR = 0.8
# Said by TensorFlow, cuDNN, XLA, oneDNN, the C++ library, the linker and Python when there is no memory left.
_SIGNS = re.compile(
    r"ResourceExhaustedError|RESOURCE_EXHAUSTED|OOM when allocating|Allocator \(\S+\) ran out of memory|bad_alloc"
    r"|MemoryError|Cannot allocate memory|cannot allocate memory|could not create a memory|out of memory|Out of memory"
    r"|out_of_memory|OUT_OF_MEMORY|No algorithm worked|Failed to get convolution algorithm"
    r"|CUDNN_STATUS_(ALLOC_FAILED|NOT_INITIALIZED|INTERNAL_ERROR)|CUBLAS_STATUS_ALLOC_FAILED|failed to allocate"
    r"|failed to map segment|Operation received an exception:\s*Status: 1\b"
)


@dataclass(frozen=True)
class Death:
    """What is known about a process that ended over its work.

    `code` is its exit code, negative for a signal; `ended_by_us` whether the watchdog did it; `peak` and
    `limit` are in bytes, `said` what it wrote at last, and `killed_by_system` whether the control group's
    count of out-of-memory kills went up meanwhile. `short` is whether the watchdog did it because the machine had no
    memory left, whoever held it. `space` and `space_limit` are its address space at most,
    and the limit on that, where there is one.
    """

    code: int
    ended_by_us: bool
    peak: int
    limit: int
    said: str
    killed_by_system: bool = False
    space: int = 0
    space_limit: int | None = None
    short: bool = False

    @property
    def cause(self) -> Cause:
        """What it died of, by all of the evidence together; "lost" is a kill from outside, for no known reason."""
        near = is_near(self.peak, self.limit) or is_near(self.space, self.space_limit)
        if self.short:
            return "memory" if near else "lost"
        if self.ended_by_us or self.killed_by_system or wants_memory(self.said):
            return "memory"
        if self.code == -signal.SIGKILL:
            return "memory" if near else "lost"
        if self.code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS) and near:
            return "memory"
        return "lost" if self.code in (-signal.SIGTERM, -signal.SIGHUP) else "crash"

    def __str__(self) -> str:
        how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        what = {"memory": "ran out of memory", "crash": "crashed", "lost": "was ended from outside"}[self.cause]
        if self.short:
            what = "was ended because the machine had no memory left"
        return f"the worker process {what} ({how}, {self.peak / 1e9:.2f} of {self.limit / 1e9:.2f} GB held)"


def wants_memory(text: str, cramped: bool = False) -> bool:
    """Return whether an error message is one of those by which a library says that memory is short.

    `cramped` is whether the address space was nearly used up; a thread that cannot be started then lacks its stack.
    """
    # Some allocators tell of attempts for which there is another way.
    said = any(_SIGNS.search(line) and "not a failure" not in line for line in text.splitlines())
    return said or (cramped and "can't start new thread" in text)


def is_near(amount: int, limit: int | None) -> bool:
    """Return whether so much of what a process may hold was held that want of more explains its end."""
    return limit is not None and amount > _NEAR * limit

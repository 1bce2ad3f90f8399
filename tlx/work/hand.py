"""The parent's side of a worker process: give it work, watch its memory, and say what it died of."""

import multiprocessing
import multiprocessing.connection
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tlx import memory
from tlx.memory import Limit
from tlx.work import worker
from tlx.work.verdict import Death, wants_memory

Kind = Literal["done", "pruned", "infeasible", "refused", "memory", "crash", "lost"]
_NEWS = ("say", "progress", "look")
_EVERY_SECONDS = 0.02
# Below this, in bytes, the machine itself is about to suffer, whoever took the memory.
_LAST_RESERVE = 200_000_000
_TAIL = 20_000


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with what it made ("done"), or with why it made nothing."""

    kind: Kind
    content: Any


class _Watch(threading.Thread):
    """Looks at a process 50 times a second, and ends it when it holds more than it may."""

    def __init__(self, process: Any, limit: Limit):
        super().__init__(daemon=True)
        self.process, self.limit = process, limit
        self.peak = self.space = 0
        self.ended_by_us = False

    def run(self) -> None:
        while not self._gone():
            held, space = memory.held(self.process.pid)
            self.peak, self.space = max(self.peak, held), max(self.space, space)
            free = memory.available()
            if held > self.limit.bytes or (free is not None and free < _LAST_RESERVE):
                self.ended_by_us = True
                self.process.kill()
                return

    def _gone(self) -> bool:
        return bool(multiprocessing.connection.wait([self.process.sentinel], _EVERY_SECONDS))


class Hand:
    """A worker process that is started when there is work, and replaced when it dies.

    It works on the gin file `file`, may hold as much memory as `limit` says, and writes what it prints to
    `log`. `work` is what the process runs.
    """

    def __init__(
        self, file: Path, allow_imports: bool, log: Path, limit: Limit, work: Callable[..., None] = worker.main
    ):
        self.file, self.allow_imports, self.log, self.limit, self.work = file, allow_imports, log, limit, work
        self._process: Any = None
        self._connection: Any = None
        self._watch: _Watch | None = None

    def do(
        self,
        task: str,
        bindings: list[str],
        hear: Callable[[str, Any], str | None] = lambda *_: None,
        **arguments: Any,
    ) -> Outcome:
        """Give the worker a task and return how it ended.

        `hear` is told of (kind, content) on the way: what `tlx.work.worker` says, and what it returns is answered.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        written = self.log.stat().st_size if self.log.exists() else 0
        kills = memory.kills_by_system()
        try:
            self._connection.send((task, bindings, arguments))
            while True:
                kind, content = self._connection.recv()
                if kind not in _NEWS:
                    return self._ended(kind, content)
                if (answer := hear(kind, content)) is not None:
                    self._connection.send(answer)
        except (EOFError, OSError):
            return self._died(written, memory.kills_by_system() > kills)

    def stop(self) -> None:
        """End the worker, if there is one."""
        if (process := self._process) is not None:
            process.kill()
            process.join()
            self._process = None

    def _ended(self, kind: str, content: Any) -> Outcome:
        if kind == "crashed":
            # After an error of its memory a library may be unusable in this process.
            self.stop()
            return Outcome("memory" if wants_memory(content) else "crash", content)
        if memory.held(self._process.pid)[0] > self.limit.bytes / 2:
            # What the allocator has not given back would be missing in the next trial.
            self.stop()
        return Outcome(kind, content)

    def _died(self, written: int, killed_by_system: bool) -> Outcome:
        self._process.join()
        self._watch.join()
        space_limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        death = Death(
            code=self._process.exitcode,
            ended_by_us=self._watch.ended_by_us,
            peak=self._watch.peak,
            limit=self.limit.bytes,
            said=_tail(self.log, written),
            killed_by_system=killed_by_system,
            space=self._watch.space,
            space_limit=None if space_limit == resource.RLIM_INFINITY else space_limit,
        )
        self._process = None
        return Outcome(death.cause, f"{death}; see {self.log}")

    def _start(self) -> None:
        # A fresh interpreter: a fork of a process that has threads is not safe for TensorFlow.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=self.work, args=(theirs, self.file, self.allow_imports, self.log), daemon=True
        )
        # The new process inherits this, and so leaves Ctrl-C to its parent from its first moment.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._watch = _Watch(self._process, self.limit)
        self._watch.start()


def _tail(log: Path, start: int) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")

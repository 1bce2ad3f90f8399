"""The parent's side of a worker process: give it work, watch its memory, and say what it died of."""

import contextlib
import multiprocessing
import multiprocessing.connection
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tlx import gpu, memory, ownership
from tlx.events import NOBODY, Listener
from tlx.memory import Limit
from tlx.work import worker
from tlx.work.verdict import Death, is_near, wants_memory

Kind = Literal["done", "pruned", "infeasible", "refused", "memory", "crash", "lost"]
_NEWS = ("say", "progress", "phase", "evaluated")
_EVERY_SECONDS = 0.02
# Below this, in bytes, the machine itself is about to suffer, whoever took the memory.
_LAST_RESERVE = 200_000_000
_TAIL = 20_000
# A worker that hung up has so long, in seconds, to end by itself.
_LAST_SECONDS = 5.0
# Starting a process looks after all others of this one, also those that another thread is just waiting for.
_PROCESSES = threading.RLock()


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with what it made ("done"), or with why it made nothing.

    `held` is how many bytes a process that died held at most, and `phase` the phase of the freeze policy that it told
    of last, counted from 0; None where it had begun none.
    """

    kind: Kind
    content: Any
    held: int = 0
    phase: int | None = None


def persist(attempt: Callable[[], Outcome], what: str, display: Listener) -> Outcome:
    """Return how an attempt ended; one whose worker died or crashed may have been unlucky: it is made once more."""
    outcome = attempt()
    if outcome.kind not in ("lost", "crash"):
        return outcome
    display.say(f"{what} is tried once more: {outcome.content.strip().splitlines()[-1]}")
    return attempt()


class _Watch(threading.Thread):
    """Looks at a process 50 times a second, and ends it when it holds more than it may."""

    def __init__(self, process: Any, limit: Limit, on_gpu: Limit | None):
        super().__init__(daemon=True)
        self.process, self.limit, self.on_gpu = process, limit, on_gpu
        self.peak = self.space = self.peak_on_gpu = 0
        self.ended_by_us = self.short = False

    def run(self) -> None:
        while not self._gone():
            held, space = memory.held(self.process.pid)
            self.peak, self.space = max(self.peak, held), max(self.space, space)
            free = memory.available()
            self.ended_by_us = held > self.limit.bytes or self._too_much_on_gpu()
            self.short = not self.ended_by_us and free is not None and free < _LAST_RESERVE
            if self.ended_by_us or self.short:
                self.process.kill()
                return

    def _too_much_on_gpu(self) -> bool:
        if self.on_gpu is None:
            return False
        self.peak_on_gpu = max(self.peak_on_gpu, gpu.held_by(self.process.pid))
        return self.peak_on_gpu > self.on_gpu.bytes

    @property
    def most(self) -> tuple[int, int]:
        """What the process held at most, and might hold, in bytes: of a GPU where that was too much, else resident."""
        if self.on_gpu and self.peak_on_gpu > self.on_gpu.bytes:
            return self.peak_on_gpu, self.on_gpu.bytes
        return self.peak, self.limit.bytes

    def _gone(self) -> bool:
        return bool(multiprocessing.connection.wait([self.process.sentinel], _EVERY_SECONDS))


class Hand:
    """A worker process that is started when there is work, and replaced when it dies.

    It works on the gin file `file`, may hold as much memory as `limit` says, and as `on_gpu` says of a GPU, and
    writes what it prints to `log`. `work` is what the process runs.
    """

    def __init__(
        self,
        file: Path,
        allow_imports: bool,
        log: Path,
        limit: Limit,
        on_gpu: Limit | None = None,
        work: Callable[..., None] = worker.main,
    ):
        self.file, self.allow_imports, self.log = file, allow_imports, log
        self.limit, self.on_gpu, self.work = limit, on_gpu, work
        self._process: Any = None
        self._connection: Any = None
        self._watch: _Watch | None = None
        self._closed = False

    def do(
        self,
        task: str,
        bindings: list[str],
        listener: Listener = NOBODY,
        ready: "Hand | None" = None,
        **arguments: Any,
    ) -> Outcome:
        """Give the worker a task and return how it ended.

        What the run tells its listener on the way, this one is told, and its answers go back. `ready` is a hand whose
        worker is started meanwhile.
        """
        with _PROCESSES:
            if self._closed:
                return Outcome("lost", "ended")
            self.warm()
            process, watch = self._process, self._watch
        written = self.log.stat().st_size if self.log.exists() else 0
        kills = memory.kills_by_system()
        phase = None
        self._send((task, bindings, arguments))
        if ready:
            ready.warm()
        while (news := self._receive()) is not None:
            kind, content = news
            if kind not in _NEWS:
                return replace(self._ended(process, watch, kind, content), phase=phase)
            answer = getattr(listener, kind)(*content)
            if kind == "phase":
                phase = content[0]
            if kind == "evaluated":
                self._send(answer)
        died = self._died(process, watch, written, memory.kills_by_system() > kills)
        return replace(died, phase=phase)

    def warm(self) -> None:
        """Start the worker, unless there is one; until it is given work it imports TensorFlow."""
        with _PROCESSES:
            if not self._closed and (self._process is None or not self._process.is_alive()):
                self.stop()
                self._start()

    def stop(self) -> None:
        """End the worker, if there is one; the next task gets another."""
        with _PROCESSES:
            if (process := self._process) is not None:
                process.kill()
                self._bury(process)

    def close(self) -> None:
        """End the worker for good; what it was at, and all that comes, ends as "lost"."""
        with _PROCESSES:
            self._closed = True
            self.stop()

    def _send(self, what: Any) -> None:
        # Whoever is dead does not hear, which is noticed when nothing comes back.
        with contextlib.suppress(OSError):
            self._connection.send(what)

    def _receive(self) -> tuple[str, Any] | None:
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return None

    def _bury(self, process: Any) -> None:
        process.join()
        ownership.sweep(self.log.parent, worker.scratch(self.log, process.pid))
        if self._process is process:
            self._process = None

    def _ended(self, process: Any, watch: _Watch, kind: str, content: Any) -> Outcome:
        short = kind in ("crashed", "refused") and wants_memory(content, is_near(watch.space, _space_limit()))
        if kind == "crashed" or short:
            # After an error of its memory a library may be unusable in this process.
            self.stop()
            return Outcome("memory" if short else "crash", content, watch.peak)
        if memory.held(process.pid)[0] > self.limit.bytes / 2:
            # What the allocator has not given back would be missing in the next trial.
            self.stop()
        return Outcome(kind, content)

    def _died(self, process: Any, watch: _Watch, written: int, killed_by_system: bool) -> Outcome:
        with _PROCESSES:
            # One that only hung up is to end as well.
            process.join(_LAST_SECONDS)
            process.kill()
            self._bury(process)
        watch.join()
        peak, limit = watch.most
        death = Death(
            code=process.exitcode,
            ended_by_us=watch.ended_by_us,
            short=watch.short,
            peak=peak,
            limit=limit,
            said=_tail(self.log, written),
            killed_by_system=killed_by_system,
            space=watch.space,
            space_limit=_space_limit(),
        )
        return Outcome(death.cause, f"{death}; see {self.log}", peak)

    def _start(self) -> None:
        # A fresh interpreter: a fork of a process that has threads is not safe for TensorFlow.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        process = context.Process(target=self.work, args=(theirs, self.file, self.allow_imports, self.log), daemon=True)
        # The new process inherits this, and so leaves Ctrl-C to its parent from its first moment.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        self._process = process
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._watch = _Watch(process, self.limit, self.on_gpu)
        self._watch.start()


def _space_limit() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _tail(log: Path, start: int) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - _TAIL))
        return file.read().decode(errors="replace")

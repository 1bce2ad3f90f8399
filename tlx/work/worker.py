"""A worker process: it does one task after another for its parent, and dies with it."""

import gc
import os
import shutil
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tlx import config, costs, memory, ownership, probe, run
from tlx.data.survey import watched_by
from tlx.errors import MisfitError, TlxError, TrainingError, of_system
from tlx.events import Answer, Listener, Look, PrunedError
from tlx.lazy import import_tensorflow, keras


class _Reporter(Listener):
    """A run's listener that passes everything on to the parent, as (method, arguments)."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def say(self, message: str) -> None:
        self.connection.send(("say", (message,)))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.connection.send(("progress", (what, done, total, note)))

    def phase(self, number: int, of: int) -> None:
        self.connection.send(("phase", (number, of)))

    def evaluated(self, look: Look) -> Answer:
        self.connection.send(("evaluated", (look,)))
        return self.connection.recv()


def main(connection: Connection, file: Path, allow_imports: bool, log: Path) -> None:
    """Take (task, bindings, arguments) from the parent until it hangs up; `_TASKS` are the tasks.

    The bindings are added to those of the gin file `file`. What this process prints goes to `log`.

    Each is answered by messages of a `_Reporter` and at last by ("done", result), ("pruned", None), ("infeasible",
    message) where these bindings cannot be trained with, ("refused", message) for what only the user can mend, or
    ("crashed", traceback).
    """
    # Ctrl-C goes to every process of the terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # It is always ended by a kill, and so cannot clean up what libraries leave in the temporary folder.
    temporary = ownership.scratch(log.parent, scratch(log, os.getpid()))
    tempfile.tempdir = str(temporary)
    threading.Thread(target=_die_with_parent, args=(temporary,), daemon=True).start()
    output = ownership.opened(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    kept: dict[str, Any] = {}
    if not connection.poll():
        # Work that comes later then begins so much sooner.
        import_tensorflow()
    while True:
        try:
            task, bindings, arguments = connection.recv()
        except EOFError:
            return
        do = _TASKS[task]
        connection.send(_answer(do, (file, bindings, allow_imports), arguments, _Reporter(connection), kept))
        keras.backend.clear_session()
        gc.collect()
        memory.give_back()


def scratch(log: Path, process: int) -> str:
    """Return how the name of the folder begins that has a worker process's temporary files; its parent removes it."""
    return f".{log.name}.{process}-"


def _answer(
    do: Callable, source: tuple[Path, list[str], bool], arguments: dict[str, Any], reporter: _Reporter, kept: dict
) -> tuple[str, Any]:
    file, bindings, allow_imports = source
    try:
        experiment = config.load([file], bindings, allow_imports)
        with watched_by(partial(reporter.progress, "looking at pictures")):
            settings = config.build(experiment.trees["run"], kept)
        return "done", do(settings, experiment.text(), reporter, **arguments)
    except PrunedError:
        return "pruned", None
    except (TrainingError, MisfitError) as error:
        return "infeasible", str(error)
    except TlxError as error:
        return "refused", str(error)
    except OSError as error:
        # A full disk, a folder that may not be written, a dataset that is gone: trying again would not help.
        return "refused", of_system(error, arguments.get("folder"))
    except Exception:  # Whatever it was, the parent must hear of it, and the search goes on.
        return "crashed", traceback.format_exc()


def _train(settings: run.Run, text: str, reporter: _Reporter, folder: Path, micros: list[int]) -> dict[str, Any]:
    return run.train(settings, folder, text, reporter, micros)


def _judge(settings: run.Run, _text: str, _reporter: _Reporter, folder: Path, at_once: int) -> dict[str, Any]:
    return run.evaluate(settings, folder, at_once)


def _cost(settings: run.Run, _text: str, reporter: _Reporter, folder: Path, wanted: list[str]) -> dict[str, float]:
    return costs.measure(settings, folder, wanted, reporter)


def _probe(settings: run.Run, _text: str, reporter: _Reporter, phase: int, micros: tuple[int, ...]) -> dict[str, float]:
    return probe.measure(settings, phase, micros, reporter)


_TASKS: dict[str, Callable] = {"train": _train, "judge": _judge, "cost": _cost, "probe": _probe}


def _die_with_parent(temporary: Path) -> None:
    wait([parent_process().sentinel])
    shutil.rmtree(temporary, ignore_errors=True)
    os._exit(1)

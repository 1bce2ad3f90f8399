"""A worker process: it runs one trial after another for the driver of a search, and dies with it."""

import gc
import os
import signal
import threading
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tlx import config, run
from tlx.errors import TlxError, TrainingError
from tlx.lazy import keras


class _PrunedError(Exception):
    """The driver has seen enough of this trial."""


class _Reporter:
    """A run's listener that passes everything on to the driver."""

    def __init__(self, connection: Connection):
        self.connection = connection

    def say(self, message: str) -> None:
        self.connection.send(("say", message))

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.connection.send(("progress", (what, done, total, note)))

    def look(self, number: int, looks: int, metrics: dict[str, Any]) -> None:
        self.connection.send(("look", (number, looks, metrics)))
        if self.connection.recv() == "prune":
            raise _PrunedError


def main(connection: Connection, file: Path, allow_imports: bool, log: Path) -> None:
    """Take ("train", bindings, folder) and ("judge", bindings, folder) from the driver until it hangs up.

    The bindings are added to those of the gin file `file`. What this process prints goes to `log`.

    Each is answered by messages of a `_Reporter` and at last by ("done", result), ("pruned", None), ("infeasible",
    message) where these bindings cannot be trained with, ("refused", message) for what only the user can mend, or
    ("crashed", traceback).
    """
    # Ctrl-C goes to every process of the terminal; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    kept: dict[str, Any] = {}
    while True:
        try:
            task, bindings, folder = connection.recv()
        except EOFError:
            return
        connection.send(_answer(task, (file, bindings, allow_imports), folder, _Reporter(connection), kept))
        keras.backend.clear_session()
        gc.collect()


def _answer(
    task: str, source: tuple[Path, list[str], bool], folder: Path, reporter: _Reporter, kept: dict
) -> tuple[str, Any]:
    file, bindings, allow_imports = source
    try:
        experiment = config.load([file], bindings, allow_imports)
        settings = config.build(experiment.trees["run"], kept)
        if task == "train":
            return "done", run.train(settings, folder, experiment.text(), reporter)
        return "done", run.evaluate(settings, folder)
    except _PrunedError:
        return "pruned", None
    except TrainingError as error:
        return "infeasible", str(error)
    except TlxError as error:
        return "refused", str(error)
    except Exception:  # Whatever it was, the driver must hear of it, and the search goes on.
        return "crashed", traceback.format_exc()


def _die_with_parent() -> None:
    wait([parent_process().sentinel])
    os._exit(1)

"""Breaks datasets in every way there is, one after the other, and tells what the readers made of them.

A script: `judge.py FORMAT...` prints a line of JSON for each case; see `Judge.judge` for the verdicts.
"""

import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from corruptions import cases
from seeds import SEEDS, picture

from tlx import memory
from tlx.data import container
from tlx.data.dataset import Dataset
from tlx.data.images import open_image
from tlx.errors import DataError
from tlx.registry import readers

# Of the processor, so that a busy machine is no reason to fail; and of the clock, for what waits.
SECONDS = 2.0
PATIENCE = 10.0
MEMORY = 1_000_000_000
_ADDRESSES = 6_000_000_000


class TooLongError(BaseException):
    """A reader that does not come to an end; no handler of exceptions may catch it."""


class _Limited:
    def __enter__(self) -> None:
        for alarm, timer, seconds in (
            (signal.SIGPROF, signal.ITIMER_PROF, SECONDS),
            (signal.SIGALRM, signal.ITIMER_REAL, PATIENCE),
        ):
            signal.signal(alarm, self._over)
            signal.setitimer(timer, seconds)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)

    @staticmethod
    def _over(*_: Any) -> None:
        raise TooLongError


class Judge:
    """Keeps a sound copy of one format's dataset in a folder, and judges what becomes of broken ones."""

    def __init__(self, name: str, folder: Path):
        self.seed = SEEDS[name]
        self._sound = folder / "sound" / "data"
        self.seed.make(self._sound)
        self.root = folder / "broken" / "data"
        (folder / "broken").mkdir(parents=True)
        (folder / "broken" / "secret.png").write_bytes(picture((7, 7)))

    def judge(self, break_it: Callable[[Path], object]) -> str:
        """Return "error", "finding" or "sound" for a broken copy; what else it returns is a fault of the reader's.

        "error" is one DataError that names the file or folder, when reading or, for pictures, decoding;
        "finding" a finding that names a file; "sound" a dataset without either, for damage may make sense.
        """
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._sound, self.root)
        break_it(self.root)
        before = _state(self.root)
        try:
            with _Limited():
                verdict = self._read()
        except TooLongError:
            verdict = f"took more than {SECONDS:g} s of the processor, or {PATIENCE:g} s"
        except BaseException as error:
            verdict = f"{type(error).__name__}: {str(error)[:300]} ({_place(error)})"
        if _state(self.root) != before:
            verdict = "changed its input"
        # Not of getrusage, which begins with what the parent held.
        most = memory.peak()
        return verdict if most <= MEMORY else f"has taken {most:,} bytes of memory"

    def _read(self) -> str:
        for entry in readers.entries.values():
            if entry.sniff and not entry.sniff(self.root).why:
                return f"the sniff of {entry.name} says nothing"
        try:
            dataset = self.seed.read(self.root)
            if dataset is None:
                return "sound"
            if odd := self._unread(dataset):
                return odd
        except DataError as error:
            named = any(name in str(error) for name in (str(self.root), *(Path(f).name for f in self.seed.files)))
            return "error" if named else f"an error that names no file: {error}"
        if nameless := [finding for finding in dataset.findings if not finding.file]:
            return f"a finding that names no file: {nameless[0]}"
        return "finding" if dataset.findings else "sound"

    def _unread(self, dataset: Dataset) -> str:
        """Return what is wrong with a dataset's pictures, if they are not ones of its own; decode them."""
        for example in dataset.examples:
            if not Path(os.path.realpath(container.holder(example.image))).is_relative_to(os.path.realpath(self.root)):
                return f"took {example.image}"
            if open_image(example.image).size != (example.width, example.height):
                return f"{example.image} has another size than {example.width} x {example.height}"
        return ""


def _state(root: Path) -> dict[str, tuple]:
    """Return everything in a folder that reading must not change."""
    state = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            digest = ""
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha1").hexdigest()
            state[path] = (status.st_mode, status.st_size, status.st_mtime_ns, digest)
    return state


def _place(error: BaseException) -> str:
    places = []
    trace = error.__traceback__
    while trace:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places[-6:])


def main(names: list[str]) -> None:
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            judge = Judge(name, Path(folder))
            for what, break_it in [("nothing broken", lambda root: None), *cases(name)]:
                print(json.dumps({"format": name, "case": what, "verdict": "never came back"}), flush=True)
                verdict = judge.judge(break_it)
                print(json.dumps({"format": name, "case": what, "verdict": verdict}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

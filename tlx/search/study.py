"""The driver of a search: it alone asks Optuna, gives work to a worker process, and writes the study down."""

import json
import multiprocessing
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tlx import checkpoint
from tlx.config import Experiment
from tlx.errors import TrainingError
from tlx.lock import only_process
from tlx.search import worker
from tlx.search.space import Search, as_asked, binding, propose

_CONFIG, _JOURNAL = "config.gin", "study.journal"
# A trial that dies once may have been unlucky; one that dies twice is at fault itself.
_ATTEMPTS = 2
_LOST = "the worker process died"


class Display(Protocol):
    """Whoever shows a search as it goes on."""

    def say(self, message: str) -> None:
        """Take one line of news."""

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take how far the present trial is."""

    def table(self, rows: list[dict[str, Any]], wanted: int) -> None:
        """Take all trials so far, as `rows` gives them, and how many are to be finished."""


@dataclass
class _Worker:
    """A worker process that is replaced when it dies."""

    file: Path
    allow_imports: bool
    log: Path
    process: Any = None
    connection: Any = None

    def do(
        self, task: str, bindings: list[str], folder: Path, hear: Callable[[str, Any], str | None]
    ) -> tuple[str, Any]:
        """Give the worker a task and return its last message; ("lost", why) where it died over it."""
        if self.process is None or not self.process.is_alive():
            self._start()
        try:
            self.connection.send((task, bindings, folder))
            while True:
                kind, content = self.connection.recv()
                if kind not in ("say", "progress", "look"):
                    return kind, content
                if (answer := hear(kind, content)) is not None:
                    self.connection.send(answer)
        except (EOFError, OSError):
            self.process.join()
            return "lost", f"{_LOST} ({_death(self.process.exitcode)}); see {self.log}"

    def _start(self) -> None:
        # A fresh interpreter: a fork of a process that has threads is not safe for TensorFlow.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=worker.main, args=(theirs, self.file, self.allow_imports, self.log), daemon=True
        )
        # Until it has said so itself, the new process too must leave Ctrl-C to the driver.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.process.start()
        signal.signal(signal.SIGINT, before)
        theirs.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()


def _death(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class Study:
    """A search in a folder, begun or gone on with."""

    def __init__(self, experiment: Experiment, search: Search, folder: Path, display: Display):
        import optuna  # noqa: PLC0415  It takes a third of a second, which commands that only answer must not spend.

        self.optuna, self.search, self.folder, self.display = optuna, search, folder, display
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.experiment = experiment
        self.worker = _Worker(folder / _CONFIG, experiment.allow_imports, folder / "worker.log")
        self.study = self._open()

    def _open(self) -> Any:
        optuna = self.optuna
        journal = self.folder / _JOURNAL
        mend(journal)
        # Optuna's lock is a link to this path, which must hold from wherever it is read.
        backend = optuna.storages.journal.JournalFileBackend(str(journal.absolute()))
        storage = optuna.storages.JournalStorage(backend)
        pruners = {
            "median": optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
            "none": optuna.pruners.NopPruner(),
        }
        study = optuna.create_study(
            storage=storage,
            study_name="tlx",
            direction="maximize",
            load_if_exists=True,
            pruner=pruners[self.search.pruner],
        )
        # Taking up the same random numbers again after an interruption would propose the same points again.
        seed = self.search.seed + len(study.trials)
        startup = max(3, self.search.trials // 4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        return study

    def run(self) -> dict[str, Any]:
        """Finish the study's trials, judge the best one, and return what `result.json` holds."""
        try:
            self._retry_orphans()
            if not self.study.trials:
                written = {n: as_asked(self.experiment.value(n), b) for n, b in self.search.space.items()}
                self.study.enqueue_trial(written)
            while len(self._finished()) < self.search.trials:
                self._show()
                self._trial()
            self._show()
            return self._conclude()
        finally:
            self.worker.stop()

    def _trial(self) -> None:
        trial = self.study.ask()
        bindings = [binding(name, value) for name, value in propose(trial, self.search.space).items()]
        # A second attempt takes up the checkpoints of the first.
        first = trial.user_attrs.get("retry_of", trial.number)
        folder = self.folder / "trials" / f"{first:04d}"
        trial.set_user_attr("bindings", bindings)
        trial.set_user_attr("folder", str(folder.relative_to(self.folder)))
        self.display.say(f"trial {trial.number}: {', '.join(bindings)}")
        begun = time.monotonic()

        def hear(kind: str, content: Any) -> str | None:
            if kind != "look":
                getattr(self.display, kind)(*(content if kind == "progress" else (content,)))
                return None
            number, looks, metrics = content
            trial.report(metrics["AP"] or 0.0, number)
            trial.set_user_attr("metrics", metrics)
            return "prune" if number < looks and trial.should_prune() else "go on"

        more = ["run.judge = 'validation'", *self._smaller(bindings, first)]
        kind, content = self.worker.do("train", [*bindings, *more], folder, hear)
        trial.set_user_attr("seconds", time.monotonic() - begun)
        self._file(trial, first, kind, content)

    def _smaller(self, bindings: list[str], first: int) -> list[str]:
        """Return a binding that halves the micro-batch where an earlier attempt died, as it does for want of memory."""
        earlier = self.study.trials[first].user_attrs.get("cause", "")
        if not earlier.startswith(_LOST):
            return []
        batch = self.experiment.with_bindings(bindings).value("fit.batch_size")
        return [binding("fit.micro_batch", max(1, batch // 2))]

    def _file(self, trial: Any, first: int, kind: str, content: Any) -> None:
        states = self.optuna.trial.TrialState
        if kind == "done":
            trial.set_user_attr("metrics", content["metrics"])
            self.study.tell(trial, content["metrics"]["AP"] or 0.0)
        elif kind in ("pruned", "infeasible"):
            # That bindings lead nowhere is worth knowing to the sampler, and a trial like any other.
            trial.set_user_attr("cause", content)
            self.study.tell(trial, state=states.PRUNED)
        elif kind == "refused":
            self.study.tell(trial, state=states.FAIL)
            raise TrainingError(f"trial {trial.number}: {content}")
        else:
            trial.set_user_attr("cause", content)
            self.display.say(f"trial {trial.number} was lost: {content.strip().splitlines()[-1]}")
            self._retry(self.study.trials[trial.number], first)

    def _retry(self, trial: Any, first: int) -> None:
        """Put a trial that came to nothing back in the queue, once, and close it."""
        failed = [t for t in self.study.trials if t.user_attrs.get("cause")]
        attempts = [t for t in failed if first in (t.number, t.user_attrs.get("retry_of"))]
        if len(attempts) < _ATTEMPTS:
            self.study.enqueue_trial(_asked(trial), user_attrs={"retry_of": first})
        self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
        if len(failed) > self.search.trials + _ATTEMPTS:
            raise TrainingError(f"{len(failed)} trials were lost; the last cause: {trial.user_attrs.get('cause')}")

    def _retry_orphans(self) -> None:
        """Retry the trials that ran when an earlier driver died."""
        for trial in self.study.trials:
            if trial.state == self.optuna.trial.TrialState.RUNNING:
                first = trial.user_attrs.get("retry_of", trial.number)
                waiting = any(
                    t.user_attrs.get("retry_of") == first and t.number > trial.number for t in self.study.trials
                )
                if not waiting:
                    self.study.enqueue_trial(_asked(trial), user_attrs={"retry_of": first})
                self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)

    def _finished(self) -> list[Any]:
        states = self.optuna.trial.TrialState
        return [t for t in self.study.trials if t.state in (states.COMPLETE, states.PRUNED)]

    def rows(self) -> list[dict[str, Any]]:
        """Return every trial as `result.json` lists it."""
        return [
            {
                "trial": t.number,
                "state": t.state.name.lower(),
                "bindings": t.user_attrs.get("bindings", []),
                "validation": t.user_attrs.get("metrics"),
                "seconds": t.user_attrs.get("seconds"),
                "folder": t.user_attrs.get("folder"),
                "retry_of": t.user_attrs.get("retry_of"),
                "cause": t.user_attrs.get("cause"),
            }
            for t in self.study.trials
        ]

    def _show(self) -> None:
        self.display.table(self.rows(), self.search.trials)

    def _conclude(self) -> dict[str, Any]:
        rows = self.rows()
        if all(row["state"] != "complete" for row in rows):
            causes = "\n  ".join(dict.fromkeys(row["cause"] or "pruned" for row in rows))
            raise TrainingError(f"no trial could be trained to its end:\n  {causes}")
        best = rows[self.study.best_trial.number]
        kind, test = self.worker.do("judge", best["bindings"], self.folder / best["folder"], self._relay)
        if kind != "done":
            raise TrainingError(f"the winner, trial {best['trial']}, could not be judged: {test}")
        chosen = {key: best[key] for key in ("trial", "bindings", "validation", "folder")}
        result = {"best": {**chosen, "test": test["metrics"] if test["split"] == "test" else None}}
        result |= {"split": test["split"], "metrics": test["metrics"]}
        # Of all attempts, those of earlier drivers included.
        result |= {"seconds": sum(row["seconds"] or 0.0 for row in rows), "trials": rows}
        for name in ("environment.json", "data.json"):
            shutil.copy(self.folder / best["folder"] / name, self.folder / name)
        checkpoint.write(self.folder / "result.json", json.dumps(result, indent=1).encode())
        return result

    def _relay(self, kind: str, content: Any) -> None:
        getattr(self.display, kind)(*(content if kind == "progress" else (content,)))


def search(experiment: Experiment, settings: Search, folder: Path, display: Display) -> dict[str, Any]:
    """Run a search in `folder`, or go on with the one that was interrupted there, and return its result.

    Raises:
      TlxError: another process is at work in the folder.
      TrainingError: a trial cannot be run as it is configured, or too
        many were lost.
    """
    with only_process(folder):
        checkpoint.write(folder / _CONFIG, experiment.text().encode())
        return Study(experiment, settings, folder, display).run()


def _asked(trial: Any) -> dict[str, Any]:
    """Return the parameters of a trial, also of one whose driver died before it had asked for them all."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def mend(journal: Path) -> None:
    """Undo what a killed driver left half done: a last line cut short, and Optuna's lock, for which it would wait."""
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink()
    if journal.exists():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)

"""The driver of a search: it alone asks Optuna, gives work to worker processes, and writes the study down."""

import contextlib
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tlx import checkpoint, ownership
from tlx.config import Experiment, build
from tlx.evaluate.choose import evaluator_of
from tlx.events import Answer, Listener, Look
from tlx.lock import only_process
from tlx.search import hosts
from tlx.search.alternatives import FIRST_LOOK_AT_MOST, FirstLook
from tlx.search.filing import Filing
from tlx.search.finals import Finals
from tlx.search.plan import Plan
from tlx.search.postgresql import Server
from tlx.search.pruning import TRAINS, first_cut, trained_share
from tlx.search.settings import Search
from tlx.search.space import fixed_bindings, space_of
from tlx.search.storage import (
    METRIC,
    OBJECTIVES,
    WARM,
    asked,
    identity,
    learn_from,
    open_study,
    place,
    quiet_optuna,
    rows,
)
from tlx.work.attempts import Attempts
from tlx.work.hand import Outcome

_CONFIG = "config.gin"
# So many points are put in the queue before other hosts have their turn.
_AT_ONCE = 100
# So often, in seconds, it is shown how far trials are; asking a server for them costs something.
_SHOWN = 5.0
# So often, in seconds, a worker without work looks whether another host has left some.
_POLL = 0.5


class Study:
    """A search in a folder, begun or gone on with."""

    def __init__(self, experiment: Experiment, search: Search, host: hosts.Alone, display: Listener):
        self.experiment, self.search, self.host, self.display = experiment, search, host, display
        self.folder = host.folder
        self.states = quiet_optuna().trial.TrialState
        memory = build(experiment.trees["run"].arguments["memory"])
        file = self.folder / _CONFIG
        most = space_of(experiment, search).most
        self.attempts = [
            Attempts(experiment, memory, file, self.folder / f"worker-{i}.log", search.workers, most)
            for i in range(search.workers)
        ]
        with host.alone():
            evaluations = experiment.value("fit.evaluations")
            self.study = open_study(search, host.storage, host.study_name, evaluations, host.name)
            host.join(self.study)
            conflict = f"the study {host.study_name} is of another experiment; give another --study_name"
            host.agree("experiment", identity(experiment), conflict)
        self._news, self._stopping = threading.Condition(), False
        # The share of its updates that each trial of this driver has done, and when that was shown last.
        self._shares: dict[int, float] = {}
        self._shown = time.monotonic()
        self.metric = evaluator_of(experiment).metric(search.metric)
        self.study.set_user_attr(METRIC, self.metric.name)
        self.study.set_user_attr(OBJECTIVES, list(search.objectives))
        self.filing = Filing(self.study, search, host, self.metric, display)
        self._began = time.monotonic() - host.seconds

    def run(self) -> dict[str, Any]:
        """Finish the study's trials, judge the best one, and return what `result.json` holds."""
        try:
            self._begin()
            with ThreadPoolExecutor(self.search.workers) as pool:
                working = [pool.submit(self._work, attempts) for attempts in self.attempts]
                try:
                    wait(working, return_when=FIRST_EXCEPTION)
                finally:
                    # After an error, or Ctrl-C, the others end as well; the next driver takes up their trials.
                    if not all(one.done() for one in working):
                        self._stopping = True
                        self._stop()
                for one in working:
                    one.result()
            self._show()
            finals = Finals(
                self.experiment, self.search, self.host, self.attempts[0], self.display, self._tick, self.first_look
            )
            return finals(self.rows())
        finally:
            self._stop()
            self.host.close()

    def _stop(self) -> None:
        for attempts in self.attempts:
            attempts.stop()

    def _begin(self) -> None:
        late = partial(self._late, FIRST_LOOK_AT_MOST)
        first = FirstLook(self.experiment, self.search, self.host, self.attempts[0], self.display, self._tick, late)
        chosen, self.first_look = first()
        self.plan = Plan.of(self.experiment, self.search, chosen)
        if self.search.objectives and self.search.pruner != "none":
            self.display.say("with search.objectives no trial is pruned: each runs to its end")
        for start in range(0, len(self.plan.points), _AT_ONCE):
            with self.host.alone():
                known = [asked(trial) for trial in self._trials()]
                for point in self.plan.points[: start + _AT_ONCE]:
                    # The first two may be the same but for the alternatives, which Optuna does not know.
                    if point in known:
                        known.remove(point)
                    else:
                        self.study.enqueue_trial(point)
        with self.host.alone():
            self.filing.retry_orphans()
            if earlier := self.search.warm_start:
                learnt = learn_from(self.study, earlier, self.plan.space, self.host.server)
                self.display.say(f"learning from {learnt} trials of {earlier}")

    def _work(self, attempts: Attempts) -> None:
        """Run one trial after another until enough are done, or time is up."""
        try:
            while (trial := self._next()) is not None:
                try:
                    self._trial(trial, attempts)
                except quiet_optuna().exceptions.UpdateFinishedTrialError:
                    # This host was silent for so long that another one has taken the trial up.
                    self.display.say(f"trial {trial.number} was taken from this host: {self.host.lost}")
                except BaseException:
                    # Before the trial is left: no thread of this driver is to take it up again.
                    self._stopping = True
                    raise
                finally:
                    self.host.leave(trial)
                    with self.host.turn:
                        self._tick()
                    with self._news:
                        self._news.notify_all()
        except BaseException:
            self._stopping = True
            raise

    def _next(self) -> Any:
        """Return a trial to run, as soon as there is one; None once all are done, here and on every other host."""
        budget = [self.plan.wanted, self.search.minutes]
        while not self._stopping:
            with self.host.alone():
                self.filing.retry_orphans()
                states = [trial.state for trial in self._trials() if WARM not in trial.user_attrs]
                running = states.count(self.states.RUNNING)
                finished = states.count(self.states.COMPLETE) + states.count(self.states.PRUNED)
                if finished >= self.plan.wanted or self.host.noted("ended", budget):
                    return None
                late = bool(finished) and self._late()
                if late and not running:
                    # By another host's clock there may be time left.
                    self.host.note("ended", budget, True)
                    return None
                if not late and finished + running < self.plan.wanted:
                    trial = self.study.ask()
                    self.host.take(trial)
                    return trial
                self._show()
            with self._news:
                self._news.wait(_POLL)
        return None

    def _tick(self) -> None:
        """Note down how long the search has taken by the clock, all of its drivers one after another."""
        self.study.set_user_attr("seconds", time.monotonic() - self._began)

    def _late(self, share: float = 1.0) -> bool:
        """Return whether a share of the time is over that the search may take."""
        minutes = self.search.minutes
        return minutes is not None and time.monotonic() - self._began > 60 * minutes * share

    def _trial(self, trial: Any, attempts: Attempts) -> None:
        with self.host.turn:
            bindings = self.plan.bindings(trial)
            trial.set_user_attr("bindings", bindings)
            self._show()
            self.display.say(f"trial {trial.number}: {', '.join(bindings)}")
        ownership.take(self.folder / place(trial), "run", within=self.folder)
        begun = time.monotonic()
        folder, listener = self.folder / place(trial), _TrialListener(self, trial)
        outcome = self._attempt(attempts, bindings, folder, listener)
        if self._stopping and outcome.kind == "lost":
            return
        with self.host.alone():
            trial.set_user_attr("seconds", time.monotonic() - begun)
            self.filing.file(trial, outcome)

    def _attempt(self, attempts: Attempts, bindings: list[str], folder: Path, listener: Listener) -> Outcome:
        """Train a trial, and measure what it costs where that is asked for."""
        outcome = attempts.train(bindings, folder, fixed_bindings(self.search.metric), listener)
        if outcome.kind != "done" or not self.search.costs:
            return outcome
        costs = attempts.cost(bindings, folder, self.search.costs, listener)
        return replace(outcome, content=outcome.content | {"costs": costs.content}) if costs.kind == "done" else costs

    def evaluated(self, trial: Any, look: Look) -> Answer:
        """Note a look at a trial down, and answer whether it goes on."""
        with self.host.turn, contextlib.suppress(quiet_optuna().exceptions.UpdateFinishedTrialError):
            trial.set_user_attr("metrics", look.metrics)
            trial.set_user_attr("look", [look.number, look.of])
            if self.search.objectives:
                return "continue"
            trial.report(look.score, look.number)
            if TRAINS not in trial.user_attrs:
                trial.set_user_attr(TRAINS, trained_share(self.folder / place(trial)))
            early = look.number < first_cut(self.search, look.of)
            return "continue" if early or look.number == look.of or not trial.should_prune() else "prune"
        return "prune"

    def _trials(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def rows(self) -> list[dict[str, Any]]:
        """Return every trial as `result.json` lists it."""
        return rows(self.study)

    def trained(self, trial: Any, share: float) -> None:
        """Take which share of its updates a trial of this driver has done, and show that now and then."""
        with self.host.turn:
            self._shares[trial.number] = share
            if time.monotonic() - self._shown > _SHOWN:
                self._show()

    def _show(self) -> None:
        """Show all trials, and of those that run here how far they are."""
        shown = self.rows()
        for row in shown:
            if row["state"] == "running":
                row["share"] = self._shares.get(row["trial"], 0.0)
        self.display.trials(shown, self.plan.wanted)
        self._shown = time.monotonic()


class _TrialListener(Listener):
    """Passes on what a trial tells to who shows the search, and has the study answer."""

    def __init__(self, study: Study, trial: Any):
        self.study, self.trial = study, trial
        self.whose = f"trial {trial.number}: " if study.search.workers > 1 else ""

    def say(self, message: str) -> None:
        self.study.display.say(f"{self.whose}{message}")

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.study.display.progress(f"{self.whose}{what}", done, total, note)
        if what == "training":
            self.study.trained(self.trial, done / total)

    def evaluated(self, look: Look) -> Answer:
        return self.study.evaluated(self.trial, look)


def search(
    experiment: Experiment,
    settings: Search,
    folder: Path,
    display: Listener,
    server: Server | None = None,
    study_name: str | None = None,
) -> dict[str, Any]:
    """Run a search in `folder`, or go on with the one that was interrupted there, and return its result.

    With a `server`, this is one of many hosts that share a study there, each with its own folder.

    Raises:
      TlxError: another process is at work in the folder, or the server is gone.
      ConfigError: the folder or the study is another experiment's.
      TrainingError: a trial cannot be run as it is configured, or too many were lost.
    """
    ownership.take(folder, "search")
    with only_process(folder), server.told() if server else contextlib.nullcontext():
        checkpoint.write(folder / _CONFIG, experiment.text().encode())
        return Study(experiment, settings, hosts.host(experiment, folder, server, study_name), display).run()

"""What becomes of trials: their ends are told to Optuna, and what came to nothing is queued again."""

import json
from dataclasses import dataclass
from typing import Any

from tlx.errors import TrainingError
from tlx.evaluate.evaluator import Metric
from tlx.events import Listener
from tlx.search.hosts import Alone
from tlx.search.settings import Search
from tlx.search.storage import INFEASIBLE, asked, place, quiet_optuna, root
from tlx.work.hand import Outcome

# A trial that crashes once may have been unlucky; one that crashes twice is at fault itself.
_ATTEMPTS = 2


@dataclass(frozen=True)
class Filing:
    """Files the trials of an Optuna study; to be used by one host at a time."""

    study: Any
    search: Search
    host: Alone
    metric: Metric
    display: Listener

    def file(self, trial: Any, outcome: Outcome) -> None:
        """Tell the study how a trial ended.

        Raises:
          TrainingError: only the user can mend what kept the trial from its end, or too many were lost.
        """
        kind, content, pruned = outcome.kind, outcome.content, quiet_optuna().trial.TrialState.PRUNED
        if kind == "done":
            self._compare_data(trial)
            trial.set_user_attr("metrics", content["metrics"])
            trial.set_constraint(INFEASIBLE, -1.0)
            costs = content.get("costs", {})
            trial.set_user_attr("costs", costs)
            for name, limit in self.search.limits.items():
                trial.set_constraint(name, costs[name] / limit - 1)
            score = self.metric.score(content["metrics"])
            self.study.tell(trial, [score, *(costs[name] for name in self.search.objectives)])
        elif kind in ("pruned", "infeasible"):
            # That bindings lead nowhere is worth knowing to the sampler, and a trial like any other.
            trial.set_user_attr("cause", content)
            trial.set_constraint(INFEASIBLE, 1.0 if kind == "infeasible" else -1.0)
            self.study.tell(trial, state=pruned)
        elif kind == "refused":
            # It is left as running: once the user has mended what is wrong, the next driver takes it up.
            raise TrainingError(f"trial {trial.number}: {content}")
        else:
            trial.set_user_attr("cause", content)
            trial.set_user_attr("fault", kind == "crash")
            self.display.say(f"trial {trial.number} was lost: {content.strip().splitlines()[-1]}")
            self._retry(self.study.trials[trial.number])

    def retry_orphans(self) -> None:
        """Queue the trials again that ran when their driver died."""
        running = self.study.get_trials(deepcopy=False, states=(quiet_optuna().trial.TrialState.RUNNING,))
        for trial in self.host.orphans(running):
            if "cause" not in trial.user_attrs:
                self.study._storage.set_trial_user_attr(trial._trial_id, "cause", self.host.lost)
            self._retry(trial)

    def _compare_data(self, trial: Any) -> None:
        """Refuse what was trained on other data than the other hosts have."""
        if self.host.name:
            known = json.loads((self.host.folder / place(trial) / "data.json").read_text())
            conflict = f"this host's data is not the data that the study {self.host.study_name} is about; mend the path"
            self.host.agree("data", known["fingerprint"], f"{conflict}, or give another --study_name")

    def _retry(self, trial: Any) -> None:
        """Close a trial that came to nothing, and queue it again: once, and unless it has crashed too often."""
        first = root(trial)
        trials = self.study.get_trials(deepcopy=False)
        failed = [t for t in trials if "fault" in t.user_attrs]
        crashed = [t for t in failed if t.user_attrs["fault"] and root(t) == first]
        waiting = any(t.user_attrs.get("retry_of") == first and t.number > trial.number for t in trials)
        if len(crashed) >= _ATTEMPTS:
            self.display.say(f"trial {first} is given up: it crashed {len(crashed)} times")
        elif not waiting:
            self.study.enqueue_trial(asked(trial), user_attrs={"retry_of": first})
        self.study.tell(trial.number, state=quiet_optuna().trial.TrialState.FAIL)
        if len(failed) > _ATTEMPTS * (self.search.trials + 1):
            raise TrainingError(f"{len(failed)} trials were lost; the last cause: {trial.user_attrs.get('cause')}")

import io

import optuna
from rich.console import Console

from tlx.report.terminal import Terminal, trials_table
from tlx.search.storage import rows

FLAT = {"AP": 0.5, "AP50": 0.9, "AP75": 0.4, "AR": None, "images": 3, "per_class": {"cat": {"AP": 0.5}}}


def row(number: int, state: str) -> dict:
    metrics = {"primary": "AP", "values": {"AP": 0.5, "AP50": 0.9}} if state == "complete" else None
    score = 0.5 if metrics else None
    return {"trial": number, "state": state, "bindings": [], "validation": metrics, "score": score, "seconds": 1.0}


def test_in_a_pipe_each_trial_is_told_once_in_the_order_in_which_they_end():
    told = io.StringIO()
    terminal = Terminal(Console(file=told))
    terminal.trials([row(0, "running"), row(1, "complete"), row(2, "running")], 3)
    terminal.trials([row(0, "complete"), row(1, "complete"), row(2, "running")], 3)
    terminal.trials([row(0, "complete"), row(1, "complete"), row(2, "pruned")], 3)
    assert [line.split(":")[0] for line in told.getvalue().splitlines() if line.startswith("trial ")] == [
        *("trial 1 complete", "trial 0 complete", "trial 2 pruned, 1 s")
    ]


def test_trials_of_studies_of_older_versions_are_shown():
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={"metrics": FLAT, "bindings": [], "seconds": 2.0}))
    (old,) = rows(study)
    assert old["validation"] == {"primary": "AP", "values": {"AP": 0.5, "AP50": 0.9, "AP75": 0.4, "AR": None}}
    told = io.StringIO()
    Console(file=told, width=120).print(trials_table([old]))
    assert "0.500" in told.getvalue()
    assert "0.900" in told.getvalue()

import io
import time

import optuna
import pytest
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


def test_in_a_pipe_no_silence_is_longer_than_it_may_be():
    told = io.StringIO()
    with Terminal(Console(file=told, width=200), silent=0.05) as terminal:
        terminal.trials([row(0, "running") | {"share": 0.25}], 4)
        terminal.progress("training", 30, 120, "loss 0.500")
        until = time.monotonic() + 60
        while told.getvalue().count("after ") < 2 and time.monotonic() < until:
            time.sleep(0.01)
    lines = [line for line in told.getvalue().splitlines() if line.startswith("after ")]
    assert len(lines) >= 2
    assert "search 0.25/4" in lines[0]
    assert "training 30/120, loss 0.500" in lines[0]


def test_time_left_is_told_from_the_first_trial_on():
    terminal = Terminal(Console(file=io.StringIO()))
    for share in (0.1, 0.2, 0.3):
        terminal.trials([row(0, "running") | {"share": share}], 4)
    (search,) = terminal._bars.tasks
    assert search.completed == pytest.approx(0.3)
    assert search.time_remaining is not None


def test_the_table_tells_what_runs_how_far_it_is_and_at_which_look_a_trial_was_cut():
    rows = [
        row(0, "complete"),
        row(1, "pruned") | {"look": [4, 8]},
        row(2, "pruned") | {"look": [1, 8], "cause": "the loss became nan"},
        row(3, "running") | {"share": 0.452, "bindings": ["fit.learning_rate = 0.01"], "seconds": None},
    ]
    told = io.StringIO()
    Console(file=told, width=160).print(trials_table(rows))
    lines = told.getvalue().splitlines()
    for words in (("1", "cut at look 4/8"), ("2", "infeasible"), ("3", "running, 45%", "fit.learning_rate = 0.01")):
        assert any(all(word in line for word in words) for line in lines)

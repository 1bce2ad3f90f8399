"""Searches for a good detector that is also small or quick: the Pareto front, and limits."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from tlx import checkpoint, config
from tlx.commands import study as study_command
from tlx.commands.shared import FLAGS
from tlx.errors import ConfigError, TrainingError
from tlx.events import Listener, Look
from tlx.report import pareto
from tlx.search import study
from tlx.work import attempts
from tlx.work.hand import Hand, Outcome

SEARCH = f"""\
include '{Path(__file__).parents[1] / "minimal.gin"}'
memory.probe = False
search.trials = 8
search.space = {{'fit.learning_rate': ('log', 1e-4, 1e-2), 'fit.epochs': ('float', 10, 40)}}
"""


class Display(Listener):
    def __init__(self):
        self.lines = []

    def say(self, message):
        self.lines.append(message)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Return a function that searches where a trial's score grows with its rate, and its latency with its epochs."""
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    answers = {}

    def do(self, task, bindings, listener, folder=None, micros=None, wanted=(), **_):
        values = dict(b.split(" = ") for b in bindings)
        score = float(values["fit.learning_rate"]) * 10
        if task == "cost":
            latency = float(values["fit.epochs"])
            found = Outcome("done", {name: {"latency_ms": latency, "size_mb": 5.0}[name] for name in wanted})
            answer = answers.get("cost", found)
            return answer(latency, found) if callable(answer) else answer
        for name in ("data.json", "environment.json"):
            checkpoint.write(folder / name, b"{}")
        checkpoint.write(folder / "model.json", b'{"layers": []}')
        metrics = {"primary": "AP", "values": {"AP": score}}
        if task == "train" and listener.evaluated(Look(1, 2, 1, 2, 1, score, metrics, {})) == "prune":
            return Outcome("pruned", None)
        return Outcome("done", {"split": "test", "metrics": metrics, "micro_batches": micros})

    monkeypatch.setattr(Hand, "do", do)
    gin = tmp_path / "objectives.gin"

    def search(*bindings, name="run"):
        gin.write_text(SEARCH)
        experiment = config.load([gin], bindings)
        settings = config.build(experiment.trees["search"])
        search.display = Display()
        return study.search(experiment, settings, tmp_path / name, search.display)

    search.answers = answers
    return search


def test_the_front_is_what_no_other_trial_beats_and_the_best_metric_wins(search, tmp_path):
    result = search("search.objectives = ('latency_ms',)", "search.workers = 2")
    rows = {row["trial"]: (row["score"], row["costs"]["latency_ms"]) for row in result["trials"]}
    beaten = {
        number
        for number, (score, latency) in rows.items()
        if any(s >= score and t <= latency and (s, t) != (score, latency) for s, t in rows.values())
    }
    assert result["front"] == sorted(rows.keys() - beaten, key=lambda number: -rows[number][0])
    assert result["best"]["trial"] == result["front"][0] == max(rows, key=lambda number: rows[number][0])
    assert result["best"]["costs"] == {"latency_ms": rows[result["best"]["trial"]][1]}
    kept = json.loads((tmp_path / "run" / "pareto.json").read_text())
    assert (kept["front"], kept["objectives"], len(kept["trials"])) == (result["front"], ["AP", "latency_ms"], 8)
    with Image.open(tmp_path / "run" / "pareto.png") as picture:
        assert picture.getextrema() != ((255, 255),) * 3
    assert "no trial is pruned" in search.display.lines[0]


def test_a_search_with_objectives_goes_on(search):
    before = search("search.objectives = ('latency_ms', 'size_mb')", "search.trials = 3")
    after = search("search.objectives = ('latency_ms', 'size_mb')")
    assert [row["bindings"] for row in after["trials"]][:3] == [row["bindings"] for row in before["trials"]]
    assert len(after["trials"]) == 8


def test_what_nobody_asked_for_is_not_measured(search):
    assert search("search.trials = 1")["trials"][0]["costs"] == {}


@pytest.mark.parametrize("repeat", [1, 2])
def test_what_is_over_a_limit_is_not_chosen(search, repeat):
    result = search(
        "search.limits = {'latency_ms': 25}",
        "search.pruner = 'none'",
        f"search.repeat = {repeat}",
        # The experiment as written is the best, and too slow.
        "fit.learning_rate = 0.01",
        "search.space = {'fit.learning_rate': ('log', 1e-4, 1e-2), 'fit.epochs': ('choice', 40.0, 20.0)}",
    )
    over = {row["trial"] for row in result["trials"] if row["over"] == ["latency_ms"]}
    assert 0 in over
    within = [row for row in result["trials"] if row["trial"] not in over]
    assert result["best"]["trial"] == max(within, key=lambda row: row["score"])["trial"]
    assert result["written"]["says"].endswith("the experiment as written is beyond search.limits (latency_ms)")
    assert "front" not in result


def test_where_no_trial_keeps_a_limit_the_closest_is_named(search):
    with pytest.raises(TrainingError, match=r"no trial keeps search\.limits; the closest, trial \d, has latency_ms"):
        search("search.limits = {'latency_ms': 5}")


def test_a_trial_whose_costs_cannot_be_measured_for_want_of_memory_is_infeasible(search):
    search.answers["cost"] = Outcome("memory", "it held too much")
    with pytest.raises(TrainingError, match="to its end:\n  latency_ms could not be measured: it held too much"):
        search("search.objectives = ('latency_ms',)")


@pytest.mark.parametrize(("kind", "attempts"), [("crash", 2), ("lost", 2), ("memory", 1)])
def test_a_trial_whose_costs_cannot_be_measured_ends_once_and_the_others_go_on(search, kind, attempts):
    """It has trained to its end: it is measured once more, and neither lost nor trained again."""
    broken = []

    def cost(latency, found):
        if latency == 40 and len(broken) < attempts:
            broken.append(latency)
            return Outcome(kind, "Traceback:\nValueError: no clock")
        return found

    search.answers["cost"] = cost
    values = "search.space = {'fit.learning_rate': ('choice', 0.002, 1e-3), 'fit.epochs': ('choice', 40.0, 20.0)}"
    result = search("search.objectives = ('latency_ms',)", "search.trials = 4", values, "fit.epochs = 40.0")
    states = [row["state"] for row in result["trials"]]
    assert (states.count("pruned"), len(states), len(broken)) == (1, 4, attempts)
    (ended,) = (row for row in result["trials"] if row["state"] == "pruned")
    assert ended["cause"] == "latency_ms could not be measured: ValueError: no clock"
    said = [line for line in search.display.lines if "tried once more" in line]
    assert said == (["measuring latency_ms is tried once more: ValueError: no clock"] if attempts > 1 else [])


def test_what_is_measured_at_the_second_attempt_is_taken(search):
    failures = iter([Outcome("crash", "no clock"), Outcome("lost", "it was ended")])
    search.answers["cost"] = lambda _, found: next(failures, found)
    result = search("search.objectives = ('latency_ms',)", "search.trials = 3")
    # The first trial's second attempt is lost as well; the others are measured.
    assert [row["state"] for row in result["trials"]] == ["pruned", "complete", "complete"]
    failures = iter([Outcome("crash", "no clock")])
    result = search("search.objectives = ('latency_ms',)", "search.trials = 2", name="again")
    assert [row["state"] for row in result["trials"]] == ["complete", "complete"]


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("search.objectives = ('latency',)", "latency_ms"),
        ("search.objectives = ('size_mb', 'size_mb')", "twice"),
        ("search.limits = {'size': 3}", "size_mb"),
        ("search.limits = {'size_mb': 0}", "above 0"),
        ("search.objectives = ('AP',)", r"search\.objectives: 'AP' is none of latency_ms"),
    ],
)
def test_what_cannot_be_meant_is_refused(search, binding, message):
    with pytest.raises(ConfigError, match=message):
        search(binding)


def test_another_searchs_objectives_are_not_learnt_from(search, tmp_path):
    search("search.objectives = ('latency_ms',)", name="earlier")
    with pytest.raises(ConfigError, match=r"search\.warm_start.*objectives"):
        search(f"search.warm_start = '{tmp_path / 'earlier'}'", name="later")
    more = search("search.objectives = ('latency_ms',)", f"search.warm_start = '{tmp_path / 'earlier'}'", name="again")
    assert len(more["trials"]) == 8


def test_a_study_shows_its_front(search, tmp_path, monkeypatch):
    FLAGS(["tlx"])
    out = io.StringIO()
    monkeypatch.setattr(study_command, "CONSOLE", Console(file=out, width=200))
    monkeypatch.setattr(study_command, "_print_memory", lambda *_: None)
    search("search.objectives = ('latency_ms',)")
    study_command.study([str(tmp_path / "run")])
    assert "the Pareto front" in out.getvalue()
    assert "latency_ms" in out.getvalue()


def row(trial, score, latency, over=()):
    return {"trial": trial, "state": "complete", "score": score, "costs": {"latency_ms": latency}, "over": [*over]}


def test_equals_are_both_on_the_front_and_what_is_over_a_limit_is_not():
    rows = [row(0, 0.5, 10), row(1, 0.5, 10), row(2, 0.4, 10), row(3, 0.4, 5), row(4, 0.9, 50, ["latency_ms"])]
    assert [one["trial"] for one in pareto.front(rows, ["latency_ms"])] == [0, 1, 3]

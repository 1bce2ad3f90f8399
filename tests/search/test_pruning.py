"""Pruning: not before a look says something about the end, and not against trials that train less."""

import json
from pathlib import Path

import optuna
import pytest

from tlx import checkpoint, config
from tlx.errors import ConfigError
from tlx.events import NOBODY, Listener, Look
from tlx.search import study
from tlx.search.settings import Search
from tlx.search.storage import open_study
from tlx.work import attempts
from tlx.work.hand import Hand, Outcome

SEARCH = f"""\
include '{Path(__file__).parents[1] / "minimal.gin"}'
memory.probe = False
search.trials = 7
search.sampler = 'random'
search.space = {{'fit.learning_rate': ('log', 1e-4, 1e-2)}}
"""
STEADY, SLOW, BAD = (0.3, 0.4, 0.5, 0.6), (0.1, 0.45, 0.6, 0.9), (0.3, 0.35, 0.36, 0.37)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Return a function that searches with trials whose scores, look by look, and shares that train are given."""
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")

    def search(trials, *bindings, display=NOBODY):
        def do(self, task, bindings, listener, folder=None, micros=None, **_):
            scores, share = trials[int(folder.name)]
            layers = [{"trains": [i < 10 * share]} for i in range(10)]
            checkpoint.write(folder / "model.json", json.dumps({"layers": layers}).encode())
            metrics = {"primary": "AP", "values": {"AP": scores[0]}}
            for number, score in enumerate(scores, 1):
                metrics = {"primary": "AP", "values": {"AP": score}}
                if task == "train":
                    listener.progress("training", number, len(scores))
                    look = Look(number, len(scores), number, len(scores), number, score, metrics, {})
                    if listener.evaluated(look) == "prune":
                        return Outcome("pruned", None)
            return Outcome("done", {"split": "test", "metrics": metrics, "micro_batches": micros})

        monkeypatch.setattr(Hand, "do", do)
        gin = tmp_path / "pruned.gin"
        gin.write_text(SEARCH)
        experiment = config.load([gin], bindings)
        settings = config.build(experiment.trees["search"])
        rows = study.search(experiment, settings, tmp_path / "run", display)["trials"]
        return [row["state"] for row in rows]

    return search


@pytest.mark.parametrize(("warmup", "state"), [(0.0, "pruned"), (0.25, "pruned"), (0.5, "complete")])
def test_a_slow_start_is_no_reason_to_cut_a_trial(search, warmup, state):
    trials = [(STEADY, 0)] * 5 + [(SLOW, 0), (BAD, 0)]
    assert search(trials, f"search.pruner_warmup = {warmup}") == ["complete"] * 5 + [state, "pruned"]


def test_pruning_begins_at_half_of_the_looks(search):
    assert search([(STEADY, 0)] * 5 + [(SLOW, 0), (BAD, 0)]) == ["complete"] * 6 + ["pruned"]


@pytest.mark.parametrize("warmup", [-0.1, 1.5])
def test_a_warmup_is_a_share(search, warmup):
    with pytest.raises(ConfigError, match=r"search\.pruner_warmup"):
        search([], f"search.pruner_warmup = {warmup}")


def test_a_deep_trial_is_compared_with_trials_as_deep(search):
    # Five shallow ones are ahead of it, and it is the only one that trains so much.
    assert search([(STEADY, 0)] * 5 + [(BAD, 0.5), (BAD, 0.1)]) == ["complete"] * 7


def test_a_shallow_trial_is_compared_with_deeper_ones_too(search):
    assert search([(STEADY, 0.5)] * 5 + [(BAD, 0), (BAD, 0.5)]) == ["complete"] * 5 + ["pruned", "pruned"]


def test_hyperband_begins_as_late(search):
    trials = [(SLOW, 0)] + [(STEADY, 0)] * 6
    assert search(trials, "search.pruner = 'hyperband'", "search.pruner_warmup = 1.0") == ["complete"] * 7


def test_the_sampler_learns_that_a_trial_was_cut_and_not_how_bad_it_was_then():
    def proposed(last):
        opened = open_study(Search(), optuna.storages.InMemoryStorage(), "study", 8)
        for number in range(16):
            trial = opened.ask()
            rate = trial.suggest_float("rate", 0, 1)
            trial.suggest_float("decay", 0, 1)
            if number % 2:
                trial.report(last, 4)
                opened.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                opened.tell(trial, rate)
        trial = opened.ask()
        return trial.suggest_float("rate", 0, 1), trial.suggest_float("decay", 0, 1)

    assert proposed(0.01) == proposed(0.3)


def test_a_display_sees_what_runs_with_its_bindings_and_how_far_it_is(search, monkeypatch):
    monkeypatch.setattr(study, "_SHOWN", 0.0)
    shown, display = [], Listener()
    display.trials = lambda rows, _: shown.append(rows)
    search([(STEADY, 0)] * 7, display=display)
    running = [row for rows in shown for row in rows if row["state"] == "running"]
    assert all(row["bindings"] for row in running)
    assert {row["share"] for row in running} >= {0.0, 0.25, 0.5, 0.75}

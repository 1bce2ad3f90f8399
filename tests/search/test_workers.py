"""Many workers do what one would have done, and whatever batch sizes are searched, every trial fits in memory."""

import json
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tlx import checkpoint, config
from tlx.errors import TrainingError
from tlx.events import Listener
from tlx.search import storage, study
from tlx.work import attempts
from tlx.work.hand import Hand, Outcome

MINIMAL = Path(__file__).parents[1] / "minimal.gin"
RANDOM = (
    "search.sampler = 'random'",
    "search.pruner = 'none'",
    "search.space = {'fit.learning_rate': ('log', 1e-4, 1e-2), 'features.dtype': ('choice', 'float32', 'float16')}",
)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Stand in for the workers: a machine where `fits` examples fit, a probe that tells `need`, and who waits for whom.

    `micros` holds the micro-batch of each training that was begun, and `deaths` of each that died of it.
    """
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    seen = SimpleNamespace(fits=1000, need={"fixed": 0.0, "each": 0.0}, meet=lambda: None, micros=[], deaths=[])

    def do(self, task, bindings, listener, folder=None, micros=(), **_):
        if task == "probe":
            return Outcome("done", seen.need)
        if task == "train":
            seen.meet()
            seen.micros.extend(micros)
            if max(micros) > seen.fits:
                seen.deaths.extend(micros)
                return Outcome("memory", "signal 9")
        score = float(dict(b.split(" = ") for b in bindings)["fit.learning_rate"])
        metrics = {"primary": "AP", "values": {"AP": score}}
        result = {"split": "validation", "metrics": metrics, "micro_batches": micros}
        for name in ("data.json", "environment.json"):
            checkpoint.write(folder / name, b"{}")
        checkpoint.write(folder / "result.json", json.dumps(result).encode())
        return Outcome("done", result)

    monkeypatch.setattr(Hand, "do", do)
    return seen


def trials(tmp_path, name, *bindings):
    """Search in a folder of that name, and return its trials as `result.json` lists them."""
    experiment = config.load([MINIMAL], [*RANDOM, *bindings])
    return study.search(experiment, config.build(experiment.trees["search"]), tmp_path / name, Listener())["trials"]


def test_four_workers_finish_the_trials_that_one_does(tmp_path, machine):
    alone = trials(tmp_path, "alone", "search.trials = 12")
    # Each goes on when all four are at work.
    machine.meet = threading.Barrier(4, timeout=120).wait
    together = trials(tmp_path, "together", "search.trials = 12", "search.workers = 4")
    for rows in (alone, together):
        assert [(row["trial"], row["state"]) for row in rows] == [(number, "complete") for number in range(12)]
    # Which worker asks first for its values is chance, and so is which trial has them.
    assert sorted(row["bindings"] for row in together) == sorted(row["bindings"] for row in alone)
    assert together[0]["bindings"] == alone[0]["bindings"]
    assert len({tuple(row["bindings"]) for row in alone}) == 12


@pytest.mark.parametrize("sizes", [("power_of_two", 4, 65_536), ("int", 4, 100_000)])
@pytest.mark.parametrize("fits", [1000, 40])
def test_any_batch_size_is_a_valid_trial_within_two_gigabytes(tmp_path, machine, sizes, fits):
    machine.fits, machine.need = fits, {"fixed": 5e8, "each": 1.6e7}
    space = {"fit.batch_size": sizes, "fit.learning_rate": ("log", 1e-4, 1e-2)}
    rows = trials(tmp_path, "run", "memory.budget_gb = 2.0", "search.trials = 20", f"search.space = {space}")
    assert Counter(row["state"] for row in rows) == {"complete": 20}
    assert {row["validation"]["values"]["AP"] for row in rows} > {0.002}
    batches = [int(binding.split(" = ")[1]) for row in rows for binding in row["bindings"] if "batch" in binding]
    assert max(batches) > 10_000
    # (2.0 / 1.2 - 0.5) / 0.016 are predicted to fit; where that is wrong, one death teaches all trials.
    assert max(machine.micros) == 72
    assert machine.deaths == ([72] if fits < 72 else [])


def test_an_error_of_one_worker_ends_the_others_and_what_they_have_finished_counts(tmp_path, machine, monkeypatch):
    both, stopped = threading.Barrier(2, timeout=120), threading.Event()
    answers = iter([Outcome("refused", "the disk is gone"), None])
    do, lock = Hand.do, threading.Lock()

    def two(self, task, *rest, **more):
        if task != "train":
            return do(self, task, *rest, **more)
        with lock:
            answer = next(answers)
        both.wait()
        # The other one is just coming to its end when it is told to stop.
        return answer or (stopped.wait(120) and do(self, task, *rest, **more))

    monkeypatch.setattr(Hand, "do", two)
    monkeypatch.setattr(Hand, "close", lambda self: stopped.set())
    with pytest.raises(TrainingError, match="the disk is gone"):
        trials(tmp_path, "run", "search.trials = 2", "search.workers = 2")
    states = [trial.state.name for trial in storage.read_study(tmp_path / "run").trials]
    assert sorted(states) == ["COMPLETE", "RUNNING"]

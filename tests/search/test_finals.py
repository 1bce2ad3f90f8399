"""The end of a search: it outlives its workers, looks at the test split once, and a search that is told to goes on."""

import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tlx import checkpoint, config, ownership
from tlx.commands import experiment as commands
from tlx.commands import search as search_command
from tlx.errors import ConfigError, TlxError, TrainingError
from tlx.evaluate.coco import SIZES, Coco
from tlx.evaluate.evaluator import Metric
from tlx.events import Listener
from tlx.search import study
from tlx.search.comparison import compared
from tlx.search.finals import Finals
from tlx.search.storage import identity
from tlx.work import attempts
from tlx.work.hand import Hand, Outcome

MINIMAL = Path(__file__).parents[1] / "minimal.gin"
SEARCH = """
memory.probe = False
search.trials = 3
search.sampler = 'random'
search.space = {'fit.learning_rate': ('log', 1e-4, 1e-2)}
"""
COUNTS = {"images": 1, "boxes": 1} | {f"boxes_{size}": 0 for size in SIZES}
LOST, CRASH = Outcome("lost", "signal 9"), Outcome("crash", "Traceback\nValueError: no")


class Worker(Listener):
    """Stands in for the worker process: what it is asked, what each trial scores, and how other tasks go wrong."""

    def __init__(self):
        self.asked, self.scores, self.judging, self.repeating, self.said = [], [], [], [], []
        self.training, self.tested, self.remove, self.meet = [], {}, None, None

    def do(self, task, bindings, listener, folder=None, micros=None, **_):
        self.asked.append(folder.name if task == "train" else task)
        if self.meet:
            self.meet.wait()
            time.sleep(0.5)
        repeats = self.repeating if folder.parent.name == "repeats" else self.training
        wrong = self.judging if task == "judge" else repeats
        if wrong:
            return wrong.pop(0)
        folder.mkdir(parents=True, exist_ok=True)
        score = self.scores.pop(0) if task == "train" and self.scores else self.tested.get(folder.name, 0.5)
        if task == "judge" and self.remove:
            shutil.rmtree(folder.parent / self.remove)
        values = {metric.name: None if metric.name.startswith("AP_") else score for metric in Coco.metrics}
        metrics = {"primary": Coco.primary, "values": values, "counts": COUNTS, "per_class": {}}
        split = "test" if task == "judge" else "validation"
        return Outcome("done", {"split": split, "metrics": metrics, "micro_batches": micros})

    def say(self, message):
        self.said.append(message)


@pytest.fixture
def worker(monkeypatch):
    made = Worker()
    monkeypatch.setattr(Hand, "do", lambda _, *arguments, **more: made.do(*arguments, **more))
    return made


@pytest.fixture
def run(tmp_path, monkeypatch, worker):
    """Return a function that runs the search in its folder, or goes on with it."""
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    gin = tmp_path / "finals.gin"
    gin.write_text(MINIMAL.read_text() + SEARCH)

    def run(*bindings):
        experiment = config.load([gin], bindings)
        return study.search(experiment, config.build(experiment.trees["search"]), tmp_path / "run", worker)

    run.gin = gin
    return run


@pytest.mark.parametrize("outcome", [LOST, CRASH])
def test_judging_is_tried_once_more(run, worker, outcome):
    worker.judging = [outcome]
    assert run()["best"]["test"]["values"]["AP"] == 0.5
    assert worker.asked[3:] == ["judge", "judge"]
    assert outcome.content.splitlines()[-1] in worker.said[-1]


def test_what_cannot_be_judged_twice_says_why_and_is_gone_on_with(run, worker):
    worker.judging = [LOST, CRASH]
    with pytest.raises(TrainingError, match=r"(?s)trial 0 could.*ValueError: no.*goes on from here"):
        run()
    assert worker.asked[3:] == ["judge", "judge"]
    assert run()["best"]["trial"] == 0
    assert worker.asked[3:] == ["judge"] * 3


def test_what_has_too_little_memory_to_be_judged_is_not_tried_once_more(run, monkeypatch):
    outcomes = iter([Outcome("memory", "it held too much")])
    monkeypatch.setattr(attempts.Attempts, "judge", lambda *_: next(outcomes))
    with pytest.raises(TrainingError, match=r"(?s)trial 0 could not be judged: it held too much.*goes on from here"):
        run()


def test_a_repeat_is_tried_once_more(run, worker):
    worker.repeating = [LOST]
    run("search.repeat = 2")
    assert worker.asked[3:] == ["0000-1", "0000-1", "0001-1", "0002-1", "judge"]


def test_a_repeat_that_fails_twice_says_why(run, worker):
    worker.repeating = [CRASH, LOST]
    with pytest.raises(TrainingError, match=r"(?s)0000-1 could not be trained: signal 9.*goes on from here"):
        run("search.repeat = 2")


def test_a_winner_is_judged_once(run, worker):
    worker.scores = [0.1, 0.3, 0.2, 0.3, 0.4]
    result = run()
    assert (result["best"]["trial"], result["metrics"]["values"]["AP"]) == (1, 0.5)
    assert run() == result
    # One more trial, which does not win; then one that does.
    # The experiment as written is judged beside the first winner.
    for trials, best, judged in ((4, 1, 2), (5, 4, 3)):
        more = run(f"search.trials = {trials}")
        assert (len(more["trials"]), more["best"]["trial"]) == (trials, best)
        assert worker.asked.count("judge") == judged


def test_the_experiment_as_written_is_judged_when_the_winner_is_chosen(run, worker):
    worker.scores, worker.tested = [0.1, 0.3, 0.2], {"0000": 0.25, "0001": 0.3125}
    written = run()["written"]
    assert worker.asked == ["0000", "0001", "0002", "judge", "judge"]
    assert (written["trial"], written["test"]["values"]["AP"]) == (0, 0.25)
    assert written["gain"] == pytest.approx({"validation": 0.2, "test": 0.0625})
    assert written["says"].startswith(
        "trial 1 beats the experiment as written on validation and test: test AP 0.312 against 0.250, validation AP"
        " 0.300 against 0.100; by one seed each"
    )


def test_what_seeds_alone_may_do_is_no_victory(run, worker):
    worker.scores, worker.tested = [0.25, 0.28125, 0.2], {"0000": 0.25, "0001": 0.5}
    assert run()["written"]["says"].startswith(
        "trial 1 is a little ahead of the experiment as written on validation and"
    )


def test_of_a_metric_that_is_no_share_it_is_not_said_what_seeds_do():
    def row(trial, error):
        return {"trial": trial, "validation": {"primary": "error", "values": {"error": error}}}

    metric, judged = Metric("error", "minimize", worst=100.0), {"split": "validation", "metrics": {}}
    found = compared(metric, row(3, 2.5), judged, row(0, 2.75), None, None)
    assert found["gain"] == {"validation": 0.25}
    assert found["says"] == (
        "trial 3 beats the experiment as written on validation: validation error 2.500 against 2.750; by one seed each"
    )


def test_a_winner_that_was_only_lucky_on_validation_is_said_to_be(run, worker):
    worker.scores, worker.tested = [0.1, 0.3, 0.2], {"0000": 0.25, "0001": 0.25}
    assert "on validation, but not on test: test AP 0.250 against 0.250" in run()["written"]["says"]


def test_the_experiment_as_written_may_win(run, worker):
    worker.scores = [0.4, 0.3, 0.2]
    written = run()["written"]
    assert written["says"] == "the experiment as written is the best: no trial beat it"
    assert worker.asked.count("judge") == 1


def test_several_seeds_speak_for_validation_and_one_for_test(run, worker):
    # The trials, then trial 1 again, trial 2, and the experiment as written.
    worker.scores, worker.tested = [0.125, 0.25, 0.1875, 0.5, 0.125, 0.125], {"0000": 0.25, "0001": 0.5}
    says = run("search.repeat = 2")["written"]["says"]
    assert "test AP 0.500 against 0.250, validation AP 0.375 ± 0.177 against 0.125 ± 0.000, means of 2 seeds" in says
    assert says.endswith("by one seed each on test, so a difference under about 0.05 says little")


def test_without_the_folder_of_the_experiment_as_written_the_search_has_its_winner(run, worker, tmp_path):
    worker.scores, worker.remove = [0.1, 0.3, 0.2], "0000"
    written = run()["written"]
    assert (written["test"], written["gain"].keys()) == (None, {"validation"})
    assert any("not compared on the test split" in line for line in worker.said)


def test_what_was_never_trained_to_its_end_is_said(run, worker):
    worker.training = [Outcome("infeasible", "the loss became nan")]
    assert run()["written"] == {"trial": None, "says": "the experiment as written was not trained to its end"}


def test_seconds_are_those_of_the_clock(run, worker):
    result = run("search.workers = 4")
    assert result["trial_seconds"] == pytest.approx(sum(row["seconds"] for row in result["trials"]))
    worker.meet = threading.Barrier(4, timeout=60)
    more = run("search.workers = 4", "search.trials = 7")
    # Four that run at once take what one of them takes.
    assert 0 < more["seconds"] - result["seconds"] < more["trial_seconds"] - result["trial_seconds"]


def test_a_driver_that_dies_after_judging_does_not_judge_again(run, worker, tmp_path, monkeypatch):
    def dying(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Finals, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            run("search.repeat = 2")
    before = list(worker.asked)
    assert before[-1] == "judge"
    assert run("search.repeat = 2")["split"] == "test"
    assert worker.asked == before
    assert (tmp_path / "run" / "result.json").exists()


def test_a_search_whose_time_was_up_goes_on_when_it_is_given_more(run):
    for minutes, trials in ((1e-9, 1), (1e-9, 1), (60.0, 3)):
        assert len(run(f"search.minutes = {minutes}")["trials"]) == trials
    run("search.minutes = 1e-9", "search.workers = 2")
    assert len(run("search.trials = 5", "search.workers = 2")["trials"]) == 5


def command(monkeypatch, folder, *bindings, shared=None):
    flags = {"gin_file": [], "gin_bindings": bindings, "allow_imports": False, "run_dir": str(folder)}
    flags = SimpleNamespace(**flags, overwrite=False, storage=shared, study_name=None)
    for module in (commands, search_command):
        monkeypatch.setattr(module, "FLAGS", flags)
    monkeypatch.setattr("tlx.commands.shared.FLAGS", flags)


def test_a_winner_whose_folder_was_removed_is_told_of_all_the_same(run, worker, tmp_path, monkeypatch, capsys):
    before = run()
    shutil.rmtree(tmp_path / "run" / before["best"]["folder"])
    (tmp_path / "run" / "result.json").unlink()
    command(monkeypatch, tmp_path / "run")
    search_command.search([str(run.gin)])
    told = capsys.readouterr().out
    assert "test AP 0.500" in told
    assert "trials/0000 was removed" in told
    assert worker.asked.count("judge") == 1


def test_a_winner_whose_folder_was_removed_cannot_be_judged(run, worker, tmp_path):
    worker.judging = [LOST, LOST]
    with pytest.raises(TrainingError):
        run()
    shutil.rmtree(tmp_path / "run" / "trials" / "0000")
    with pytest.raises(TrainingError, match=r"trials/0000 is gone; train it anew: .*learning_rate"):
        run()


@pytest.mark.parametrize("kind", ["search", "run"])
def test_what_a_folder_may_take_can_change_and_what_it_holds_cannot(run, tmp_path, monkeypatch, kind):
    folder = tmp_path / "run"
    ownership.take(folder, kind)
    checkpoint.write(folder / "config.gin", config.load([run.gin]).text().encode())
    command(monkeypatch, folder)
    for binding in (
        *("search.trials = 9", "search.minutes = 5.0", "search.workers = 2"),
        *("memory.budget_gb = 2.0", "memory.margin = 1.5", "memory.probe = True"),
    ):
        assert commands.run_dir(config.load([run.gin], [binding]), kind) == folder
    for binding in ("search.seed = 1", "fit.epochs = 7", "run.seed = 1"):
        with pytest.raises(ConfigError, match="holds another experiment"):
            commands.run_dir(config.load([run.gin], [binding]), kind)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["search", "run"])
def test_a_folder_of_before_tlx_kept_lists_is_neither_gone_on_with_nor_removed(
    run, tmp_path, monkeypatch, kind, overwrite
):
    folder = tmp_path / "run"
    (folder / "trials").mkdir(parents=True)
    (folder / "config.gin").write_text(config.load([run.gin]).text())
    command(monkeypatch, folder)
    monkeypatch.setattr(commands.FLAGS, "overwrite", overwrite)
    with pytest.raises(TlxError, match=r"made before it kept a list of that \(config\.gin, trials\)"):
        commands.run_dir(config.load([run.gin]), kind)
    assert sorted(path.name for path in folder.iterdir()) == ["config.gin", "trials"]


def test_what_hosts_may_change_makes_no_new_study(run):
    for binding in ("search.minutes = 5.0", "search.workers = 2", "memory.budget_gb = 2.0"):
        assert identity(config.load([run.gin], [binding])) == identity(config.load([run.gin]))

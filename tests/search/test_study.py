"""A search goes on whatever dies: a trial, its worker, or the driver itself."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from tlx import checkpoint, config
from tlx.errors import TlxError, TrainingError
from tlx.events import Listener
from tlx.lock import only_process
from tlx.search import storage, study
from tlx.work import attempts
from tlx.work.hand import Hand, Outcome

EXPERIMENT = f"""\
include '{Path(__file__).parents[1] / "small.gin"}'
readers.scenes.path = '{{folder}}/scenes'
readers.scenes.images = 10
features.folder = '{{folder}}/features'
fit.batch_size = 4
fit.epochs = 4
fit.evaluations = 2
search.trials = 3
search.pruner = 'none'
search.space = {{{{
    'fit.learning_rate': ('log', 1e-4, 1e-2),
    'fit.batch_size': ('power_of_two', 2, 8),
}}}}
"""


@pytest.fixture
def gin(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    file = tmp_path / "tiny.gin"
    file.write_text(EXPERIMENT.format(folder=tmp_path))
    return file


class Watcher(Listener):
    """A display that remembers what it is shown, and may act on it."""

    def __init__(self, act=lambda what, watcher: None):
        self.lines, self.rows, self.act, self.acted = [], [], act, False

    def say(self, message):
        self.lines.append(message)

    def progress(self, what, done, total, note=""):
        self.act(what, self)

    def trials(self, rows, wanted):
        self.rows = rows


def finished(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Read a study as any user of Optuna would."""
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
    trials = optuna.load_study(study_name="tlx", storage=optuna.storages.JournalStorage(backend)).trials
    return [t for t in trials if t.state.is_finished() and t.state != optuna.trial.TrialState.FAIL]


def run(gin: Path, folder: Path, watcher: Watcher) -> dict:
    experiment = config.load([gin])
    return study.search(experiment, config.build(experiment.trees["search"]), folder, watcher)


def test_a_killed_worker_costs_one_attempt_and_the_search_finishes(gin, tmp_path):
    def kill_once(what, watcher):
        if what == "training" and not watcher.acted:
            watcher.acted = True
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)

    watcher = Watcher(kill_once)
    result = run(gin, tmp_path / "run", watcher)
    states = Counter(row["state"] for row in result["trials"])
    assert states == {"complete": 3, "fail": 1}
    lost, *_, retried = result["trials"][0], *(r for r in result["trials"] if r["retry_of"] is not None)
    assert "signal 9" in lost["cause"]
    assert retried["bindings"] == lost["bindings"]
    assert retried["folder"] == lost["folder"]
    assert len(finished(tmp_path / "run")) == 3
    assert not multiprocessing.active_children()

    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["best"]["test"]["per_class"].keys() == {"bottle", "mug", "plant"}
    best = max((row for row in saved["trials"] if row["state"] == "complete"), key=lambda r: r["score"])
    assert best["score"] == best["validation"]["values"]["AP"] == saved["best"]["validation"]["values"]["AP"]
    assert "fit.learning_rate = 0.002" in saved["trials"][0]["bindings"]
    judged = tmp_path / "run" / saved["best"]["folder"]
    assert json.loads((judged / "result.json").read_text())["split"] == "validation"


def test_a_worker_that_dies_before_it_has_an_answer_is_answered_again(gin, tmp_path, monkeypatch):
    evaluated, asked = study.Study.evaluated, []

    def answered_in_vain(self, trial, look):
        answer = evaluated(self, trial, look)
        asked.append((trial.number, look.update))
        if len(asked) == 1:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
        # Where the worker is begun again within a trial, that trial is told what it knows.
        return evaluated(self, trial, look) and answer

    monkeypatch.setattr(study.Study, "evaluated", answered_in_vain)
    gin.write_text(gin.read_text().replace("search.trials = 3", "search.trials = 1"))
    result = run(gin, tmp_path / "run", Watcher())
    assert [row["state"] for row in result["trials"]] == ["fail", "complete"]
    (first, update), (second, again), *_ = asked
    assert (first, second, again) == (0, 1, update)
    lines = (tmp_path / "run" / result["trials"][1]["folder"] / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["continue", "continue"]


def test_a_killed_driver_leaves_a_study_that_goes_on(gin, tmp_path):
    folder = tmp_path / "run"
    gin.write_text(gin.read_text() + "memory.probe = False\n")
    command = [sys.executable, "-m", "tlx", "search", str(gin), f"--run_dir={folder}"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path)
    while not (folder / "trials" / "0001" / "run.log").exists():
        assert driver.poll() is None, "the driver ended before it could be killed"
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    before = {t.number: t.datetime_complete for t in finished(folder)}
    assert len(before) == 1
    with (folder / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 5, "worker_id": "torn')

    result = run(gin, folder, Watcher())
    after = {t.number: t.datetime_complete for t in finished(folder)}
    assert len(after) == 3
    assert before.items() <= after.items()
    bindings = Counter(tuple(r["bindings"]) for r in result["trials"] if r["state"] == "complete")
    assert set(bindings.values()) == {1}

    again = run(gin, folder, Watcher())
    assert [row["trial"] for row in again["trials"]] == [row["trial"] for row in result["trials"]]


def scores(**values):
    return {"primary": "AP", "values": values}


def scripted(monkeypatch, *answers):
    """Let the worker give these answers to its trials, then finish all others, and judge the winner."""
    metrics = scores(AP=0.5, AP50=0.75)
    script = iter(answers)
    asked = []

    def do(self, task, bindings, listener, folder=None, micros=None, **_):
        if task == "probe":
            return Outcome("done", {"fixed": 0.0, "each": 0.0})
        for name in ("data.json", "environment.json"):
            checkpoint.write(folder / name, b"{}")
        asked.append((task, bindings, folder))
        if task == "judge":
            return Outcome("done", {"split": "test", "metrics": metrics})
        return Outcome(*next(script, ("done", {"metrics": metrics, "micro_batches": micros})))

    monkeypatch.setattr(Hand, "do", do)
    return asked


def test_bindings_that_cannot_be_trained_with_are_one_finished_trial(gin, tmp_path, monkeypatch):
    scripted(monkeypatch, ("infeasible", "the loss became nan"))
    result = run(gin, tmp_path / "run", Watcher())
    assert [row["state"] for row in result["trials"]] == ["pruned", "complete", "complete"]
    assert result["trials"][0]["cause"] == "the loss became nan"
    assert result["best"]["trial"] == 1
    # Only by these does the sampler know which of them leads nowhere.
    constraints = [trial.constraints for trial in finished(tmp_path / "run")]
    assert constraints == [{"infeasible": 1.0}, {"infeasible": -1.0}, {"infeasible": -1.0}]


def test_a_pruned_trial_was_feasible(gin, tmp_path, monkeypatch):
    scripted(monkeypatch, ("done", {"metrics": scores(AP=0.5), "micro_batches": [4]}), ("pruned", None))
    result = run(gin, tmp_path / "run", Watcher())
    assert [row["state"] for row in result["trials"]] == ["complete", "pruned", "complete"]
    assert {trial.constraints["infeasible"] for trial in finished(tmp_path / "run")} == {-1.0}


def test_a_trial_that_already_waits_to_be_tried_again_is_not_queued_once_more(gin, tmp_path, monkeypatch):
    """A driver that died between queueing a retry and closing the trial, or another host, has queued it already."""
    scripted(monkeypatch, ("lost", "signal 9"))
    real = optuna.Study.tell

    def dying(self, trial, *args, **more):
        if more.get("state") == optuna.trial.TrialState.FAIL:
            raise KeyboardInterrupt
        return real(self, trial, *args, **more)

    monkeypatch.setattr(optuna.Study, "tell", dying)
    with pytest.raises(KeyboardInterrupt):
        run(gin, tmp_path / "run", Watcher())
    monkeypatch.setattr(optuna.Study, "tell", real)
    rows = run(gin, tmp_path / "run", Watcher())["trials"]
    assert [row["retry_of"] for row in rows if row["retry_of"] is not None] == [0]
    assert Counter(row["state"] for row in rows) == {"fail": 1, "complete": 3}


CHOICE = """
search.space = {
    'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.mobilenet_v3_small()),
    'backbones.mobilenet_v2.alpha': ('choice', 0.35, 0.5),
    'backbones.mobilenet_v3_small.alpha': ('choice', 0.75, 1.0),
}
backbones.mobilenet_v3_small.weights = None
search.trials = 8
search.sampler = 'grid'
"""


def test_a_search_among_backbones_asks_each_what_is_its_own(gin, tmp_path, monkeypatch):
    asked = scripted(monkeypatch)
    gin.write_text(gin.read_text().partition("search.trials")[0] + CHOICE)
    result = run(gin, tmp_path / "run", Watcher())
    tried = {tuple(row["bindings"]) for row in result["trials"]}
    assert len(result["trials"]) == 4
    assert tried == {
        (f"run.backbone = @backbones.{name}()", f"backbones.{name}.alpha = {alpha}")
        for name, alphas in (("mobilenet_v2", (0.35, 0.5)), ("mobilenet_v3_small", (0.75, 1.0)))
        for alpha in alphas
    }
    # What a trial was asked to do is what a person can ask for, by hand.
    for _, bindings, _ in asked:
        config.load([tmp_path / "run" / "config.gin"], bindings)


def test_what_does_not_fit_together_is_infeasible_and_the_search_goes_on(gin, tmp_path):
    """Trained in earnest: too many layers for one choice of strides, and a rule for a layer that is not there."""
    text = gin.read_text().partition("search.trials")[0].replace("fit.epochs = 4", "fit.epochs = 1")
    space = (
        "search.space = {'run.freeze': ('choice', @freezes.last_layers(), @freezes.patterns()),"
        " 'freezes.last_layers.unfrozen': ('choice', 0, 51),"
        " 'heads.fcos.strides': ('choice', (8, 16, 32), (8, 16))}\nsearch.sampler = 'grid'\n"
        "freezes.patterns.rules = (('block_99', 'train'), ('', 'freeze'))\nheads.fcos.strides = (8, 16)\n"
    )
    gin.write_text(text + space + "search.trials = 6\nmemory.probe = False\n")
    rows = run(gin, tmp_path / "run", Watcher())["trials"]
    causes = {tuple(binding.partition(" = ")[2] for binding in row["bindings"]): row["cause"] for row in rows}
    assert len(causes) == 6
    for strides in ("(8, 16, 32)", "(8, 16)"):
        assert causes["@freezes.last_layers()", "0", strides] is None
        assert "'block_99' decides for no layer" in causes["@freezes.patterns()", strides]
    assert causes["@freezes.last_layers()", "51", "(8, 16, 32)"] is None
    assert "run.head uses 39 weight layers" in causes["@freezes.last_layers()", "51", "(8, 16)"]


@pytest.mark.parametrize(("metric", "winner"), [(None, 2), ("AP50", 1)])
def test_what_is_maximized_can_be_named(gin, tmp_path, monkeypatch, metric, winner):
    pairs = [(0.1, 0.2), (0.2, 0.9), (0.3, 0.4)]
    done = [("done", {"metrics": scores(AP=ap, AP50=ap50), "micro_batches": [4]}) for ap, ap50 in pairs]
    scripted(monkeypatch, *done)
    gin.write_text(gin.read_text() + f"search.metric = {metric!r}\n")
    result = run(gin, tmp_path / "run", Watcher())
    assert result["best"]["trial"] == winner
    assert [trial.value for trial in finished(tmp_path / "run")] == [pair[metric == "AP50"] for pair in pairs]


def test_a_trial_that_crashes_twice_is_given_up(gin, tmp_path, monkeypatch):
    asked = scripted(monkeypatch, *[("crash", "Traceback\nValueError: no")] * 2)
    result = run(gin, tmp_path / "run", Watcher())
    assert [row["state"] for row in result["trials"]] == ["fail", "fail", "complete", "complete", "complete"]
    assert asked[0] == asked[1]
    assert asked[2][1] != asked[1][1]


def test_a_search_in_which_everything_crashes_ends(gin, tmp_path, monkeypatch):
    scripted(monkeypatch, *[("crash", "ValueError: no")] * 100)
    with pytest.raises(TrainingError, match="ValueError: no"):
        run(gin, tmp_path / "run", Watcher())


def test_a_search_in_which_nothing_can_be_trained_says_why(gin, tmp_path, monkeypatch):
    scripted(monkeypatch, *[("infeasible", "the loss became nan")] * 100)
    with pytest.raises(TrainingError, match="the loss became nan"):
        run(gin, tmp_path / "run", Watcher())


@pytest.mark.parametrize("stop", ["ask", "enqueue_trial", "tell"])
def test_a_driver_that_dies_between_two_words_to_the_study_loses_nothing(gin, tmp_path, monkeypatch, stop):
    """Every call of this kind, one after another, is the driver's last, before it acts and after."""
    scripted(monkeypatch)
    real = getattr(optuna.Study, stop)
    for fatal in range(1, 7):
        calls = [0]

        def dying(self, *args, _fatal=fatal, _calls=calls, **more):
            _calls[0] += 1
            if 2 * _calls[0] - 1 == _fatal:
                raise KeyboardInterrupt
            done = real(self, *args, **more)
            if 2 * _calls[0] == _fatal:
                raise KeyboardInterrupt
            return done

        folder = tmp_path / str(fatal)
        monkeypatch.setattr(optuna.Study, stop, dying)
        with contextlib.suppress(KeyboardInterrupt):
            run(gin, folder, Watcher())
        monkeypatch.setattr(optuna.Study, stop, real)
        result = run(gin, folder, Watcher())
        complete = [row for row in result["trials"] if row["state"] == "complete"]
        assert len(complete) == 3
        assert "fit.learning_rate = 0.002" in complete[0]["bindings"]
        assert len({tuple(row["bindings"]) for row in complete}) == 3


def test_what_the_user_must_mend_stops_the_search_at_once(gin, tmp_path):
    gin.write_text(gin.read_text().replace("readers.scenes.images = 10", "readers.scenes.images = -1"))
    with pytest.raises(TrainingError, match="trial 0: "):
        run(gin, tmp_path / "run", Watcher())


def test_a_trial_that_was_refused_is_taken_up_once_the_fault_is_mended(gin, tmp_path, monkeypatch):
    scripted(monkeypatch, ("refused", "[Errno 28] No space left on device"))
    with pytest.raises(TrainingError, match=r"trial 0: .*No space left"):
        run(gin, tmp_path / "run", Watcher())
    rows = run(gin, tmp_path / "run", Watcher())["trials"]
    complete = [row for row in rows if row["state"] == "complete"]
    assert len(complete) == 3
    assert complete[0]["retry_of"] == 0
    assert "fit.learning_rate = 0.002" in complete[0]["bindings"]


def test_a_second_driver_is_refused_with_the_first_ones_process(gin, tmp_path):
    (tmp_path / "run").mkdir()
    with only_process(tmp_path / "run"), pytest.raises(TlxError, match=f"process {os.getpid()}"):
        run(gin, tmp_path / "run", Watcher())


def test_what_has_the_name_of_optunas_lock_holds_nobody_up_and_stays(gin, tmp_path, monkeypatch):
    """A journal of one driver needs no such lock; one that was left behind made the next driver spin for ever."""
    scripted(monkeypatch)
    monkeypatch.chdir(tmp_path)
    run(gin, Path("run"), Watcher())
    (tmp_path / "run" / "result.json").unlink()
    os.symlink("run/study.journal", "run/study.journal.lock")
    os.symlink("run/study.journal", "run/study.journal.lock.rename")
    assert len(run(gin, Path("run"), Watcher())["trials"]) == 3
    assert os.readlink("run/study.journal.lock") == os.readlink("run/study.journal.lock.rename") == "run/study.journal"


def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path):
    journal = tmp_path / "study.journal"
    journal.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    storage.mend(journal)
    assert journal.read_bytes() == b'{"a": 1}\n{"b": 2}\n'
    storage.mend(journal)
    assert journal.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


@pytest.mark.parametrize("tail", [b'{"c"', b'{"c"{"d": 4}\n', b"\0" * 30, b"\0" * 30 + b"\n", b'{"c"\n\n'])
def test_a_last_line_that_is_no_record_is_cut_off(tmp_path, tail):
    journal = tmp_path / "study.journal"
    journal.write_bytes(b'{"a": 1}\n{"b": 2}\n' + tail)
    storage.mend(journal)
    assert journal.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


def test_a_record_that_a_full_disk_cut_short_leaves_no_trace(tmp_path):
    code = """
import resource, signal, sys
from pathlib import Path
from tlx.search import storage
optuna = storage.quiet_optuna()
study = optuna.create_study(storage=storage.journal(Path(sys.argv[1])), study_name="tlx")
size = (Path(sys.argv[1]) / storage.JOURNAL).stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
try:
    study.set_user_attr("long", "x" * 100)
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
study.set_user_attr("after", 1)
"""
    ended = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "File too large"
    assert storage.read_study(tmp_path).user_attrs == {"after": 1}

"""A run fits in memory: by what was measured, and where that was wrong, by what it died of."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tlx import config, registry
from tlx.errors import TlxError, TrainingError
from tlx.events import Listener
from tlx.freeze import Freeze
from tlx.memory import Memory
from tlx.models.backbone import Backbone, tap_table
from tlx.work import attempts
from tlx.work.attempts import Attempts, describe
from tlx.work.hand import Hand, Outcome
from tlx.work.ledger import Ledger, Need, kind


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    return config.load([Path(__file__).parents[1] / "minimal.gin"], ["fit.batch_size = 64"])


@pytest.fixture
def machine(monkeypatch):
    """Stand in for the worker: a machine where so many examples fit, and a probe that says what it is told to."""
    seen = SimpleNamespace(fits=1000, need={"fixed": 1e8, "each": 1e7}, probes=[], tried=[])
    seen.answer, seen.held = None, 0

    def do(self, task, bindings, listener, micro=0, **_):
        if task == "probe":
            seen.probes.append(bindings)
            return Outcome("done", seen.need) if seen.need else Outcome("memory", "signal 9")
        seen.tried.append(micro)
        if micro > seen.fits:
            return Outcome("memory", "signal 9", seen.held)
        return seen.answer or Outcome("done", {"metrics": {}, "micro_batch": micro})

    monkeypatch.setattr(Hand, "do", do)
    return seen


def train(experiment, tmp_path, bindings=(), **settings):
    said, listener = [], Listener()
    listener.say = said.append
    made = Attempts(experiment, Memory(**settings), tmp_path / "a.gin", tmp_path / "log")
    return made.train(list(bindings), tmp_path / "run", [], listener), said


def test_what_is_predicted_to_fit_is_tried_and_measured_once(experiment, tmp_path, machine):
    outcome, said = train(experiment, tmp_path, budget_gb=0.5)
    # (0.5 / 1.2 - 0.1) / 0.01
    assert (outcome.kind, machine.tried, len(machine.probes)) == ("done", [31], 1)
    assert "31 of 64 examples at once: predicted peak 0.41 GB of 0.50 GB (memory.budget_gb = 0.5)" in said
    train(experiment, tmp_path, budget_gb=0.5)
    assert (machine.tried, len(machine.probes)) == ([31, 31], 1)


def test_a_batch_that_fits_is_taken_whole(experiment, tmp_path, machine):
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried == [64]


def test_a_wrong_prediction_is_survived_and_learnt_from(experiment, tmp_path, machine):
    machine.fits = 10
    outcome, said = train(experiment, tmp_path, budget_gb=5.0)
    assert (outcome.kind, machine.tried) == ("done", [64, 32, 16, 8])
    assert sum("were too many" in line for line in said) == 3
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried[4:] == [8]
    # Where there is more room than there was, more is tried.
    machine.fits = 100
    train(experiment, tmp_path, budget_gb=10.0)
    assert machine.tried[5:] == [64]


def test_what_a_process_held_when_it_died_is_what_it_may_hold(experiment, tmp_path, machine):
    machine.fits, machine.held = 10, int(0.24e9)
    train(experiment, tmp_path, budget_gb=5.0)
    # (0.24 / 1.2 - 0.1) / 0.01
    assert machine.tried == [64, 10]


def test_what_the_training_loop_halved_by_itself_is_learnt(experiment, tmp_path, machine):
    machine.answer = Outcome("done", {"metrics": {}, "micro_batch": 16})
    assert train(experiment, tmp_path, budget_gb=5.0)[0].kind == "done"
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried == [64, 16]


def test_an_example_that_did_not_fit_by_itself_is_the_end(experiment, tmp_path, machine):
    machine.answer = Outcome("infeasible", "one example alone does not fit (OOM when allocating tensor)")
    outcome, _ = train(experiment, tmp_path, budget_gb=5.0)
    assert (outcome.kind, machine.tried) == ("infeasible", [64])
    assert "measured with other bindings" in outcome.content


def test_what_could_not_be_measured_is_measured_once_there_is_room(experiment, tmp_path, machine):
    need, machine.need = machine.need, None
    train(experiment, tmp_path, budget_gb=0.5)
    asked = len(machine.probes)
    machine.need = need
    assert train(experiment, tmp_path, budget_gb=0.5)[0].kind == "infeasible"
    assert (machine.tried, machine.probes[asked:]) == ([], [])
    train(experiment, tmp_path, budget_gb=5.0)
    assert (machine.tried, machine.probes[asked:]) == ([64], [[]])


def test_without_a_probe_dying_teaches(experiment, tmp_path, machine):
    machine.fits = 20
    train(experiment, tmp_path, budget_gb=5.0, probe=False)
    assert (machine.tried, len(machine.probes)) == ([64, 32, 16], 0)
    assert Ledger(attempts.LEDGER).get(kind(describe(experiment))).tried == 16


@pytest.mark.parametrize("known", [True, False])
def test_where_nothing_fits_the_error_says_what_would(experiment, tmp_path, machine, known):
    machine.need = {"fixed": 1e9, "each": 1e8} if known else None
    bindings = ["freezes.last_layers.unfrozen = 3"]
    outcome, said = train(experiment, tmp_path, bindings, budget_gb=0.5)
    assert outcome.kind == "infeasible"
    assert machine.tried == []
    assert "not even one example fits in 0.50 GB (memory.budget_gb = 0.5) with memory.margin = 1.2" in outcome.content
    assert ("it takes 1.10 GB" in outcome.content) == known
    for change in (
        "run.image_size = (224, 224)",
        "freezes.last_layers.unfrozen = 0",
        "run.backbone = @backbones.mobilenet_v3_small()",
    ):
        assert f"{change}: {'1.10 GB, which ' if known else ''}does not fit either" in outcome.content
        assert f"not even one example fits; would it with {change}?" in said
        assert any(change in asked for asked in machine.probes)


@pytest.mark.parametrize(
    ("bindings", "changed"),
    [
        ([], ["run.image_size", "run.backbone"]),
        (["run.image_size = (96, 40)"], ["run.backbone"]),
        (["freezes.last_layers.unfrozen = 2"], ["run.image_size", "run.backbone", "freezes.last_layers.unfrozen"]),
        (["run.freeze = @freezes.none()"], ["run.image_size", "run.backbone", "run.freeze"]),
        (["run.freeze = @freezes.backbone()"], ["run.image_size", "run.backbone"]),
        (["run.backbone = @backbones.mobilenet_v3_small()"], ["run.image_size"]),
        (
            ["run.freeze = @freezes.last_blocks()", "freezes.last_blocks.unfrozen = 2"],
            ["run.image_size", "run.backbone", "freezes.last_blocks.unfrozen"],
        ),
        (
            ["run.freeze = @freezes.patterns()", "freezes.patterns.rules = (('', 'train'),)"],
            ["run.image_size", "run.backbone", "run.freeze"],
        ),
    ],
)
def test_only_what_takes_less_is_proposed_and_can_be_bound(experiment, bindings, changed):
    proposed = [(change, more) for change, more in attempts.changes(experiment.with_bindings(bindings))]
    assert [change.partition(" = ")[0] for (change,), _ in proposed] == changed
    for change, more in proposed:
        experiment.with_bindings([*bindings, *change, *more])


def test_a_plugins_policy_and_backbone_say_what_takes_less(experiment, tmp_path, machine, monkeypatch):
    for real in (registry.freezes, registry.backbones):
        monkeypatch.setattr(real, "entries", dict(real.entries))

    def fewer(share):
        if share > 0.5:
            yield [f"freezes.own.share = {share / 2}", "fit.ema = None"], []
        yield ["run.freeze = @freezes.own_less()"], ["freezes.own_less.share = 0.0"]

    @registry.freezes.register("own", smaller=fewer)
    def own(share: float = 0.75) -> Freeze:
        """A share of the layers."""
        return Freeze.always(f"own({share})", lambda layers: [True for _ in layers])

    @registry.freezes.register("own_less")
    def own_less(share: float) -> Freeze:
        """Less."""
        return Freeze.always(f"own_less({share})", lambda layers: [False for _ in layers])

    @registry.backbones.register("own", smaller=lambda: [(["run.backbone = @backbones.misspelt()"], [])])
    def tiny() -> Backbone:
        """A network."""

        def build(*_):
            raise AssertionError("advice needs no network")

        return Backbone("own", build, *tap_table({8: "a", 16: "b", 32: "c"}), r"^(none)")

    bindings = ["run.freeze = @freezes.own()", "run.backbone = @backbones.own()"]
    machine.need = {"fixed": 1e9, "each": 1e8}
    outcome, _ = train(experiment, tmp_path, bindings, budget_gb=0.5)
    assert "freezes.own.share = 0.375, fit.ema = None: 1.10 GB, which does not fit either" in outcome.content
    assert "run.freeze = @freezes.own_less(): 1.10 GB, which does not fit either" in outcome.content
    assert "run.backbone = @backbones.misspelt(): does not go with the rest: " in outcome.content
    assert [*bindings, "run.freeze = @freezes.own_less()", "freezes.own_less.share = 0.0"] in machine.probes


def test_values_that_do_not_go_together_are_infeasible(experiment, tmp_path, machine):
    outcome, _ = train(experiment, tmp_path, ["freezes.last_layers.unfrozen = -1"])
    assert outcome.kind == "infeasible"
    assert "unfrozen = -1 makes no sense" in outcome.content
    assert machine.tried == []


@pytest.mark.parametrize("kind_of_end", ["pruned", "refused", "crash", "lost", "infeasible"])
def test_other_ends_are_told_as_they_are(experiment, tmp_path, machine, kind_of_end):
    machine.answer = Outcome(kind_of_end, "why")
    outcome, _ = train(experiment, tmp_path, budget_gb=5.0)
    assert outcome == Outcome(kind_of_end, "why")
    assert machine.tried == [64]


def test_a_kind_of_run_is_what_its_memory_depends_on(experiment):
    same = ["fit.learning_rate = 0.5", "fit.batch_size = 8", "run.seed = 7", "memory.budget_gb = 1.0"]
    assert describe(experiment.with_bindings(same)) == describe(experiment)
    different = ("run.image_size = 64", "freezes.last_layers.unfrozen = 3", "fit.ema = 0.9", "features.cache = False")
    for other in (*different, "fit.optimizer = @optimizers.sgd()"):
        assert describe(experiment.with_bindings([other])) != describe(experiment)


@pytest.mark.parametrize(("end", "error"), [("refused", TlxError), ("crash", TrainingError), ("lost", TrainingError)])
def test_training_alone_says_why_it_ended(experiment, tmp_path, machine, end, error):
    machine.answer = Outcome(end, "Traceback\nValueError: why")
    with pytest.raises(error, match="why"):
        attempts.train(experiment, tmp_path / "run", Listener())
    assert (tmp_path / "run/config.gin").exists()


@pytest.mark.parametrize(
    ("fits", "asked", "end"), [(100, [16], "done"), (3, [16, 8, 4, 2], "done"), (0, None, "memory")]
)
def test_judging_takes_as_many_pictures_at_once_as_fit(experiment, tmp_path, monkeypatch, fits, asked, end):
    tried = []

    def do(self, task, bindings, listener, folder, at_once):
        tried.append(at_once)
        return Outcome("memory" if at_once > fits else "done", {})

    monkeypatch.setattr(Hand, "do", do)
    made = Attempts(experiment, Memory(budget_gb=5.0), tmp_path / "a.gin", tmp_path / "log")
    assert made.judge([], tmp_path / "run", Listener()).kind == end
    assert tried == (asked or [16, 8, 4, 2, 1])


def test_a_stopped_worker_is_not_started_again(experiment, tmp_path, machine):
    made = Attempts(experiment, Memory(budget_gb=5.0), tmp_path / "a.gin", tmp_path / "log")
    made.stop()
    assert made.train([], tmp_path / "run", [], Listener()).kind == "lost"
    assert machine.tried == []


def test_workers_share_the_memory(experiment, tmp_path):
    made = Attempts(experiment, Memory(budget_gb=6.0), tmp_path / "a.gin", tmp_path / "log", sharing=3)
    assert made.limit.bytes == 2_000_000_000
    assert Need(1e9, 1e8).largest(64, made.limit.bytes, 1.0) == 10

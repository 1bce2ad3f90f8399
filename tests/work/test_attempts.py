"""A run fits in memory: by what was measured, and where that was wrong, by what it died of."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tlx import config, registry
from tlx.errors import TlxError, TrainingError
from tlx.events import Listener
from tlx.freeze import Freeze
from tlx.memory import Limit, Memory
from tlx.models.backbone import Backbone, tap_table
from tlx.work import attempts
from tlx.work.attempts import Attempts
from tlx.work.hand import Hand, Outcome
from tlx.work.kinds import changes, describe
from tlx.work.ledger import Ledger, Need, kind


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    return config.load([Path(__file__).parents[1] / "minimal.gin"], ["fit.batch_size = 64"])


@pytest.fixture
def machine(monkeypatch):
    """Stand in for the worker: a machine where so many examples fit, and a probe that says what it is told to.

    Both are by phase. `tried` holds the micro-batches of each training that was begun.
    """
    seen = SimpleNamespace(fits=[1000, 1000], needs=[{"fixed": 1e8, "each": 1e7}], probes=[], tried=[], ready=[])
    seen.answer, seen.held, seen.stillborn = None, 0, 0

    def do(self, task, bindings, listener, ready=None, *, micros, phase=None, **_):
        if task == "probe":
            seen.probes.append(bindings)
            seen.ready.append(ready is not None)
            return Outcome("done", seen.needs[phase]) if seen.needs[phase] else Outcome("memory", "signal 9")
        seen.tried.append(micros if len(micros) > 1 else micros[0])
        if len(seen.tried) <= seen.stillborn:
            return Outcome("memory", "signal 9", seen.held)
        for number, micro in enumerate(micros):
            if micro > seen.fits[number]:
                return Outcome("memory", "signal 9", seen.held, number)
        return seen.answer or Outcome("done", {"metrics": {}, "micro_batches": micros})

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


@pytest.mark.parametrize(("free", "ready"), [(6.0, True), (4.0, False)])
def test_the_worker_gets_ready_while_another_measures_where_both_have_room(
    experiment, tmp_path, machine, monkeypatch, free, ready
):
    monkeypatch.setattr(Memory, "_machine", lambda self: Limit(int(free * 0.9e9), "the test"))
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.ready == [ready]


def test_a_batch_that_fits_is_taken_whole(experiment, tmp_path, machine):
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried == [64]


def test_a_wrong_prediction_is_survived_and_learnt_from(experiment, tmp_path, machine):
    machine.fits = [10]
    outcome, said = train(experiment, tmp_path, budget_gb=5.0)
    assert (outcome.kind, machine.tried) == ("done", [64, 32, 16, 8])
    assert sum("were too many" in line for line in said) == 3
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried[4:] == [8]
    # Where there is more room than there was, more is tried.
    machine.fits = [100]
    train(experiment, tmp_path, budget_gb=10.0)
    assert machine.tried[5:] == [64]


def test_what_a_process_held_when_it_died_is_what_it_may_hold(experiment, tmp_path, machine):
    machine.fits, machine.held = [10], int(0.24e9)
    train(experiment, tmp_path, budget_gb=5.0)
    # (0.24 / 1.2 - 0.1) / 0.01
    assert machine.tried == [64, 10]


def test_what_the_training_loop_halved_by_itself_is_learnt(experiment, tmp_path, machine):
    machine.answer = Outcome("done", {"metrics": {}, "micro_batches": [16], "halved": [0]})
    assert train(experiment, tmp_path, budget_gb=5.0)[0].kind == "done"
    train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried == [64, 16]


def test_a_batch_that_was_small_for_want_of_pictures_teaches_nothing(experiment, tmp_path, machine):
    machine.answer = Outcome("done", {"metrics": {}, "micro_batches": [16], "halved": []})
    for _ in range(2):
        train(experiment, tmp_path, budget_gb=5.0)
    assert machine.tried == [64, 64]


def test_an_example_that_did_not_fit_by_itself_is_the_end(experiment, tmp_path, machine):
    machine.answer = Outcome("infeasible", "one example alone does not fit (OOM when allocating tensor)")
    outcome, _ = train(experiment, tmp_path, budget_gb=5.0)
    assert (outcome.kind, machine.tried) == ("infeasible", [64])
    assert "measured with other bindings" in outcome.content


def test_what_could_not_be_measured_is_measured_once_there_is_room(experiment, tmp_path, machine):
    needs, machine.needs = machine.needs, [None]
    train(experiment, tmp_path, budget_gb=0.5)
    asked = len(machine.probes)
    machine.needs = needs
    assert train(experiment, tmp_path, budget_gb=0.5)[0].kind == "infeasible"
    assert (machine.tried, machine.probes[asked:]) == ([], [])
    train(experiment, tmp_path, budget_gb=5.0)
    assert (machine.tried, machine.probes[asked:]) == ([64], [[]])


def test_without_a_probe_dying_teaches(experiment, tmp_path, machine):
    machine.fits = [20]
    train(experiment, tmp_path, budget_gb=5.0, probe=False)
    assert (machine.tried, len(machine.probes)) == ([64, 32, 16], 0)
    assert Ledger(attempts.LEDGER).get(kind(describe(experiment)))[0].tried == 16


TWO = ["run.freeze = @freezes.head_then_last_layers()", "freezes.head_then_last_layers.unfrozen = 3"]
HEAD, ALL = {"fixed": 1e8, "each": 1e6}, {"fixed": 1e8, "each": 1e7}


def test_each_phase_has_the_micro_batch_that_fits_there(experiment, tmp_path, machine):
    machine.needs = [HEAD, ALL]
    outcome, said = train(experiment, tmp_path, TWO, budget_gb=0.5)
    # (0.5 / 1.2 - 0.1) / 0.001 and / 0.01
    assert (outcome.kind, machine.tried) == ("done", [[64, 31]])
    allowed = "of 0.50 GB (memory.budget_gb = 0.5)"
    assert said == [
        f"phase 1: 64 of 64 examples at once: predicted peak 0.16 GB {allowed}",
        f"phase 2: 31 of 64 examples at once: predicted peak 0.41 GB {allowed}",
    ]


def test_what_a_phase_leaves_in_the_process_is_counted_in_those_after_it(experiment, tmp_path, machine):
    machine.needs = [HEAD | {"left": 1e8}, ALL]
    outcome, _ = train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert (outcome.kind, machine.tried) == ("done", [[64, 21]])
    known = Ledger(attempts.LEDGER).get(kind(describe(experiment.with_bindings(TWO))))
    assert [need.fixed for need in known] == [1e8, 2e8]


@pytest.mark.parametrize(
    ("fits", "tried", "learnt"),
    [
        ([100, 10], [[64, 31], [64, 15], [64, 7]], [None, 7]),
        ([40, 100], [[64, 31], [32, 31]], [32, None]),
        ([40, 20], [[64, 31], [32, 31], [32, 15]], [32, 15]),
    ],
)
def test_a_death_changes_the_micro_batch_of_its_own_phase(experiment, tmp_path, machine, fits, tried, learnt):
    machine.needs, machine.fits = [HEAD, ALL], fits
    outcome, said = train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert (outcome.kind, machine.tried) == ("done", tried)
    known = Ledger(attempts.LEDGER).get(kind(describe(experiment.with_bindings(TWO))))
    assert [need.tried for need in known] == learnt
    named = {f"phase {phase + 1}: {tried[0][phase]} examples at once were too many: signal 9" for phase in range(2)}
    assert len(named & set(said)) == sum(one is not None for one in learnt)
    # What was learnt holds for the next run.
    train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert machine.tried[len(tried) :] == tried[-1:]


def test_what_a_process_held_says_what_fits_in_the_phase_that_it_died_in(experiment, tmp_path, machine):
    machine.needs, machine.fits, machine.held = [HEAD, ALL], [100, 5], int(0.18e9)
    train(experiment, tmp_path, TWO, budget_gb=0.5)
    # (0.18 / 1.2 - 0.1) / 0.01
    assert machine.tried == [[64, 31], [64, 5]]


def test_a_death_before_training_began_is_one_of_every_phase(experiment, tmp_path, machine):
    machine.needs, machine.stillborn = [HEAD, ALL], 1
    outcome, said = train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert (outcome.kind, machine.tried) == ("done", [[64, 31], [32, 15]])
    assert said[2:] == ["it died before a phase began; all take fewer examples at once: signal 9"]
    known = Ledger(attempts.LEDGER).get(kind(describe(experiment.with_bindings(TWO))))
    assert [need.tried for need in known] == [32, 15]


def test_what_the_training_loop_halved_by_itself_is_learnt_of_its_phase(experiment, tmp_path, machine):
    machine.needs = [HEAD, ALL]
    # So few updates that the first phase had none.
    machine.answer = Outcome("done", {"metrics": {}, "micro_batches": [0, 16], "halved": [1]})
    train(experiment, tmp_path, TWO, budget_gb=5.0)
    train(experiment, tmp_path, TWO, budget_gb=5.0)
    assert machine.tried == [[64, 64], [64, 16]]


@pytest.mark.parametrize(
    ("needs", "named", "takes"),
    [
        ([HEAD, {"fixed": 1e9, "each": 1e8}], "phase 2: ", ": it takes 1.10 GB"),
        ([{"fixed": 9e8, "each": 1e8}, ALL], "phase 1: ", ": it takes 1.00 GB"),
        ([{"fixed": 9e8, "each": 1e8}, {"fixed": 1e9, "each": 1e8}], "phase 1 and phase 2: ", ": it takes 1.10 GB"),
    ],
)
def test_where_a_phase_has_no_room_it_is_named(experiment, tmp_path, machine, needs, named, takes):
    machine.needs = needs
    outcome, _ = train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert (outcome.kind, machine.tried) == ("infeasible", [])
    limit = "0.50 GB (memory.budget_gb = 0.5) with memory.margin = 1.2"
    assert outcome.content.startswith(f"{named}not even one example fits in {limit}{takes};")
    assert f"freezes.head_then_last_layers.unfrozen = 0: {takes[-7:]}, which does not fit either" in outcome.content


def test_the_phase_in_which_measuring_died_has_no_room(experiment, tmp_path, machine):
    machine.needs = [HEAD, None]
    outcome, _ = train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert outcome.content.startswith("phase 2: not even one example fits in 0.50 GB")
    known = Ledger(attempts.LEDGER).get(kind(describe(experiment.with_bindings(TWO))))
    assert [need.tried for need in known] == [None, 0]
    machine.needs = [HEAD, ALL]
    asked = len(machine.probes)
    train(experiment, tmp_path, TWO, budget_gb=0.5)
    assert machine.probes[asked:] == []
    train(experiment, tmp_path, TWO, budget_gb=5.0)
    assert (machine.probes[asked:], machine.tried) == ([TWO, TWO], [[64, 64]])


@pytest.mark.parametrize("known", [True, False])
def test_where_nothing_fits_the_error_says_what_would(experiment, tmp_path, machine, known):
    machine.needs = [{"fixed": 1e9, "each": 1e8} if known else None]
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
    proposed = [(change, more) for change, more in changes(experiment.with_bindings(bindings))]
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
    machine.needs = [{"fixed": 1e9, "each": 1e8}]
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


def attempts_of_a_search(experiment, tmp_path, **settings):
    target = "freezes.last_layers.unfrozen"
    return Attempts(experiment, Memory(**settings), tmp_path / "a.gin", tmp_path / "log", most={target: 9})


def test_a_search_measures_once_where_even_the_most_leaves_room(experiment, tmp_path, machine):
    made = attempts_of_a_search(experiment, tmp_path, budget_gb=2.0)
    for unfrozen in (0, 4, 9):
        made.train([f"freezes.last_layers.unfrozen = {unfrozen}"], tmp_path / "run", [], Listener())
    assert [bindings[-1] for bindings in machine.probes] == ["freezes.last_layers.unfrozen = 9"]
    assert machine.tried == [64, 64, 64]


def test_a_search_measures_each_where_the_most_would_not_fit_whole(experiment, tmp_path, machine):
    made = attempts_of_a_search(experiment, tmp_path, budget_gb=0.5)
    for _ in range(2):
        made.train(["freezes.last_layers.unfrozen = 4"], tmp_path / "run", [], Listener())
    assert [bindings[-1][-1] for bindings in machine.probes] == ["9", "4"]
    assert machine.tried == [31, 31]


def test_what_a_backbone_has_less_of_is_measured_as_it_is(experiment, tmp_path, machine):
    made = attempts_of_a_search(experiment, tmp_path, budget_gb=2.0)
    made.most = {"freezes.last_layers.unfrozen": 900}
    made.train(["freezes.last_layers.unfrozen = 4"], tmp_path / "run", [], Listener())
    assert [bindings[-1][-1] for bindings in machine.probes] == ["4"]


def unfreezing(number):
    return [f"freezes.last_layers.unfrozen = {number}"]


def test_what_trains_less_than_was_measured_is_not_measured(experiment, tmp_path, machine):
    for unfrozen in (9, 4, 10):
        train(experiment, tmp_path, unfreezing(unfrozen), budget_gb=2.0)
    assert machine.probes == [unfreezing(9), unfreezing(10)]
    assert machine.tried == [64, 64, 64]
    # Another batch is of the same kind; another head is not.
    train(experiment, tmp_path, [*unfreezing(4), "fit.batch_size = 32"], budget_gb=2.0)
    train(experiment, tmp_path, [*unfreezing(4), "heads.fcos.channels = 8"], budget_gb=2.0)
    assert len(machine.probes) == 3


def test_what_leaves_no_room_for_the_batch_says_nothing_of_less(experiment, tmp_path, machine):
    for unfrozen in (9, 4):
        train(experiment, tmp_path, unfreezing(unfrozen), budget_gb=0.5)
    assert machine.probes == [unfreezing(9), unfreezing(4)]


def test_a_death_within_a_bound_has_the_run_measured_by_itself(experiment, tmp_path, machine):
    train(experiment, tmp_path, unfreezing(9), budget_gb=2.0)
    machine.fits = [20]
    train(experiment, tmp_path, unfreezing(4), budget_gb=2.0)
    assert (machine.probes, machine.tried) == ([unfreezing(9)], [64, 64, 32, 16])
    train(experiment, tmp_path, unfreezing(4), budget_gb=2.0)
    assert (machine.probes, machine.tried[4:]) == ([unfreezing(9), unfreezing(4)], [16])

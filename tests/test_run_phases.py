"""Runs in phases: each trains what it says and nothing else, and a kill anywhere changes no number."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tlx import looks, phases
from tlx import run as run_room
from tlx.augment import Standard
from tlx.data.splits.parts import Splits
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ModelError, TlxError
from tlx.evaluate.coco import Coco
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.freeze import Freeze, Phase
from tlx.lazy import tf
from tlx.models.heads.fcos import Fcos
from tlx.policies import backbone, head_then_last_layers, last_layers
from tlx.run import Run, evaluate, reopen, train


def only(*blocks):
    return lambda layers: [layer.block in blocks for layer in layers]


# What the second phase freezes, and has computed before its cut, the first one has changed.
TURNS = Freeze("turns", (Phase(0.5, only("stem")), Phase(0.5, only("block4"), (("head", 0.5), ("block4_b", 0.1)))))
GRADUAL = head_then_last_layers(2, head_share=0.5)


class Ending(Listener):
    """Ends the run as soon as update number `stop` is told, which is before it is evaluated, or by look `look`."""

    def __init__(self, stop=None, look=None):
        self.stop, self.end = stop, look
        self.said, self.updates, self.looks, self.phases = [], [], [], []

    def say(self, message):
        self.said.append(message)

    def progress(self, what, done, total, note=""):
        if what == "training":
            self.updates.append(done)
            if done == self.stop:
                raise KeyboardInterrupt

    def phase(self, number, of):
        self.phases.append((number, of))

    def evaluated(self, look):
        self.looks.append(look.number)
        if look.number == self.end:
            raise KeyboardInterrupt
        return "continue"


@pytest.fixture(autouse=True)
def traced(request):
    """Tracing takes longer than twelve updates: all but the tests that ask for it go without."""
    tf.config.run_functions_eagerly(not getattr(request, "param", False))
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def experiment(draw, tiny, tmp_path_factory):
    """Return a function that gives an experiment of twelve updates, in phases of six."""
    folder = tmp_path_factory.mktemp("features")
    data = Splits(draw(8), draw(2, seed=1), None)

    def experiment(policy, evaluations=3, **settings):
        fit = Fit(batch_size=4, epochs=6, evaluations=evaluations, learning_rate=1e-2, ema=settings.pop("ema", None))
        features = Features(views=2, folder=folder)
        parts = {"augment": Standard(zoom=(0.9, 1.2)), "image_size": 64, "engine": TensorFlow(), **settings}
        return Run(data, tiny(dropout=0.3), Fcos(channels=16, depth=1), policy, fit, features, **parts)

    return experiment


@pytest.fixture
def detectors(monkeypatch):
    """The detector and the values of all its variables whenever a phase has ended."""
    seen, real = [], phases.fit

    def fit(learner, *arguments):
        history = real(learner, *arguments)
        seen.append((learner, [v.numpy().copy() for v in learner.detector.model.variables]))
        return history

    monkeypatch.setattr(phases, "fit", fit)
    return seen


def lines(folder):
    """The lines of the history, without what another attempt need not have in common."""
    found = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    of_this_attempt = ("seconds", "memory_bytes", "images_per_second", "gpu_percent")
    return [{k: v for k, v in line.items() if k not in of_this_attempt} for line in found]


def changed(one, other, variables):
    return {v.path.split("/")[-2] for v, a, b in zip(variables, one, other, strict=True) if not np.array_equal(a, b)}


def assert_same(one, other):
    assert len(one) == len(other) > 50
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What is traced, and not run as it is, takes its time.
KILLS = {
    "between phases": (GRADUAL, {"evaluations": 3}, {"stop": 6}, False),
    "at the look that ends a phase": (GRADUAL, {"evaluations": 2, "ema": 0.8}, {"look": 1}, False),
    "inside of the second phase": (GRADUAL, {"evaluations": 3}, {"stop": 9}, False),
    "where it freezes what changed": (TURNS, {"evaluations": 3, "ema": 0.8}, {"stop": 9}, True),
}
whole_runs = {}


@pytest.mark.parametrize(("policy", "settings", "kill", "traced"), KILLS.values(), ids=KILLS, indirect=["traced"])
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
    experiment, detectors, tmp_path, tmp_path_factory, policy, settings, kill, traced
):
    run = experiment(policy, **settings)
    if (key := repr((policy.name, settings))) not in whole_runs:
        folder = tmp_path_factory.mktemp("whole")
        result = train(run, folder, "", Ending())
        whole_runs[key] = folder, result, detectors[-1][1]
    folder, result, state = whole_runs[key]
    first, second = Ending(**kill), Ending()
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path, "", first)
    repeated = train(run, tmp_path, "", second)
    # A look that was not answered is told once more.
    told = [*range(1, settings["evaluations"] + 1), *filter(None, [kill.get("look")])]
    assert Counter(first.looks + second.looks) == Counter(told)
    assert lines(tmp_path) == lines(folder)
    assert (repeated["metrics"], repeated["validation"]) == (result["metrics"], result["validation"])
    assert_same(detectors[-1][1], state)
    kept = [reopen(run.backbone, run.head, run.size, where)[0].model.weights for where in (folder, tmp_path)]
    assert_same(*([v.numpy() for v in weights] for weights in kept))


def test_each_phase_trains_what_it_says_and_nothing_else(experiment, detectors, tmp_path):
    listener = Ending()
    train(experiment(TURNS), tmp_path, "", listener)
    (one, middle), (two, end) = detectors
    variables = one.detector.model.variables
    head = {layer.name for part in one.detector.head.parts for layer in part.layers}
    moved = changed(middle, end, variables)
    assert {"block4_a", "block4_a_bn", "block4_b"} <= moved
    assert {name for name in moved - head if name.startswith(("stem", "block"))} == {
        "block4_a",
        "block4_a_bn",
        "block4_b",
    }
    assert one.rates(1.0) == {"head": 1.0, "backbone": 0.25}
    assert two.rates(1.0) == {"head": 0.5, "backbone": 0.25, "backbone/block4_b": 0.1}
    assert one.cut.prefix.weights == []
    assert two.cut.after == "block3_concat"
    told = "\n".join(listener.said)
    assert "phase 1, updates 1 to 6 of 12: 1 of the backbone's 9 weight layers train, in stem" in told
    assert "phase 2, updates 7 to 12 of 12: 2 of the backbone's 9 weight layers train, in block4" in told
    assert [(line["update"], line["phase"]) for line in lines(tmp_path)] == [(4, 1), (8, 2), (12, 2)]


def test_the_head_first_reads_features_alone_and_each_phase_warms_up(experiment, detectors, tmp_path, monkeypatch):
    run, listener, asked = experiment(GRADUAL), Ending(), []
    update = phases.Learner.update
    monkeypatch.setattr(
        phases.Learner, "update", lambda me, parts, rate: (asked.append(rate), update(me, parts, rate))[1]
    )
    train(run, tmp_path, "", listener)
    (one, middle), (two, end) = detectors
    assert one.cut.suffix is None
    assert two.cut.suffix is not None
    assert sum("are cached" in line for line in listener.said) == 2
    assert {"block4_a", "block4_b"} <= changed(middle, end, one.detector.model.variables)
    assert asked == [run.fit.rate(update, 6) for update in range(6)] * 2


@pytest.fixture
def sizes(monkeypatch):
    """The sizes of the parts of each update."""
    seen, update = [], phases.Learner.update

    def noted(learner, parts, rate):
        parts = list(parts)
        seen.append([len(seeds) for *_, seeds in parts])
        return update(learner, parts, rate)

    monkeypatch.setattr(phases.Learner, "update", noted)
    return seen


def test_each_phase_takes_its_own_micro_batches(experiment, sizes, tmp_path, monkeypatch):
    run, listener, at_once = experiment(GRADUAL), Ending(), []
    real = run_room.predict
    monkeypatch.setattr(run_room, "predict", lambda *args: (at_once.append(args[3]), real(*args))[1])
    result = train(run, tmp_path, "", listener, [4, 3])
    assert sizes == [[4]] * 6 + [[2, 2]] * 6
    assert listener.phases == [(0, 2), (1, 2)]
    assert (result["micro_batches"], result["micro_batch"]) == ([4, 3], 3)
    norms = [line for line in listener.said if "BatchNorm" in line]
    assert norms == ["1 BatchNorm layers train: they see the statistics of 2 examples, not of all 4"]
    # Whatever trained, no more pictures are looked at together than fitted.
    evaluate(run, tmp_path)
    assert at_once[-1] == 3


def test_the_micro_batches_of_phases_change_nothing_about_what_is_learnt(experiment, detectors, sizes, tmp_path):
    # No BatchNorm trains in the first phase; in the second one they see all examples.
    train(experiment(GRADUAL), tmp_path / "whole", "", Ending())
    train(experiment(GRADUAL), tmp_path / "parts", "", Ending(), [1, 4])
    assert sizes == [[4]] * 12 + [[1] * 4] * 6 + [[4]] * 6
    for a, b in zip(detectors[1][1], detectors[3][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_run_that_goes_on_within_a_phase_takes_what_fits_there(experiment, sizes, tmp_path):
    run, second = experiment(GRADUAL, evaluations=6), Ending()
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path, "", Ending(stop=11), [4, 3])
    sizes.clear()
    result = train(run, tmp_path, "", second, [2, 2])
    assert sizes == [[2, 2]] * 2
    assert second.phases == [(1, 2)]
    assert (result["micro_batches"], result["micro_batch"]) == ([4, 2], 2)


@pytest.mark.parametrize(("scores", "best"), [((0.9, 0.1, 0.2), 4), ((0.1, 0.9, 0.2), 8)])
def test_the_best_weights_of_all_phases_are_kept(experiment, tmp_path, monkeypatch, scores, best):
    given, told, looked, weights = iter(scores), [], [], {}

    class Scored(Coco):
        def quick(self, dataset, found):
            looked.append(len(dataset))
            return self(dataset, found)

        def __call__(self, dataset, found):
            metrics = super().__call__(dataset, found)
            # The other one is of a sample of the training pictures.
            if len(dataset) == 2:
                told.append(found)
                metrics["values"]["AP"] = next(given, 0.5)
            return metrics

    def keep(learner, history, seen, *rest):
        weights[seen.update] = [v.numpy().copy() for v in learner.detector.model.weights]
        real(learner, history, seen, *rest)

    real = looks.keep
    monkeypatch.setattr(looks, "keep", keep)
    run = experiment(TURNS, evaluator=Scored(), judge="validation")
    assert train(run, tmp_path, "", Ending())["best_update"] == best
    detector, _ = reopen(run.backbone, run.head, run.size, tmp_path)
    assert_same([v.numpy() for v in detector.model.weights], weights[best])
    # What is judged at the end are these weights, on features of theirs.
    evaluate(run, tmp_path)
    # Looks are judged the quick way, and the end of a run, and whoever evaluates it, is not.
    assert looked.count(2) == len(told) - 2
    for trained, reopened in zip(*told[-2:], strict=True):
        np.testing.assert_allclose(trained.boxes, reopened.boxes, atol=1e-3)
        np.testing.assert_allclose(trained.scores, reopened.scores, atol=1e-5)


def test_only_the_last_phase_ends_where_looks_get_no_better(experiment, tmp_path):
    class Flat(Coco):
        def quick(self, dataset, found):
            metrics = super().quick(dataset, found)
            metrics["values"]["AP"] = 0.5
            return metrics

    run = experiment(GRADUAL, evaluations=6, evaluator=Flat())
    run = replace(run, fit=replace(run.fit, patience=1))
    result = train(run, tmp_path, "", listener := Ending())
    assert (listener.looks, listener.updates[-1], result["ended"]) == ([1, 2, 3, 4, 5], 10, "converged")
    assert any("converged at update 10 of 12" in line for line in listener.said)


@pytest.mark.parametrize("phase", [1, 2])
def test_what_a_phase_freezes_and_is_changed_is_noticed_at_its_end(experiment, tmp_path, monkeypatch, phase):
    def fit_and_spoil(learner, *arguments):
        history = real(learner, *arguments)
        spoilt.append(learner)
        if len(spoilt) == phase:
            kernel = learner.detector.network.get_layer("block1_a" if phase == 1 else "stem_conv").kernel
            kernel.assign(kernel * 2)
        return history

    real, spoilt = phases.fit, []
    monkeypatch.setattr(phases, "fit", fit_and_spoil)
    with pytest.raises(ModelError, match="frozen weights changed"):
        train(experiment(TURNS), tmp_path, "", Ending())
    assert len(spoilt) == phase


def test_of_few_updates_a_phase_may_have_none(experiment, tmp_path):
    policy = Freeze("late", (Phase(0.99, only()), Phase(0.01, only("block4"))))
    listener = Ending()
    train(experiment(policy), tmp_path, "", listener)
    assert listener.updates == list(range(1, 13))
    assert [line["phase"] for line in lines(tmp_path)] == [1, 1, 1]
    assert listener.phases == [(0, 2)]


def test_a_later_phase_that_does_not_fit_is_refused_before_the_first(experiment, tmp_path):
    listener = Ending()
    with pytest.raises(ModelError, match=r"head_then_last_layers\.unfrozen = 10.*give 0 to 9"):
        train(experiment(head_then_last_layers(10)), tmp_path, "", listener)
    assert listener.updates == []


def test_the_checkpoint_of_a_policy_with_more_phases_is_refused(experiment, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(experiment(GRADUAL), tmp_path, "", Ending(look=2))
    with pytest.raises(TlxError, match=r"checkpoint\.npz was written in phase 2, and run\.freeze has only 1 now"):
        train(experiment(last_layers(2)), tmp_path, "", Ending())


def test_history_tells_of_each_look(experiment, tmp_path):
    result = train(experiment(backbone()), tmp_path, "", Ending())
    told = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(line["update"], line["updates"], line["epoch"], line["phase"]) for line in told] == [
        (4, 12, 2.0, 1),
        (8, 12, 4.0, 1),
        (12, 12, 6.0, 1),
    ]
    assert result["validation"] in [line["metrics"] for line in told]
    assert all(line["losses"]["train"]["total"] > 0 for line in told)
    assert all(
        line["losses"][split].keys() >= {"scores", "boxes"} for line in told for split in ("train", "validation")
    )
    assert all(line["metrics_on_training_sample"].keys() == {"AP"} for line in told)
    assert [line["learning_rates"] for line in told] == [
        {"head": pytest.approx(experiment(backbone()).fit.rate(line["update"] - 1, 12))} for line in told
    ]
    assert 0 < told[0]["seconds"] < told[1]["seconds"] < told[2]["seconds"]
    assert all(1e8 < line["memory_bytes"] < 1e11 and line["images_per_second"] > 0 for line in told)


def test_training_and_validation_share_the_room_for_features(experiment, tmp_path, monkeypatch):
    sources, real = [], phases.source
    monkeypatch.setattr(phases, "source", lambda *args: sources.append(real(*args)) or sources[-1])
    run = experiment(backbone(), evaluations=1)
    train(run, tmp_path / "wide", "", listener := Ending())
    assert all(source.cached for source in sources)
    assert not any("not cached" in line for line in listener.said)
    cap = (sum(source.bytes for source in sources) - 1) / 1e9
    tight = replace(run, features=replace(run.features, cap_gb=cap, folder=tmp_path / "features"))
    train(tight, tmp_path / "tight", "", listener := Ending())
    assert [source.cached for source in sources[2:]] == [True, False]
    assert any(re.match("validation: .*holds already.*not cached", line) for line in listener.said)

"""What every evaluator promises: metrics with a direction, and records that can be summed up in any selection."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlx import registry
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import Boxes, ImageClass
from tlx.errors import ConfigError, ModelError
from tlx.evaluate.choose import default_evaluator
from tlx.evaluate.coco import Coco
from tlx.evaluate.evaluator import Metric, headline, in_words
from tlx.tasks.classification import ClassScores
from tlx.tasks.detection import Detections

CLASSES = ("cat", "dog", "owl")


def values(**found):
    return {"values": found}


def test_a_score_is_the_higher_the_better():
    up, down = Metric("AP"), Metric("error", "minimize", 1.0)
    assert up.score(values(AP=0.25, error=9)) == 0.25
    assert down.score(values(AP=9, error=0.25)) == -0.25
    assert up.score(values(AP=0.5)) > up.score(values(AP=0.25))
    assert down.score(values(error=0.25)) > down.score(values(error=0.5))


def test_a_score_of_nothing_is_that_of_a_useless_model():
    up, down = Metric("AP"), Metric("error", "minimize", 1.0)
    assert up.score(values(AP=None)) == up.score(values(AP=0.0)) == 0
    assert down.score(values(error=None)) == down.score(values(error=1.0)) == -1
    # Zero is a value like others, and the best one here.
    assert down.score(values(error=0.0)) > down.score(values(error=None))
    assert Metric("R2", worst=-1.0).score(values(R2=None)) == -1


def test_a_metric_is_found_by_its_name():
    assert Coco().metric() == Coco().metric("AP") == Metric("AP")
    assert Coco().metric("AP_small").name == "AP_small"
    with pytest.raises(ConfigError, match=r"^metric = 'AP_smal' is no metric; did you mean 'AP_small'\? \(there are "):
        Coco().metric("AP_smal")
    with pytest.raises(ConfigError, match=r"^run\.metric = 'accuracy' is no metric \(there are AP, "):
        Coco().metric("accuracy", "run.metric")


def test_one_line_tells_the_primary_metric_and_the_next():
    metrics = {"primary": "AP50", "values": {"AP": 0.5151, "AP50": 0.948, "AR": 0.6}}
    assert list(headline(metrics).items()) == [("AP50", 0.948), ("AP", 0.5151)]
    assert in_words(metrics) == "AP50 0.948, AP 0.515"
    assert in_words({"primary": "AP", "values": {"AP": None, "AP50": 0.0}}) == "AP -, AP50 0.000"
    assert in_words({"primary": "accuracy", "values": {"accuracy": 1.0}}) == "accuracy 1.000"


def boxes(rng, n):
    low = rng.uniform(0, 60, (n, 2))
    return np.concatenate([low, low + rng.uniform(2, 39, (n, 2))], axis=1).astype(np.float32)


def detection(rng):
    n, strays = rng.integers(0, 4, 2)
    targets = Boxes(boxes(rng, n), rng.integers(0, 3, n, np.int32), rng.random(n) < 0.2)
    placed = np.concatenate([targets.boxes + rng.uniform(0, 1, (n, 4)).astype(np.float32), boxes(rng, strays)])
    labels = np.concatenate([targets.labels, rng.integers(0, 3, strays, np.int32)])
    return targets, Detections(placed, rng.random(n + strays, np.float32), labels)


def classification(rng):
    return ImageClass(int(rng.integers(3))), ClassScores(rng.random(3, np.float32))


MAKERS = {"detection": detection, "classification": classification}


@pytest.fixture(params=sorted(MAKERS))
def evaluator(request):
    return default_evaluator(request.param)


def scene(evaluator, seed, size):
    rng = np.random.default_rng(seed)
    pairs = [MAKERS[evaluator.task](rng) for _ in range(size)]
    examples = tuple(Example(Path(f"{i}.png"), 100, 100, targets) for i, (targets, _) in enumerate(pairs))
    return Dataset("drawn", CLASSES, examples, task=evaluator.task), [prediction for _, prediction in pairs]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 6), chosen=st.data())
@pytest.mark.parametrize("task", sorted(MAKERS))
def test_records_of_some_pictures_sum_up_to_an_evaluation_of_these_alone(task, seed, size, chosen):
    judge = default_evaluator(task)
    dataset, predictions = scene(judge, seed, size)
    pairs = zip(dataset.examples, predictions, strict=True)
    records = [judge.match(example, prediction, CLASSES) for example, prediction in pairs]
    # With repetitions, as a bootstrap draws them, or none at all.
    some = chosen.draw(st.lists(st.integers(0, size - 1), max_size=8))
    alone = judge(dataset.subset(some, "some"), [predictions[i] for i in some])
    assert judge.summarize([records[i] for i in some], CLASSES) == alone
    # Summing up leaves records as they were.
    assert judge.summarize(records, CLASSES) == judge(dataset, predictions)


def test_every_evaluator_gives_what_it_declares(evaluator):
    metrics = evaluator(*scene(evaluator, 0, 5))
    assert [metric.name for metric in evaluator.metrics] == list(metrics["values"])
    assert metrics["primary"] == evaluator.primary == evaluator.metric().name
    assert tuple(metrics["per_class"]) == CLASSES
    assert metrics["counts"]["images"] == 5
    assert all(0 <= evaluator.metric(name).score(metrics) <= 1 for name in metrics["values"])
    assert evaluator.table(metrics).row_count >= len(CLASSES)


def test_nothing_to_judge_is_undefined(evaluator):
    metrics = evaluator(Dataset("empty", CLASSES, (), task=evaluator.task), [])
    assert set(metrics["values"].values()) == {None}
    assert evaluator.metric().score(metrics) == 0
    evaluator.table(metrics)


def test_there_is_one_prediction_for_each_picture(evaluator):
    dataset, predictions = scene(evaluator, 0, 2)
    with pytest.raises(ModelError, match="drawn: 1 predictions for 2 images"):
        evaluator(dataset, predictions[:1])
    with pytest.raises(ModelError, match="drawn: 3 predictions for 2 images"):
        evaluator(dataset, [*predictions, predictions[0]])


def test_every_task_has_an_evaluator_for_it():
    registry.discover()
    tasks = registry.tasks.entries
    assert {name: default_evaluator(name).task for name in tasks} == {name: name for name in tasks}


def test_a_metric_to_be_minimized_says_what_is_worst():
    with pytest.raises(ConfigError, match=r"error is to be minimized: say which value"):
        Metric("error", "minimize")


def test_the_metric_that_decides_is_the_primary_one_of_a_judgement():
    data = Dataset("empty", ("a",), ())
    assert Coco().judge(data, [])["primary"] == "AP"
    assert Coco().judge(data, [], "AP75")["primary"] == "AP75"
    assert list(headline(Coco().judge(data, [], "AR"))) == ["AR", "AP"]

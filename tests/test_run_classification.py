"""Classification goes through the very same flow as detection: trained, judged, drawn, reopened and predicted."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from tlx.augment import Standard
from tlx.augment.combinations import Mosaic
from tlx.data.dataset import Example
from tlx.data.splits.parts import Splits
from tlx.data.targets import ImageClass
from tlx.errors import ConfigError
from tlx.evaluate.classification import ClassificationEvaluator
from tlx.evaluate.coco import Coco
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.classifier import Classifier
from tlx.policies import last_layers
from tlx.run import Run, _fit_together, evaluate, train


class Hearing(Listener):
    def __init__(self):
        self.said, self.looks = [], []

    def say(self, message):
        self.said.append(message)

    def evaluated(self, look):
        self.looks.append(look)
        return "continue"


@pytest.fixture(scope="module")
def experiment(draw, tiny, tmp_path_factory):
    def labelled(dataset):
        examples = (Example(e.image, e.width, e.height, ImageClass(int(e.objects.labels[0]))) for e in dataset.examples)
        return replace(dataset, examples=tuple(examples), task="classification")

    parts = (labelled(draw(count, seed=seed)) for seed, count in enumerate((8, 4, 6)))
    return Run(
        data=Splits(*parts),
        backbone=tiny(),
        head=Classifier(),
        freeze=last_layers(1),
        fit=Fit(batch_size=4, epochs=4, evaluations=2, learning_rate=1e-2),
        features=Features(views=2, folder=tmp_path_factory.mktemp("features")),
        augment=Standard(zoom=(0.9, 1.2)),
        image_size=64,
    )


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory):
    folder, listener = tmp_path_factory.mktemp("run"), Hearing()
    return folder, train(experiment, folder, "", listener), listener


def test_metrics_are_those_of_the_tasks_own_evaluator(trained):
    folder, result, listener = trained
    assert json.loads((folder / "result.json").read_text()) == result
    metrics = result["metrics"]
    assert (result["split"], metrics["primary"], metrics["counts"]) == ("test", "accuracy", {"images": 6})
    assert sum(map(sum, metrics["confusion"])) == 6
    assert set(metrics["per_class"]) == {"red", "blue"}
    assert [look.score for look in listener.looks] == [look.metrics["values"]["accuracy"] for look in listener.looks]
    assert all(look.scalars.keys() >= {"train/loss/scores", "validation/loss/scores"} for look in listener.looks)


def test_every_picture_has_its_class_and_is_drawn(trained, experiment):
    folder, result, _ = trained
    rows = json.loads((folder / "predictions-test.json").read_text())
    assert [row["image"] for row in rows] == json.loads((folder / "data.json").read_text())["splits"]["test"]
    # Pictures of one name may lie in several folders.
    assert len({row["image"] for row in rows}) == len(experiment.data.test)
    true = [experiment.data.test.classes[int(e.targets.labels[0])] for e in experiment.data.test.examples]
    right = [row["class"] == label for row, label in zip(rows, true, strict=True)]
    assert sum(right) / 6 == result["metrics"]["values"]["accuracy"]
    assert all(sum(row["scores"].values()) == pytest.approx(1, abs=1e-5) for row in rows)
    assert len(list((folder / "pictures").iterdir())) == 6
    with Image.open(folder / "test.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_a_reopened_classifier_is_judged_alike(trained, experiment):
    assert evaluate(experiment, trained[0]) == {"split": "test", "metrics": trained[1]["metrics"]}


def test_an_evaluator_of_another_task_is_refused(experiment):
    assert isinstance(experiment.evaluator, ClassificationEvaluator)
    sizes = (experiment.image_size, experiment.tiles, experiment.resize)
    with pytest.raises(ConfigError, match=r"run\.evaluator judges detection, and run\.head learns classification"):
        _fit_together(experiment.backbone, experiment.head, experiment.freeze, Coco(), None, experiment.augment, *sizes)
    with pytest.raises(ConfigError, match=r"run\.metric = 'AP' is no metric \(there are accuracy, "):
        _fit_together(experiment.backbone, experiment.head, experiment.freeze, None, "AP", experiment.augment, *sizes)
    with pytest.raises(ConfigError, match=r"run\.augment combines pictures, and classification cannot"):
        _fit_together(experiment.backbone, experiment.head, experiment.freeze, None, None, Mosaic(), *sizes)


def test_a_head_that_normalizes_says_so_where_a_batch_is_taken_in_parts(experiment, tmp_path):
    fit = Fit(batch_size=4, epochs=1, evaluations=1, micro_batch=3)
    run, listener = replace(experiment, head=Classifier(normalize=True), freeze=last_layers(0), fit=fit), Hearing()
    train(run, tmp_path, "", listener)
    assert "1 BatchNorm layers train: they see the statistics of 2 examples, not of all 4" in listener.said

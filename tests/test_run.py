"""One experiment from a folder of pictures to a judged detector, on the smallest scale."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tlx import ownership, phases
from tlx.augment import Standard
from tlx.data.convert import convert
from tlx.data.readers.voc import voc
from tlx.data.splits.policies import own
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import DataError, ModelError, TlxError
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.fcos import Fcos
from tlx.policies import last_layers
from tlx.run import Run, evaluate, reopen, train

SPLITS = ("train", "train", "train", "validation", "train", "test")
FILES = {
    *(".tlx-made", "checkpoint.npz", "config.gin", "data.json", "detector.weights.h5", "environment.json"),
    *("history.jsonl", "model.json", "pictures", "predictions-test.json"),
    *("result.json", "run.log", "tensorboard", "test.jpg"),
}


class Remembering(Listener):
    """Remembers what it was told; at look number `stop` it ends the run."""

    def __init__(self, stop=None):
        self.stop, self.said, self.done, self.looks = stop, [], {}, []

    def say(self, message):
        self.said.append(message)

    def progress(self, what, done, total, note=""):
        self.done[what] = (done, total)

    def evaluated(self, look):
        self.looks.append((look.number, look.of, look.metrics["values"]["AP"]))
        if look.number == self.stop:
            raise KeyboardInterrupt
        return "continue"


@pytest.fixture(scope="module")
def experiment(draw, tiny, tmp_path_factory):
    """Return a function that builds the experiment from its VOC folder."""
    folder = tmp_path_factory.mktemp("experiment")
    convert(draw(12, splits=SPLITS), folder / "voc", "voc")

    def experiment(path=folder / "voc", **settings):
        return Run(
            data=own(voc(path)),
            backbone=tiny(),
            head=Fcos(channels=16, depth=1),
            freeze=last_layers(1),
            fit=Fit(batch_size=4, epochs=6, evaluations=3, learning_rate=1e-2),
            features=Features(views=2, folder=folder / "features"),
            augment=Standard(zoom=(0.9, 1.2)),
            image_size=64,
            **{"engine": TensorFlow(), **settings},
        )

    return experiment


@pytest.fixture(scope="module")
def trained(experiment, tmp_path_factory):
    folder, listener = tmp_path_factory.mktemp("runs") / "new" / "run", Remembering()
    return folder, train(experiment(), folder, "fit.epochs = 6\n", listener), listener


def weights(folder):
    found = {}
    with h5py.File(folder / "detector.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert len(one) > 50
    assert [name for name in one if not np.array_equal(one[name], other[name])] == []


def curve(folder, name):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def test_the_run_folder_is_complete(trained):
    folder, result, _ = trained
    best = f"best-{trained[1]['best_update']}.npz"
    assert {path.name for path in folder.iterdir()} == {*FILES, best}
    assert (folder / "config.gin").read_text() == "fit.epochs = 6\n"
    assert json.loads((folder / "result.json").read_text()) == result
    known = json.loads((folder / "data.json").read_text())
    assert known["classes"] == ["blue", "red"]
    assert {name: len(images) for name, images in known["splits"].items()} == {"train": 8, "validation": 2, "test": 2}
    assert len(known["fingerprint"]) == 64
    environment = json.loads((folder / "environment.json").read_text())
    assert {"tensorflow", "keras", "tlx"} <= set(environment["packages"])
    assert len(list((folder / "pictures").iterdir())) == 2
    with Image.open(folder / "test.jpg") as sheet:
        assert sheet.format == "JPEG"


def test_the_result_says_how_it_went(trained):
    _, result, _ = trained
    assert result["split"] == "test"
    assert {"primary", "values", "counts", "per_class"} == result["metrics"].keys()
    assert {"AP", "AP50", "AP75"} <= result["metrics"]["values"].keys()
    assert set(result["metrics"]["per_class"]) == {"blue", "red"}
    assert (result["metrics"]["counts"]["images"], result["metrics"]["counts"]["boxes"]) == (2, 2)
    assert result["validation"]["counts"]["images"] == 2
    assert result["seconds"] > 0
    assert result["images_per_second"] > 0
    assert 1e8 < result["peak_memory_bytes"] < 1e11
    assert (result["updates"], result["micro_batch"], result["micro_batches"]) == (12, 4, [4])
    assert result["best_update"] in (4, 8, 12)
    assert result["ended"] == "finished"


def test_the_listener_and_the_log_follow_the_run(trained):
    folder, result, listener = trained
    assert listener.done["training"] == (12, 12)
    assert listener.done["caching features"][0] == listener.done["caching features"][1]
    assert [(number, looks) for number, looks, _ in listener.looks] == [(1, 3), (2, 3), (3, 3)]
    assert result["validation"]["values"]["AP"] == max(score for _, _, score in listener.looks)
    said = (folder / "run.log").read_text()
    assert all(line in said for line in listener.said)
    assert "| block4 |" in said
    assert "1 of the backbone's 9 weight layers train, in block4" in said
    assert "are cached" in said


def test_the_folder_says_what_was_restored_frozen_and_augmented(trained):
    model = json.loads((trained[0] / "model.json").read_text())
    assert (model["backbone"], model["size"], model["resize"]) == ("tiny", [64, 64], "letterbox")
    assert model["restored"] is None
    assert model["augment"] == repr(Standard(zoom=(0.9, 1.2)))
    assert (model["shares"], len(model["layers"])) == ([1.0], 9)
    assert [layer["name"] for layer in model["layers"] if layer["trains"] == [True]] == ["block4_b"]


def test_predictions_name_pictures_and_classes_and_can_be_given_to_cocos_own_tools(trained, experiment):
    rows = json.loads((trained[0] / "predictions-test.json").read_text())
    test = experiment().data.test
    assert {(row["image_id"], row["file_name"]) for row in rows} <= {
        (number, example.image.name) for number, example in enumerate(test.examples)
    }
    assert {(row["category_id"], row["category"]) for row in rows} <= {(1, "blue"), (2, "red")}
    assert rows
    for row in rows:
        x, y, width, height = row["bbox"]
        assert 0 <= x < x + width <= 64
        assert 0 <= y < y + height <= 64
        assert 0 < row["score"] <= 1


@pytest.mark.parametrize(
    "name",
    [
        *("train/loss", "learning_rate", "images_per_second", "memory_gb"),
        *("validation/loss/scores", "validation/loss/boxes", "validation/AP", "validation/AP50"),
    ],
)
def test_tensorboard_has_the_curve(trained, name):
    points = curve(trained[0], name)
    assert [step for step, _ in points] == [4, 8, 12]
    assert np.isfinite([value for _, value in points]).all()


def test_tensorboard_has_pictures_and_texts(trained):
    events = EventAccumulator(str(trained[0] / "tensorboard"))
    events.Reload()
    assert "validation/0" in events.Tags()["images"]
    assert {"freeze", "config"} <= set(events.Tags()["tensors"])


def test_the_same_seed_gives_the_same_detector(trained, experiment, tmp_path):
    folder, result, _ = trained
    # It computes its features anew, so these are the same as well.
    again = replace(experiment(), features=Features(views=2, folder=tmp_path / "features"))
    repeated = train(again, tmp_path / "run", "", Remembering())
    assert repeated["metrics"] == result["metrics"]
    assert repeated["validation"] == result["validation"]
    assert_same_weights(folder, tmp_path / "run")


def test_an_interrupted_run_goes_on(trained, experiment, tmp_path):
    folder, result, _ = trained
    with pytest.raises(KeyboardInterrupt):
        train(experiment(), tmp_path, "", Remembering(stop=2))
    assert not (tmp_path / "result.json").exists()
    listener = Remembering()
    resumed = train(experiment(), tmp_path, "", listener)
    assert [number for number, _, _ in listener.looks] == [2, 3]
    assert resumed["metrics"] == result["metrics"]
    assert_same_weights(folder, tmp_path)
    for name in ("train/loss", "validation/AP", "validation/loss/scores"):
        assert curve(tmp_path, name) == curve(folder, name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device here that is always full")
def test_a_full_disk_is_named_and_costs_nothing_that_was_finished(trained, experiment, tmp_path, monkeypatch):
    folder, result, _ = trained
    partial = ownership.partial

    def full(path):
        return Path("/dev/full") if path.name == "checkpoint.npz" else partial(path)

    class Filling(Remembering):
        def evaluated(self, look):
            if look.number == 1:
                monkeypatch.setattr(ownership, "partial", full)
            return super().evaluated(look)

    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint\.npz'"):
        train(experiment(), tmp_path, "", Filling())
    monkeypatch.undo()
    listener = Remembering()
    assert train(experiment(), tmp_path, "", listener)["metrics"] == result["metrics"]
    assert [number for number, _, _ in listener.looks] == [2, 3]
    assert_same_weights(folder, tmp_path)


def test_weights_are_not_begun_where_they_do_not_fit(trained, experiment, tmp_path, monkeypatch):
    folder, result, _ = trained
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(OSError, match=r"No space left on device: '.*detector\.weights\.h5'"):
        train(experiment(), tmp_path, "", Remembering())
    monkeypatch.undo()
    assert train(experiment(), tmp_path, "", Remembering())["metrics"] == result["metrics"]
    assert_same_weights(folder, tmp_path)


def test_pictures_that_vanish_are_named_and_cost_nothing_that_was_finished(experiment, tmp_path):
    settings = replace(experiment(), features=Features(views=2, cache=False, folder=tmp_path / "none"))
    whole = train(settings, tmp_path / "whole", "", Remembering())
    pictures = settings.data.train.examples[0].image.parent

    class Vanishing(Remembering):
        def evaluated(self, look):
            if look.number == 1:
                pictures.rename(tmp_path / "gone")
            return super().evaluated(look)

    with pytest.raises(DataError, match="there is no such file"):
        train(settings, tmp_path / "run", "", Vanishing())
    (tmp_path / "gone").rename(pictures)
    assert train(settings, tmp_path / "run", "", Remembering())["metrics"] == whole["metrics"]
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the run folder, for tests that write into it."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


def test_a_reopened_detector_is_judged_alike(trained, folder, experiment):
    _, result, _ = trained
    before = (folder / "result.json").read_text()
    judged = evaluate(experiment(), folder)
    assert judged == {"split": "test", "metrics": result["metrics"]}
    assert (folder / "result.json").read_text() == before
    validated = evaluate(experiment(judge="validation"), folder)
    assert validated["split"] == "validation"
    for name in ("AP", "AP50", "AR"):
        assert validated["metrics"]["values"][name] == pytest.approx(result["validation"]["values"][name], abs=1e-6)


def test_a_run_of_before_tlx_kept_lists_is_judged_and_nothing_in_it_changes(trained, folder, experiment):
    (folder / ownership.MARKER).unlink()
    (folder / "test.jpg").write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    assert evaluate(experiment(), folder)["metrics"] == trained[1]["metrics"]
    with pytest.raises(TlxError, match="made before it kept a list"):
        train(experiment(), folder, "", Remembering())
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before


def test_a_reopened_detector_does_not_train(trained, experiment):
    settings = experiment()
    detector, parts = reopen(settings.backbone, settings.head, settings.size, trained[0])
    assert detector.classes == ("blue", "red")
    assert parts.suffix is None
    assert detector.network.trainable_weights == []


def relabelled(dataset, classes, order):
    table = np.array(order, np.int32)
    examples = tuple(replace(e, targets=e.targets.relabelled(table)) for e in dataset.examples)
    return replace(dataset, classes=classes, examples=examples)


def test_classes_of_other_data_are_matched_by_name(trained, folder, experiment):
    _, result, _ = trained
    settings = experiment()
    turned = replace(settings.data, test=relabelled(settings.data.test, ("red", "blue"), [1, 0]))
    assert evaluate(replace(settings, data=turned), folder)["metrics"] == result["metrics"]
    foreign = replace(settings.data, test=relabelled(settings.data.test, ("green", "red"), [0, 1]))
    with pytest.raises(DataError, match="no class 'green'"):
        evaluate(replace(settings, data=foreign), folder)


def test_errors_in_the_data_refuse_to_train(experiment, draw, tmp_path):
    convert(draw(6, splits=SPLITS), tmp_path / "voc", "voc")
    (tmp_path / "voc" / "Annotations" / "0.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"the data has 1 errors[\s\S]*Annotations/0\.xml"):
        train(experiment(tmp_path / "voc"), tmp_path / "run", "", Remembering())
    assert not (tmp_path / "run").exists()


def test_a_policy_that_does_not_fit_refuses_to_train(experiment, tmp_path):
    with pytest.raises(ModelError, match="give 0 to 9"):
        train(replace(experiment(), freeze=last_layers(10)), tmp_path, "", Remembering())
    assert not (tmp_path / "result.json").exists()


def test_frozen_weights_that_changed_leave_no_result(experiment, tmp_path, monkeypatch):
    def fit_and_spoil(*arguments):
        history = real(*arguments)
        kernel = arguments[0].detector.network.get_layer("stem_conv").kernel
        kernel.assign(kernel * 2)
        return history

    real = phases.fit
    monkeypatch.setattr(phases, "fit", fit_and_spoil)
    settings = replace(experiment(), fit=Fit(batch_size=8, epochs=1, evaluations=1))
    with pytest.raises(ModelError, match="frozen weights changed"):
        train(settings, tmp_path, "", Remembering())
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("given", "size"), [(320, (320, 320)), ((320, 480), (320, 480))])
def test_one_number_is_a_square(experiment, given, size):
    assert replace(experiment(), image_size=given).size == size


def test_without_a_test_split_validation_is_judged(experiment):
    settings = experiment()
    without = replace(settings, data=replace(settings.data, test=None))
    assert settings.judged[0] == "test"
    assert without.judged == ("validation", settings.data.validation)
    assert replace(settings, judge="validation").judged[0] == "validation"

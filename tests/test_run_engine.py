"""A run says which engine computes its frozen layers and why, and files features under that one."""

import json
import re

import pytest

from tlx.data.splits.parts import Splits
from tlx.engines.litert import LiteRT
from tlx.engines.tensorflow import TensorFlow
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.lazy import tf
from tlx.models.heads.fcos import Fcos
from tlx.policies import head_then_last_layers
from tlx.run import Run, evaluate, train


class Hearing(Listener):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


@pytest.fixture(scope="module", autouse=True)
def untraced():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def experiment(draw, tiny, tmp_path):
    data, features = Splits(draw(4), draw(2, seed=1), draw(2, seed=2)), Features(views=1, folder=tmp_path / "features")
    fit, policy = Fit(batch_size=4, epochs=2, evaluations=2), head_then_last_layers(3, head_share=0.5)
    return lambda **more: Run(data, tiny(dropout=0.3), Fcos(channels=16, depth=1), policy, fit, features, None, **more)


def trained(run, folder):
    listener = Hearing()
    train(run, folder, "", listener)
    return listener.said, json.loads((folder / "model.json").read_text())["engines"]


def test_litert_computes_what_is_frozen_in_each_phase_and_the_run_folder_says_so(experiment, tmp_path):
    run = experiment(image_size=64)
    said, engines = trained(run, tmp_path / "run")
    assert [*engines] == ["1", "2"]
    for why in engines.values():
        assert re.fullmatch(
            rf"{re.escape(LiteRT().key)}: differs from TensorFlow by \S+ of the largest output on 4 .*", why
        )
        assert f"frozen layers are computed by {why}" in said
        assert f"frozen layers are computed by {why}\n" in (tmp_path / "run/run.log").read_text()
    # What was trained is judged by the same engine in another process.
    again = evaluate(run, tmp_path / "run")["metrics"]["values"]
    assert again == pytest.approx(json.loads((tmp_path / "run/result.json").read_text())["metrics"]["values"], abs=1e-3)
    # Features of another engine are not taken for these.
    said, engines = trained(experiment(image_size=64, engine=TensorFlow()), tmp_path / "other")
    assert engines == dict.fromkeys("12", f"{TensorFlow().key}: as run.engine says")
    assert len([line for line in said if "(0 pictures found, 4 computed)" in line]) == 2
    said, _ = trained(run, tmp_path / "third")
    assert len([line for line in said if "(4 pictures found, 0 computed)" in line]) == 2
    # Which caches these were is kept, and how long it took to fill them.
    fills = [json.loads((tmp_path / name / "result.json").read_text())["fill_seconds"] for name in ("run", "third")]
    assert fills[0].keys() == fills[1].keys()
    assert len(fills[0]) == 2
    assert min(fills[0].values()) > 0
    assert set(fills[1].values()) == {0.0}


def test_where_litert_disagrees_tensorflow_computes_and_the_difference_is_told(experiment, tmp_path, monkeypatch):
    plain = LiteRT.compile
    monkeypatch.setattr(LiteRT, "compile", lambda self, model: lambda x: [a + 9 for a in plain(self, model)(x)])
    said, engines = trained(experiment(image_size=64), tmp_path / "run")
    told = [line for line in said if line.startswith("frozen layers")]
    assert len(told) == len(engines) == 2
    for line in told:
        start = rf"frozen layers are computed by {re.escape(TensorFlow().key)}: {re.escape(LiteRT().key)} differs from"
        assert re.match(rf"{start} TensorFlow by \d\S+ of the largest output on 4 pictures, of 1e-04 allowed", line)
    said, _ = trained(experiment(image_size=64, engine=TensorFlow()), tmp_path / "other")
    assert len([line for line in said if "(4 pictures found, 0 computed)" in line]) == 2

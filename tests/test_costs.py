"""What a trained detector costs."""

import json
from types import SimpleNamespace

import pytest

from tlx import checkpoint, costs
from tlx.data import recent
from tlx.data.images import open_image
from tlx.engines.auto import Auto
from tlx.models.detector import build
from tlx.models.heads.fcos import Fcos
from tlx.runfolder import WEIGHTS, save_weights
from tlx.windows import WholePicture


def test_every_cost_is_measured_of_a_trained_detector(tmp_path, draw, tiny, heard, monkeypatch):
    dataset, head = draw(3), Fcos(channels=8, depth=1)
    detector = build(tiny(), head, dataset.classes, (64, 64))
    save_weights(detector, tmp_path)
    for name, content in (("data.json", {"classes": dataset.classes}), ("result.json", {"seconds": 12.5})):
        checkpoint.write(tmp_path / name, json.dumps(content).encode())
    run = SimpleNamespace(backbone=tiny(), head=head, size=(64, 64), precision="float32", resize="letterbox")
    run.image_size, run.windows = 64, WholePicture()
    run.engine, run.data = Auto(), SimpleNamespace(validation=dataset)
    opened = []
    monkeypatch.setattr(recent, "open_image", lambda path: opened.append(path) or open_image(path))
    found = costs.measure(run, tmp_path, [*costs.COSTS], heard)
    assert found.keys() == costs.COSTS.keys()
    assert found["train_seconds"] == 12.5
    assert found["size_mb"] == (tmp_path / WEIGHTS).stat().st_size / 1e6
    assert found["parameters"] == detector.model.count_params()
    assert found["latency_ms"] > 0
    what = "measuring latency_ms, size_mb, parameters, train_seconds"
    assert heard.told == [(what, done, 3) for done in (0, 0, 1, 2, 3)]
    # Each pass over each picture decodes it; so may what is done before the first.
    assert min(opened.count(example.image) for example in dataset.examples) >= 3


def test_what_needs_no_network_builds_none(tmp_path, heard, monkeypatch):
    (tmp_path / WEIGHTS).write_bytes(b"0" * 2000)
    (tmp_path / "result.json").write_text(json.dumps({"seconds": 3.0}))
    monkeypatch.setattr(costs, "reopen", lambda *_: pytest.fail("it was built"))
    wanted = ["train_seconds", "size_mb"]
    assert costs.measure(None, tmp_path, wanted, heard) == {"train_seconds": 3.0, "size_mb": 0.002}
    assert heard.told == [("measuring train_seconds, size_mb", 0, 1), ("measuring train_seconds, size_mb", 1, 1)]

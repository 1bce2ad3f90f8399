"""`benchmarks/peers.py`: what it writes, and its page; that every program works is shown by `--quick`, not here."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BCCD = BENCHMARKS.parents[1] / "shared/data/voc_bccd"


@pytest.fixture
def performance(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("performance")


def run(tool, what, turn=1, rate=10.0, first=5.0, **more):
    """Return a run of 20 updates: the first after `first` seconds, the next few slowly, and then `rate` images/s."""
    updates = [100 + first + 2 * i for i in range(5)]
    updates += [updates[-1] + 8 / rate * i for i in range(1, 16)]
    row = {"tool": tool, "what": what, "turn": turn, "began": 100.0, "seconds": 60.0, "others": 0.02, "load": 1.0}
    told = {"updates": updates, "judged": updates[-1] + 1, "predicted": {}, "versions": {}, "moments": {"ready": 103.0}}
    return row | told | more


def figures(*runs, **titles):
    machine = {"processor": "a processor", "cores": 2}
    return {"machine": machine, "date": "2026-11-26", "pictures": [160, 40], "titles": titles, "runs": list(runs)}


def test_speed_and_epoch_leave_the_first_updates_out(performance):
    one = run("tlx", "all", rate=10.0, first=5.0)
    assert performance.speed(one) == pytest.approx(10.0)
    assert performance.first_step(one) == 5.0
    assert performance.epoch(one, 160) == pytest.approx(160 / 10 + 1)


def test_the_page_says_which_goals_are_reached_and_what_limits_the_others(performance):
    limits = {
        "peak_gflops": 200.0,
        "frozen": {"gflop": 1.5, "seconds": {"gradients": 0.07, "step": 0.01, "depthwise": 0.0}},
        "all": {"gflop": 3.0, "seconds": {"gradients": 0.5, "step": 0.02, "depthwise": 0.3}},
    }
    best = {"trials": 20, "pruned": 4, "seconds": [20.0] * 20, "split": "validation", "test": {"AP": 0.5, "AP50": 0.8}}
    found = figures(
        run("tlx", "versions", tensorflow_import=4.0, versions={"tensorflow": "2.21.0"}),
        *(run("tlx", "frozen", turn, rate, first) for turn, rate, first in ((1, 80.0, 30.0), (2, 100.0, 8.0))),
        run("tlx", "all", rate=9.0, predicted={"LiteRT": [50.0, 60.0, 70.0], "LiteRT, backbone alone": [80.0]}),
        run("tlx", "limits", limits=limits),
        run("tlx", "search", seconds=400.0, best=best),
        *(run("yolo", "frozen", turn, 20.0, 6.0) for turn in (1, 2)),
        run("yolo", "all", rate=16.0, predicted={"": [50.0]}),
        {"tool": "absent", "what": "versions", "turn": 0, "failed": "not installed: there is no /python"},
        tlx="tlx",
        yolo="YOLO",
        absent="Absent",
    )
    lines = performance.page(json.loads(json.dumps(found))).splitlines()
    assert "| tlx | 90.0 | 9.0 | 60.0 | 30.0 | 8.0 |" in lines
    assert any(line.startswith("| Absent: not installed") for line in lines)
    goals = [line.strip("| ").split(" | ") for line in lines[lines.index("## Goals") : lines.index("## Versions")]]
    said = "\n".join(f"{row[0]} = {row[2]}" for row in goals if len(row) == 3)
    assert "frozen backbone: at least 10 x the fastest peer = no: 200 images/s at 1.50 GFLOP each would be 300" in said
    assert "300 ms of it depthwise layers alone" in said
    assert "prediction (LiteRT): at least 1.2 x the fastest peer = yes" in said
    assert (
        "first step (frozen, first run): no later than the fastest peer's and TensorFlow's import (4.0 s) = no" in said
    )
    assert (
        "first step (frozen, later runs): no later than the fastest peer's and TensorFlow's import (4.0 s) = yes"
        in said
    )
    # 50 x (160 / 16 + 1) + 5 = 555 s.
    assert "| 400 s against 555 s (YOLO) | yes |" in "\n".join(lines)
    assert "- tlx: tensorflow 2.21.0" in lines


@pytest.mark.skipif(not BCCD.exists(), reason="../shared/data is not here")
def test_all_tools_are_given_the_same_boxes(tmp_path):
    script = "import peers, sys; from pathlib import Path; peers._draw(Path(sys.argv[1]), Path(sys.argv[2]), 3, 2)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), *sys.path])}
    subprocess.run([sys.executable, "-c", script, BCCD, tmp_path / "data"], check=True, env=environment)
    for split, count in (("train", 3), ("val", 2)):
        content = json.loads((tmp_path / f"data/annotations/instances_{split}.json").read_text())
        listed = (tmp_path / f"data/{split}.txt").read_text().split()
        assert [Path(line).name for line in listed] == [image["file_name"] for image in content["images"]]
        assert len(listed) == count
        for file, image in zip(listed, content["images"], strict=True):
            assert Path(file).exists()
            rows = np.loadtxt(tmp_path / "data/labels" / f"{Path(file).stem}.txt", ndmin=2)
            own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            sides = np.array([one["bbox"] for one in own]) / (2 * [image["width"], image["height"]])
            assert rows[:, 0].tolist() == [one["category_id"] - 1 for one in own]
            np.testing.assert_allclose(rows[:, 1:3], sides[:, :2] + sides[:, 2:] / 2, atol=1e-6)
            np.testing.assert_allclose(rows[:, 3:], sides[:, 2:], atol=1e-6)

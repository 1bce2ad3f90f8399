"""The benchmarks run as their first lines say, on tiny settings: what they measure is for people to look at."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = {
    "engines": ["--size=64", "--batch=2", "--rounds=1"],
    "features": ["--size=64", "--batch=2", "--rounds=1"],
    "search": ["--seconds=0.1", "--trials=2"],
}


@pytest.mark.parametrize("name", TINY)
def test_a_benchmark_runs_and_writes_its_figures(tmp_path, name):
    if name != "search" and os.environ.get("TLX_SLOW") != "1":
        pytest.skip("TLX_SLOW=1 builds and trains networks")
    script = shutil.copy(BENCHMARKS / f"{name}.py", tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS.parent), *filter(None, sys.path)])}
    command = [sys.executable, script, *TINY[name]]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / f"{name}.json").read_text())
    if name == "features":
        assert min(figures["cached"] + figures["uncached"]) > 0
    elif name == "engines":
        assert {row["engine"].split()[0] for row in figures["rows"]} >= {"tensorflow", "litert"}
        assert all(len(row[what]) == 1 for row in figures["rows"] for what in ("backbone", "whole"))
    else:
        assert [(row["workers"], row["finished"]) for row in figures["rows"]] == [(1, 2), (4, 2)]


def test_looks_tell_how_well_each_look_ranks_the_ends(tmp_path):
    # The first look ranks four runs the wrong way round, the second as they end.
    for number, scores in enumerate(([0.4, 0.5, 0.5], [0.3, 0.6, 0.6], [0.2, 0.7, 0.7], [0.1, 0.8, 0.8])):
        folder = tmp_path / "search" / "trials" / str(number)
        folder.mkdir(parents=True)
        looks = [{"metrics": {"primary": "AP", "values": {"AP": score}}} for score in scores]
        (folder / "history.jsonl").write_text("".join(json.dumps(look) + "\n" for look in looks))
        for name, content in (
            ("model", {"size": [64, 64], "layers": [{"trains": [False]}]}),
            ("data", {"fingerprint": "abc"}),
            ("result", {}),
        ):
            (folder / f"{name}.json").write_text(json.dumps(content))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS.parent), *filter(None, sys.path)])}
    command = [sys.executable, BENCHMARKS / "looks.py", tmp_path]
    done = subprocess.run(command, check=False, env=environment | {"COLUMNS": "200"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    assert [row[:4] for row in rows] == [
        ["1", "-1.00", "-1.00", "-"],
        ["2", "1.00", "1.00", "-"],
        ["3", "1.00", "1.00", "-"],
    ]

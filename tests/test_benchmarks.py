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

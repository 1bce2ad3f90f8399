"""A thousand broken datasets of all formats: each is one located error, or located findings, or makes sense."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
# Halves that take about as long as each other, for two processes.
HALVES = (
    ("voc", "kitti", "coco", "labelbox v1", "labelbox 2018", "labelbox v2"),
    ("tfrecord", "folder", "zip", "manifest", "index", "label map", "images"),
)
AT_LEAST = 300


def script(name, *arguments):
    """Start one of the scripts beside this file."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    # What NumPy would keep for its threads is no reader's memory.
    quiet = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet)


def test_broken_datasets():
    children = [script("judge.py", *half) for half in HALVES]
    verdicts = {}
    for child in children:
        output, errors = child.communicate(timeout=300)
        for line in output.splitlines():
            row = json.loads(line)
            verdicts[row["format"], row["case"]] = row["verdict"]
        assert child.returncode == 0, errors[-3000:]

    faults = {case: verdict for case, verdict in verdicts.items() if verdict not in ("error", "finding", "sound")}
    assert faults == {}
    whole = {name: verdicts[name, "nothing broken"] for name, case in verdicts if case == "nothing broken"}
    assert whole == dict.fromkeys((name for half in HALVES for name in half), "sound")
    counts = Counter(verdicts.values())
    assert counts["error"] + counts["finding"] >= AT_LEAST
    assert counts["error"] >= AT_LEAST / 3
    assert counts["sound"] < 0.3 * len(verdicts)


def test_a_short_run_of_the_fuzzer():
    child = script("fuzz.py", "--cases", 150)
    output, errors = child.communicate(timeout=300)
    assert child.returncode == 0, output[-3000:] + errors[-3000:]
    assert "found nothing" in output

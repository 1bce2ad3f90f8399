"""What a run folder says beside the training itself: what is needed to repeat the run, and what was done."""

import errno
import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlx import checkpoint, ownership
from tlx import memory as usage
from tlx.data.dataset import Dataset
from tlx.data.splits.policies import Splits
from tlx.errors import DataError
from tlx.history import History
from tlx.models.detector import Detector
from tlx.models.graph import WeightLayer
from tlx.tasks.task import task_of

WEIGHTS = "detector.weights.h5"
_MODEL = "model.json"
# By how much more than the weights themselves the file of the weights may take.
_ROOM = 1.5
_PACKAGES = ("tlx", "tensorflow", "keras", "optuna", "gin-config", "numpy", "pillow", "pycocotools")


def describe(data: Splits, folder: Path, config: str) -> str:
    """Write what is needed to repeat a run: its configuration, its environment, and which data in which split.

    Returns the data's fingerprint.

    Raises:
      DataError: the folder holds a run on other data.
    """
    ownership.take(folder, "run")
    fingerprint = data.fingerprint()
    before = folder / "data.json"
    if before.exists() and json.loads(before.read_text())["fingerprint"] != fingerprint:
        raise DataError(f"the data has changed since the run in {folder} began; use another --run_dir, or --overwrite")
    checkpoint.write(folder / "config.gin", config.encode())
    environment = {
        "command": sys.argv,
        "directory": os.getcwd(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }
    _write(folder / "environment.json", environment)
    known = {
        "fingerprint": fingerprint,
        "task": data.train.task,
        "classes": data.train.classes,
        "splits": data.lists(),
        "findings": [str(finding) for finding in data.findings],
    }
    _write(before, known)
    return fingerprint


def describe_model(run: Any, detector: Detector, layers: Sequence[WeightLayer], folder: Path) -> None:
    """Write `model.json`: what was restored, what of the backbone trains in which phase, and what is augmented.

    `run` is a `tlx.run.Run`, and `layers` are the backbone's weight layers.
    """
    restored = detector.restored
    phases = [phase.choose(layers) for phase in run.freeze.phases]
    rows = [
        {
            "name": layer.name,
            "block": layer.block,
            "weights": sum(part.count_params() for part in layer.layers),
            "trains": [trains[i] for trains in phases],
        }
        for i, layer in enumerate(layers)
    ]
    model = {
        "backbone": run.backbone.name,
        "head": repr(run.head),
        "size": list(run.size),
        "resize": run.resize,
        "tiles": repr(run.tiles),
        "augment": repr(run.augment),
        "restored": restored
        and {
            "weights": restored.restored,
            "of": restored.total,
            "missing": list(restored.missing),
            "mismatched": list(restored.mismatched),
        },
        "freeze": run.freeze.name,
        "shares": [phase.share for phase in run.freeze.phases],
        "layers": rows,
        "engines": {},
    }
    _write(folder / _MODEL, model)


def describe_engine(folder: Path, phase: int, engine: str) -> None:
    """Add to `model.json` what computes the frozen part in a phase, counted from 1, and why.

    Those of phases before an interruption are in `run.log` alone.
    """
    model = json.loads((folder / _MODEL).read_text())
    model["engines"][str(phase)] = engine
    _write(folder / _MODEL, model)


def trained_size(folder: Path) -> tuple[int, int]:
    """Return the (height, width) of the input that the run in a folder was trained at."""
    height, width = json.loads((folder / _MODEL).read_text())["size"]
    return height, width


def write_predictions(folder: Path, split: str, dataset: Dataset, found: Sequence[Any]) -> None:
    """Write `predictions-SPLIT.json`: the task's rows for each picture of a split, in the order of `data.json`."""
    task = task_of(dataset.task)
    listed = json.loads((folder / "data.json").read_text())["splits"][split]
    seen = zip(enumerate(listed), found, strict=True)
    rows = [row for (number, name), one in seen for row in task.results(name, number, one, dataset.classes)]
    _write(folder / f"predictions-{split}.json", rows)


def account(history: History) -> dict[str, Any]:
    """Return what `result.json` says about how a run went."""
    return {
        "validation": history.best.metrics,
        "best_update": history.best.update,
        "updates": history.best.updates,
        # Why the training ended: at its end, or before it.
        "ended": "converged" if history.converged else "stopped" if history.stopped else "finished",
        # What fits whatever trains; a run that an earlier version has finished has no numbers by phase.
        "micro_batch": min(filter(None, history.micro_batches), default=1),
        "micro_batches": history.micro_batches,
        "halved": history.halved,
        "images_per_second": history.images_per_second,
        # Runs that share a cache do not fill it again: this says what it cost, and which one it was.
        "fill_seconds": history.fills,
        "peak_memory_bytes": usage.peak(),
    }


def save_weights(detector: Detector, folder: Path) -> None:
    """Write the detector's weights so that a crash leaves the old file or the new one."""
    partial = ownership.fresh(folder / f"partial-{WEIGHTS}")
    ownership.claim(folder / WEIGHTS)
    if shutil.disk_usage(folder).free < _ROOM * sum(v.numpy().nbytes for v in detector.model.variables):
        # The library that writes them takes the whole process down where a disk is full.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))
    detector.model.save_weights(partial)
    checkpoint.settle(partial, folder / WEIGHTS)
    ownership.renamed(partial)


def _write(path: Path, content: Any) -> None:
    checkpoint.write(path, json.dumps(content, indent=1).encode())

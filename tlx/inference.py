"""A trained detector on pictures that nobody labelled: JSON, and the pictures with what was found."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlx import checkpoint, config
from tlx.config import Experiment
from tlx.data.dataset import Dataset, Example
from tlx.data.images import SUFFIXES, open_image
from tlx.errors import DataError
from tlx.evaluate import Detections
from tlx.predict import predict
from tlx.report.pictures import draw
from tlx.run import reopen


def predict_pictures(
    experiment: Experiment, folder: Path, paths: Sequence[Path], target: Path, min_score: float
) -> tuple[int, list[str]]:
    """Write the detections for pictures, and for all in folders, to `target`.

    `predictions.json` lists for each picture its size and its detections, best first; drawn are those that
    score at least `min_score`. The experiment's own dataset is not opened. Returns how many pictures there
    were, and what kept others from being read, which `predictions.json` lists with their "error".

    Raises:
      DataError: a path does not exist, or a folder holds no picture.
    """
    given = experiment.trees["run"].arguments
    size = experiment.value("run.image_size")
    height_width = (size, size) if isinstance(size, int) else size
    precision = experiment.value("run.precision")
    detector, cut = reopen(
        config.build(given["backbone"]), config.build(given["head"]), height_width, folder, precision
    )
    examples, listed = _read([picture for path in paths for picture in _pictures(path)])
    pictures, resize = Dataset("pictures", detector.classes, tuple(examples)), experiment.value("run.resize")
    found = predict(detector, cut, pictures, resize=resize) if examples else []
    target.mkdir(parents=True, exist_ok=True)
    errors = [row["error"] for row in listed]
    for number, (example, seen) in enumerate(zip(examples, found, strict=True)):
        drawn = target / f"{number:04d}-{example.image.stem}.jpg"
        draw(open_image(example.image), seen, None, detector.classes, min_score).save(drawn, quality=90)
        listed.append(_row(example, seen, detector.classes, drawn.name))
    checkpoint.write(target / "predictions.json", json.dumps(listed, indent=1).encode())
    return len(examples), errors


def _read(pictures: list[Path]) -> tuple[list[Example], list[dict[str, Any]]]:
    """Return the pictures that can be decoded, and a row for each that cannot."""
    readable, damaged = [], []
    for picture in pictures:
        try:
            width, height = open_image(picture).size
        except DataError as error:
            damaged.append({"image": str(picture.absolute()), "error": str(error)})
            continue
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.bool_)
        readable.append(Example(picture.absolute(), width, height, *nothing))
    return readable, damaged


def _row(example: Example, seen: Detections, classes: tuple[str, ...], drawn: str) -> dict[str, Any]:
    columns = zip(seen.boxes.tolist(), seen.scores.tolist(), seen.labels.tolist(), strict=True)
    detections = [{"class": classes[label], "score": score, "box": box} for box, score, label in columns]
    size = {"width": example.width, "height": example.height}
    return {"image": str(example.image), **size, "drawn": drawn, "detections": detections}


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise DataError(f"{path} holds no picture ({', '.join(sorted(SUFFIXES))})")
        return inside
    if not path.exists():
        raise DataError(f"there is no picture or folder {path}")
    return [path]

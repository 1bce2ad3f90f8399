"""A trained detector on pictures that nobody labelled: JSON, and the pictures with what was found."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlx import checkpoint, config
from tlx.config import Experiment
from tlx.data.dataset import Dataset, Example
from tlx.data.images import SUFFIXES, image_size, open_image
from tlx.errors import DataError
from tlx.predict import predict
from tlx.report.pictures import draw
from tlx.run import reopen


def predict_pictures(
    experiment: Experiment, folder: Path, paths: Sequence[Path], target: Path, min_score: float
) -> int:
    """Write the detections for pictures, and for all in folders, to `target`, and return how many pictures there are.

    `predictions.json` lists for each picture its size and its detections, best first; drawn are those that
    score at least `min_score`. The experiment's own dataset is not opened.

    Raises:
      DataError: a path does not exist, holds no picture, or a picture cannot be read.
    """
    tree = experiment.trees["run"]
    parts = {name: config.build(tree.arguments[name]) for name in ("backbone", "head")}
    defaults = {name: tree.arguments.get(name, tree.entry.parameters[name].default) for name in ("image_size",)}
    size = defaults["image_size"]
    detector, cut = reopen(parts["backbone"], parts["head"], (size, size) if isinstance(size, int) else size, folder)
    pictures = [picture for path in paths for picture in _pictures(path)]
    dataset = Dataset("pictures", detector.classes, tuple(_unlabelled(picture) for picture in pictures))
    found = predict(detector, cut, dataset)
    target.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, (example, seen) in enumerate(zip(dataset.examples, found, strict=True)):
        rows = zip(seen.boxes.tolist(), seen.scores.tolist(), seen.labels.tolist(), strict=True)
        boxes = [{"class": detector.classes[label], "score": score, "box": box} for box, score, label in rows]
        drawn = target / f"{number:04d}-{example.image.stem}.jpg"
        draw(open_image(example.image), seen, None, detector.classes, min_score).save(drawn, quality=90)
        listed.append(
            {
                "image": str(example.image),
                "width": example.width,
                "height": example.height,
                "drawn": drawn.name,
                "detections": boxes,
            }
        )
    checkpoint.write(target / "predictions.json", json.dumps(listed, indent=1).encode())
    return len(listed)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        if not inside:
            raise DataError(f"{path} holds no picture ({', '.join(sorted(SUFFIXES))})")
        return inside
    if not path.exists():
        raise DataError(f"there is no picture or folder {path}")
    return [path]


def _unlabelled(picture: Path) -> Example:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.bool_)
    return Example(picture.absolute(), *image_size(picture), *nothing)

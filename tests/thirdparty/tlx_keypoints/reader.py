"""A format of its own: one `keypoints.json` beside its pictures."""

import json
from pathlib import Path

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.images import image_size
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers
from tlx_keypoints.targets import Keypoints

FILE = "keypoints.json"


def _sniff(path: Path) -> Sniff:
    there = (path / FILE).is_file()
    return Sniff(there, f"there is {'a' if there else 'no'} {FILE}")


@readers.register("keypoints", sniff=_sniff)
def keypoints(path: Path) -> Dataset:
    """Pictures with objects and their points, as `keypoints.json` lists them.

    It holds {"classes": [...], "pictures": [{"image", "split", "objects": [{"class", "box", "points"}]}]}; a point is
    [x, y] or, where it is hidden, null.

    Raises:
      DataError: the file is missing, or not of this form.
    """
    file = path / FILE
    try:
        told = json.loads(file.read_text())
        classes = tuple(told["classes"])
        examples = tuple(_example(path, f"{FILE} ({i})", row, classes) for i, row in enumerate(told["pictures"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"readers.keypoints: {file}: {type(error).__name__}: {error}") from error
    findings = [
        Finding("hidden-points", "info", e.image.name, e.record, "some of its points are hidden")
        for e in examples
        if not e.targets.visible.all()
    ]
    return Dataset(path.name, classes, examples, tuple(findings), task=Keypoints.task)


def _example(root: Path, record: str, row: dict, classes: tuple[str, ...]) -> Example:
    image, objects = root / row["image"], row["objects"]
    points = [[(0, 0) if point is None else point for point in one["points"]] for one in objects]
    targets = Keypoints(
        np.array([one["box"] for one in objects], np.float32).reshape(-1, 4),
        np.array([classes.index(one["class"]) for one in objects], np.int32),
        np.array(points, np.float32),
        np.array([[point is not None for point in one["points"]] for one in objects], np.bool_),
    )
    return Example(image, *image_size(image), targets, record, split=row.get("split", ""))

"""Labelbox exports, version 2: one line of JSON for each image."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.place import Place, names
from tlx.data.unheld import Unheld, encodable
from tlx.registry import writers

FILE = "export.ndjson"


@writers.register("labelbox")
def labelbox(dataset: Dataset, target: Path, place: Place) -> list[Finding]:
    """Labelbox export v2: boxes in `export.ndjson`, images in `images`, found by external id and global key.

    Neither ignored boxes, which are left out, nor splits can be held. Format: docs.labelbox.com, export v2.

    Args:
      dataset: what to write.
      target: an empty folder.
      place: puts the images there.
    """
    unheld = Unheld("Labelbox", dataset)
    for example in (example for example in dataset.examples if example.split):
        unheld.add("images of a declared split; written without it", example)
    classes = unheld.renamed(dataset.classes, encodable)
    with (target / FILE).open("wb") as file:
        for name, example in zip(names(dataset.examples), dataset.examples, strict=True):
            place(example.image, target / "images" / name)
            row = _row(name, example, [_object(box, classes[label]) for box, label in _boxes(example, unheld)])
            file.write(msgspec.json.encode(row) + b"\n")
    return unheld.findings()


def _boxes(example: Example, unheld: Unheld) -> Iterator[tuple[list[float], int]]:
    objects = example.objects
    for box, label, ignored in zip(objects.boxes, objects.labels.tolist(), objects.ignore, strict=True):
        if ignored:
            unheld.add("ignored boxes; left out, which makes background of them", example, box)
        else:
            yield box.tolist(), label


def _object(box: list[float], name: str) -> dict[str, Any]:
    x_min, y_min, x_max, y_max = box
    return {
        "name": name,
        "value": name,
        "annotation_kind": "ImageBoundingBox",
        "classifications": [],
        "bounding_box": {"top": y_min, "left": x_min, "height": y_max - y_min, "width": x_max - x_min},
    }


def _row(name: str, example: Example, objects: list[dict[str, Any]]) -> dict[str, Any]:
    annotations = {"objects": objects, "classifications": [], "relationships": []}
    return {
        "data_row": {"id": name, "external_id": name, "global_key": name},
        "media_attributes": {"height": example.height, "width": example.width, "asset_type": "image"},
        "projects": {"tlx": {"name": "tlx", "labels": [{"label_kind": "Default", "annotations": annotations}]}},
    }

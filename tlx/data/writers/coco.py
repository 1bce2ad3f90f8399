"""COCO instances files: one JSON for each split, and the images."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.place import Place, names
from tlx.data.unheld import Unheld, encodable
from tlx.data.writers.lists import FILES
from tlx.registry import writers


@writers.register("coco")
def coco(dataset: Dataset, target: Path, place: Place) -> list[Finding]:
    """COCO: images in `images`, boxes in `annotations/instances_train.json`, `..._val.json` and `..._test.json`.

    Images that declare no split are in `instances.json`. Ignored boxes become crowds. Ids count from 1,
    through all files. Ignore regions of no class cannot be held. Format: cocodataset.org/#format-data.

    Args:
      dataset: what to write.
      target: an empty folder.
      place: puts the images there.
    """
    unheld = Unheld("COCO", dataset)
    classes = unheld.renamed(dataset.classes, encodable)
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(classes, 1)]
    files = names(dataset.examples)
    contents: dict[str, dict[str, Any]] = {}
    annotations = 0
    for number, (name, example) in enumerate(zip(files, dataset.examples, strict=True), 1):
        place(example.image, target / "images" / name)
        empty = {"images": [], "annotations": [], "categories": categories}
        part = f"instances_{FILES[example.split]}" if example.split else "instances"
        content = contents.setdefault(part, empty)
        content["images"].append({"id": number, "file_name": name, "width": example.width, "height": example.height})
        boxes = _annotations(example, number, annotations, unheld)
        annotations += len(boxes)
        content["annotations"] += boxes
    (target / "annotations").mkdir()
    for part, content in contents.items():
        (target / "annotations" / f"{part}.json").write_bytes(msgspec.json.encode(content))
    return unheld.findings()


def _annotations(example: Example, image: int, before: int, unheld: Unheld) -> list[dict[str, Any]]:
    written = ~unheld.classless(example)
    objects = example.objects
    boxes = objects.boxes[written].astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    kinds = zip(boxes.tolist(), objects.labels[written].tolist(), objects.ignore[written].tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": label + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(ignored),
            "segmentation": [],
        }
        for number, (box, label, ignored) in enumerate(kinds, before + 1)
    ]

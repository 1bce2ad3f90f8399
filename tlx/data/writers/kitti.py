"""KITTI object detection folders: image_2, label_2 and ImageSets."""

from pathlib import Path

import numpy as np

from tlx.data.dataset import Dataset, Finding
from tlx.data.place import Place, names
from tlx.data.targets import ANY_CLASS
from tlx.data.unheld import Unheld, encodable
from tlx.data.writers.lists import write_lists
from tlx.registry import writers

_ANYTHING = "DontCare"
# What KITTI itself writes for a region whose truncation, occlusion and angle, then whose place in space, is unknown.
_UNKNOWN = "-1 -1 -10", "-1 -1 -1 -1000 -1000 -1000 -10"


@writers.register("kitti")
def kitti(dataset: Dataset, target: Path, place: Place) -> list[Finding]:
    """KITTI object detection: images in `image_2`, a text file for each in `label_2`, splits in `ImageSets`.

    Images keep their names and formats. All ignored boxes become DontCare, which KITTI's readers and its
    evaluation ignore, at the price of the class: `occluded` 3 would keep that, but is ignored by few. Objects
    are written as fully visible and of unknown place in space. White space in class names, which separates
    columns, becomes "_". Format: readme.txt of the object development kit,
    cvlibs.net/datasets/kitti/eval_object.php.

    Args:
      dataset: what to write.
      target: an empty folder.
      place: puts the images there.
    """
    unheld = Unheld("KITTI", dataset)
    classes = [*unheld.renamed(dataset.classes, _word), _ANYTHING]
    files = names(dataset.examples)
    (target / "label_2").mkdir()
    for name, example in zip(files, dataset.examples, strict=True):
        place(example.image, target / "image_2" / name)
        objects = example.objects
        for box in objects.boxes[objects.ignore & (objects.labels != ANY_CLASS)]:
            unheld.add(f"ignored boxes of a class; written as {_ANYTHING}, without their class", example, box)
        labels = np.where(objects.ignore, ANY_CLASS, objects.labels)
        lines = [_line(classes[label], box) for label, box in zip(labels, objects.boxes, strict=True)]
        (target / "label_2" / f"{Path(name).stem}.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
    write_lists(target / "ImageSets", dataset.examples, [Path(name).stem for name in files])
    return unheld.findings()


def _word(name: str) -> str:
    # A byte order mark at a file's start would be taken for one.
    word = "_".join(encodable(name).replace("\ufeff", " ").split())
    return f"{word}_" if word.lower() == _ANYTHING.lower() else word


def _line(name: str, box: np.ndarray) -> str:
    seen, space = _UNKNOWN
    corners = " ".join(f"{side:.9g}" for side in box)
    return f"{name} {seen if name == _ANYTHING else '0.00 0 -10'} {corners} {space}\n"

"""Writes a dataset as a Pascal VOC folder: JPEGImages, Annotations and ImageSets/Main."""

import os
import shutil
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from tlx.data.dataset import Dataset, Example
from tlx.errors import DataError

IMAGE_SETS = {"train": "train", "validation": "val", "test": "test"}
_TO_ONE_BASED = (1, 1, 0, 0)


def write_voc(dataset: Dataset, folder: Path) -> None:
    """Write a dataset as a new Pascal VOC folder, which appears whole or not at all.

    Images are copied byte for byte. Coordinates become 1-based with an inclusive maximum, so a box
    (x_min, y_min, x_max, y_max) is written as (x_min + 1, y_min + 1, x_max, y_max), with decimals only
    where it has them. Ignored boxes become `difficult`. Examples that name no split are in no image set.

    Raises:
      DataError: the folder exists and is not empty, two images have the same name up to the extension,
        a box is an ignore region of no class, or is at most one pixel wide or high. VOC cannot say these:
        with inclusive coordinates such a box has corners that are equal or the wrong way round.
    """
    check_free(folder)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        whole = Path(work) / "voc"
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (whole / part).mkdir(parents=True)
        taken: dict[str, Path] = {}
        for example in dataset.examples:
            stem = example.image.stem
            if stem in taken:
                raise DataError(f"{taken[stem]} and {example.image} would have the same VOC name {stem!r}: rename one")
            taken[stem] = example.image
            shutil.copyfile(example.image, whole / "JPEGImages" / example.image.name)
            (whole / "Annotations" / f"{stem}.xml").write_text(_annotation(example, dataset.classes), encoding="utf-8")
        for split, file in IMAGE_SETS.items():
            stems = [f"{example.image.stem}\n" for example in dataset.examples if example.split == split]
            if stems:
                (whole / "ImageSets/Main" / f"{file}.txt").write_text("".join(stems), encoding="utf-8")
        move_into_place(whole, folder)


def check_free(folder: Path) -> None:
    """Make the parent of a folder that is to be written, and refuse one that holds anything.

    Raises:
      DataError: the folder exists and is not an empty folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty: name a new folder, nothing is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)


def move_into_place(whole: Path, folder: Path) -> None:
    """Rename a finished folder to its final name, unless somebody else filled that meanwhile.

    Raises:
      DataError: the final folder is not free any more.
    """
    try:
        os.replace(whole, folder)
    except OSError as error:
        raise DataError(f"cannot move the finished folder to {folder}: {error.strerror}") from error


def _annotation(example: Example, classes: tuple[str, ...]) -> str:
    where = example.record or example.image
    lines = [
        "<annotation>",
        f"\t<filename>{escape(example.image.name)}</filename>",
        f"\t<size><width>{example.width}</width><height>{example.height}</height><depth>3</depth></size>",
    ]
    for box, label, ignore in zip(example.boxes, example.labels, example.ignore, strict=True):
        if label < 0:
            raise DataError(f"{where}: VOC has no ignore region without a class")
        if (box[2:] - box[:2]).min() <= 1:
            raise DataError(f"{where}: VOC has no box of at most one pixel in width or height, such as {box.tolist()}")
        x_min, y_min, x_max, y_max = (_number(value) for value in box.astype(np.float64) + _TO_ONE_BASED)
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(classes[label])}</name>",
            f"\t\t<difficult>{int(ignore)}</difficult>",
            f"\t\t<bndbox><xmin>{x_min}</xmin><ymin>{y_min}</ymin><xmax>{x_max}</xmax><ymax>{y_max}</ymax></bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.9g}"

"""Pascal VOC folders: JPEGImages, Annotations and ImageSets/Main."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.place import Place, names
from tlx.data.unheld import Unheld
from tlx.data.writers.lists import write_lists
from tlx.registry import writers

# Characters that XML 1.0 has no way to write, and the carriage return, which it reads as a line feed.
_NOT_XML = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
# Readers tell a box of one pixel from a click without a drag only by unequal corners.
_ONE_PIXEL = 5e-4


@writers.register("voc")
def voc(dataset: Dataset, target: Path, place: Place) -> list[Finding]:
    """Pascal VOC: images in `JPEGImages`, an XML file for each in `Annotations`, splits in `ImageSets/Main`.

    Coordinates become 1-based with an inclusive maximum, so a box (x_min, y_min, x_max, y_max) is written
    as (x_min + 1, y_min + 1, x_max, y_max), with decimals only where it has them. Ignored boxes become
    `difficult`. Ignore regions of no class cannot be held, nor can boxes of less than one pixel, which are
    widened to one. Format: the VOC2012 development kit, host.robots.ox.ac.uk/pascal/VOC.

    Args:
      dataset: what to write.
      target: an empty folder.
      place: puts the images there.
    """
    unheld = Unheld("VOC", dataset)
    classes = unheld.renamed(dataset.classes, lambda name: _NOT_XML.sub("_", name))
    files = names(dataset.examples)
    (target / "Annotations").mkdir()
    for name, example in zip(files, dataset.examples, strict=True):
        place(example.image, target / "JPEGImages" / name)
        text = _annotation(name, example, classes, unheld)
        (target / "Annotations" / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8", newline="\n")
    write_lists(target / "ImageSets/Main", dataset.examples, [Path(name).stem for name in files])
    return unheld.findings()


def _annotation(name: str, example: Example, classes: Sequence[str], unheld: Unheld) -> str:
    lines = [
        "<annotation>",
        f"\t<filename>{escape(name)}</filename>",
        f"\t<size><width>{example.width}</width><height>{example.height}</height><depth>3</depth></size>",
    ]
    written = ~unheld.classless(example)
    boxes, labels, ignore = (array[written] for array in example.objects.arrays.values())
    for box, label, ignored in zip(boxes, labels, ignore, strict=True):
        x_min, y_min, x_max, y_max = (_number(value) for value in _corners(box, example, unheld))
        lines += [
            "\t<object>",
            f"\t\t<name>{escape(classes[label])}</name>",
            f"\t\t<difficult>{int(ignored)}</difficult>",
            f"\t\t<bndbox><xmin>{x_min}</xmin><ymin>{y_min}</ymin><xmax>{x_max}</xmax><ymax>{y_max}</ymax></bndbox>",
            "\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _corners(box: np.ndarray, example: Example, unheld: Unheld) -> np.ndarray:
    low, high = np.split(box.astype(np.float64), 2)
    if (high - low < 1 - _ONE_PIXEL).any():
        unheld.add("boxes of less than one pixel in width or height; written as one pixel", example, box)
    return np.append(np.minimum(low + 1, high - _ONE_PIXEL), high)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.12g}"

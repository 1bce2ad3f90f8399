"""Class folders: the folder that an image is in is its class."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.formats.splitnames import named_split
from tlx.data.place import Place, names
from tlx.data.unheld import Unheld
from tlx.registry import writers

_SPLITS = {"train": "train", "validation": "val", "test": "test", "": "unsplit"}


@writers.register("folder")
def folder(dataset: Dataset, target: Path, place: Place) -> list[Finding]:
    """Class folders, for classification: `SPLIT/CLASS/IMAGE`, or `CLASS/IMAGE` where the data has no splits.

    Of a detection dataset, an image goes to the class that all its boxes have which count; boxes cannot be
    held, nor images with several classes or none. Characters that folders cannot have become "_".

    Args:
      dataset: what to write.
      target: an empty folder.
      place: puts the images there.
    """
    unheld = Unheld("folder", dataset, whole_images=True)
    classes = unheld.renamed(dataset.classes, _folder_name)
    # A class that is called like a split would be taken for one.
    splits = any(e.split for e in dataset.examples) or any(named_split(name) is not None for name in classes)
    folders: dict[Path, list[Example]] = defaultdict(list)
    for example in dataset.examples:
        labels = np.unique(example.targets.counted)
        if len(labels) == 1:
            parent = target / _SPLITS[example.split] if splits else target
            folders[parent / classes[labels[0]]].append(example)
        else:
            unheld.add(_why(len(labels)), example)
            place.count()
        if dataset.task != "classification" and (count := len(example.objects)):
            unheld.add("boxes; left out: a class folder tells an image's class alone", example, count=count)
    for folder, examples in folders.items():
        for name, example in zip(names(examples), examples, strict=True):
            place(example.image, folder / name)
    return unheld.findings()


def _why(classes: int) -> str:
    return f"images with {'boxes of several classes' if classes else 'no box that counts'}; left out"


def _folder_name(name: str) -> str:
    safe = "".join("_" if letter in '/\\:*?"<>|' or not letter.isprintable() else letter for letter in name)
    # A leading dot hides a folder, and trailing ones some systems do not keep.
    return safe.strip(" .").encode()[:100].decode(errors="ignore") if safe.lower() != "__macosx" else "macosx"

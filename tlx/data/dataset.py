"""The canonical dataset: what every reader returns and everything later works on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tlx.errors import DataError

ANY_CLASS = -1
_DTYPES = (np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.bool_))


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a dataset, located.

    `code` is a short stable name such as "zero-area-box"; `file` is relative to the dataset's folder;
    `record` names the object, line or row inside the file, or is empty.
    """

    code: str
    severity: Literal["error", "warning", "info"]
    file: str
    record: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file} ({self.record})" if self.file and self.record else self.file or self.record
        return f"{self.severity}: {where}{': ' if where else ''}{self.message} [{self.code}]"


@dataclass(frozen=True, eq=False)
class Example:
    """One image and its labels.

    `boxes` is float32 [n, 4]: (x_min, y_min, x_max, y_max) in absolute pixels of the upright decoded
    image, 0-based, max exclusive. `labels` is int32 [n]: positions in `Dataset.classes`, or `ANY_CLASS`
    for an ignore region that belongs to no class. `ignore` is bool [n]: regions that are neither
    rewarded nor punished, in the loss or in the metric. `width` and `height` are those of the upright
    image. Examples of one `group` stay in one split; `split` is what the data itself says ("train",
    "validation", "test" or ""). `record` says where the labels stand, for messages.
    """

    image: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    record: str = ""
    group: str = ""
    split: str = ""

    def __post_init__(self):
        n = len(self.boxes)
        shapes = (self.boxes.shape, self.labels.shape, self.ignore.shape)
        dtypes = (self.boxes.dtype, self.labels.dtype, self.ignore.dtype)
        if shapes != ((n, 4), (n,), (n,)) or dtypes != _DTYPES:
            raise DataError(f"{self.record or self.image}: boxes, labels and ignore have {shapes} {dtypes}")
        # Without NumPy, which takes longer for the few boxes that an image has.
        right, bottom = self.width, self.height
        for x0, y0, x1, y1 in self.boxes.tolist():
            if not (0 <= x0 < x1 <= right and 0 <= y0 < y1 <= bottom):
                raise DataError(f"{self.record or self.image}: a box is empty, not finite or outside the image")
        if (ANY_CLASS, False) in zip(self.labels.tolist(), self.ignore.tolist(), strict=True):
            raise DataError(f"{self.record or self.image}: a box of no class is not marked as ignored")
        for array in (self.boxes, self.labels, self.ignore):
            array.setflags(write=False)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, their classes in order, and what reading them brought to light.

    Where `task` is "classification", an image's class is that of its one box, which is the whole image.
    """

    name: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    findings: tuple[Finding, ...] = ()
    task: Literal["detection", "classification"] = "detection"

    def __post_init__(self):
        for example in self.examples:
            labels = example.labels.tolist()
            if labels and not -1 <= min(labels) <= max(labels) < len(self.classes):
                raise DataError(f"{example.record}: a label is outside the {len(self.classes)} classes")
            if self.task == "classification" and len(example.labels) != 1:
                raise DataError(f"{example.record}: has {len(example.labels)} boxes where a classified image has one")

    def __len__(self) -> int:
        return len(self.examples)

    def subset(self, indices: Sequence[int], name: str) -> "Dataset":
        """Return the examples at `indices`, under another name and without the findings."""
        return replace(self, name=name, examples=tuple(self.examples[i] for i in indices), findings=())

    def of_whole_images(self) -> "Dataset":
        """Return the same data as images with a class each, without the images whose class was left out."""
        return replace(self, task="classification", examples=tuple(e for e in self.examples if len(e.labels)))

    def counts(self) -> dict[str, int]:
        """Return how many boxes that count (not ignored) each class has."""
        labels = [e.labels[~e.ignore] for e in self.examples]
        totals = np.bincount(np.concatenate(labels or [np.zeros(0, np.int32)]), minlength=len(self.classes))
        return {name: int(total) for name, total in zip(self.classes, totals, strict=True)}

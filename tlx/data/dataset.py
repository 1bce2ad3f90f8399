"""The canonical dataset: what every reader returns and everything later works on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tlx.data.targets import ANY_CLASS, Boxes, ImageClass, Targets
from tlx.errors import DataError


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

    @property
    def located(self) -> str:
        """The message behind its place."""
        where = f"{self.file} ({self.record})" if self.file and self.record else self.file or self.record
        return f"{where}{': ' if where else ''}{self.message}"

    def __str__(self) -> str:
        return f"{self.severity}: {self.located} [{self.code}]"


@dataclass(frozen=True, eq=False)
class Example:
    """One image and its labels.

    `targets` are the labels, as the dataset's task has them. `width` and `height` are those of the upright
    image. Examples of one `group` stay in one split; `split` is what the data itself says ("train",
    "validation", "test" or ""). `record` says where the labels stand, for messages.
    """

    image: Path
    width: int
    height: int
    targets: Targets
    record: str = ""
    group: str = ""
    split: str = ""

    def __post_init__(self):
        if fault := self.targets.fault(self.width, self.height):
            raise DataError(f"{self.record or self.image}: {fault}")

    @property
    def objects(self) -> Boxes:
        """The labels as boxes, for what knows nothing else; a classified image is one box."""
        return self.targets.as_boxes(self.width, self.height)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, their classes in order, and what reading them brought to light.

    `task` is the registered name of the task that the labels are for.
    """

    name: str
    classes: tuple[str, ...]
    examples: tuple[Example, ...]
    findings: tuple[Finding, ...] = ()
    task: str = Boxes.task

    def __post_init__(self):
        for example in self.examples:
            where, labels = example.record or example.image, example.targets.labels.tolist()
            if labels and not ANY_CLASS <= min(labels) <= max(labels) < len(self.classes):
                raise DataError(f"{where}: a label is outside the {len(self.classes)} classes")
            if example.targets.task not in ("", self.task):
                raise DataError(f"{where}: is labelled for {example.targets.task}, not for {self.task}")

    def __len__(self) -> int:
        return len(self.examples)

    def subset(self, indices: Sequence[int], name: str) -> "Dataset":
        """Return the examples at `indices`, under another name and without the findings."""
        return replace(self, name=name, examples=tuple(self.examples[i] for i in indices), findings=())

    def of_whole_images(self) -> "Dataset":
        """Return the same data as images with a class each, without the images whose class was left out.

        Raises:
          DataError: an image has several boxes.
        """
        labels = [example.targets.labels.tolist() for example in self.examples]
        for example, found in zip(self.examples, labels, strict=True):
            if len(found) > 1:
                raise DataError(
                    f"{example.record or example.image}: has {len(found)} boxes where a classified image has one"
                )
        pairs = zip(self.examples, labels, strict=True)
        examples = tuple(replace(example, targets=ImageClass(found[0])) for example, found in pairs if found)
        return replace(self, task=ImageClass.task, examples=examples)

    def counts(self) -> dict[str, int]:
        """Return how many labels that count (boxes that are not ignored, say) each class has."""
        labels = [example.targets.counted for example in self.examples]
        totals = np.bincount(np.concatenate(labels or [np.zeros(0, np.int32)]), minlength=len(self.classes))
        return {name: int(total) for name, total in zip(self.classes, totals, strict=True)}

"""What the doctor's checks look at."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.files import relative
from tlx.data.splits.parts import Splits
from tlx.data.survey import Picture, survey

# What examples are called that are in no part, beside others that are, and where there are no parts at all.
NO_PART, ALL = "in no part", "all"


@dataclass(frozen=True, eq=False)
class Patient:
    """A dataset, whole or in parts, the size (height, width) that it is trained at, and what is known of it.

    `findings` are those that reading and splitting brought to light; files are named relative to `root`. Where pictures
    are cut up first, `tile` is the (height, width) of what is brought to that size.
    """

    classes: tuple[str, ...]
    task: str
    parts: Mapping[str, tuple[Example, ...]]
    size: tuple[int, int]
    root: Path
    findings: tuple[Finding, ...]
    tile: tuple[int, int] | None = None

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """All examples, part by part."""
        return tuple(example for part in self.parts.values() for example in part)

    @cached_property
    def pictures(self) -> list[Picture]:
        """What one look at each example's image file tells."""
        return survey([example.image for example in self.examples])

    @cached_property
    def part_of(self) -> list[str]:
        """The part that each example is in."""
        return [name for name, part in self.parts.items() for _ in part]

    def scale(self, example: Example) -> float:
        """Return how many pixels of the input a pixel of an example's picture becomes."""
        (height, width), (tall, wide) = self.size, self.tile or (math.inf, math.inf)
        return min(width / min(example.width, wide), height / min(example.height, tall))

    def name(self, example: Example) -> str:
        """Return how a finding names the image of an example."""
        return relative(example.image, self.root)

    def at(
        self, example: Example, code: str, severity: Literal["error", "warning", "info"], message: str, record: str = ""
    ) -> Finding:
        """Return a finding about an example, or about `record` in it."""
        return Finding(code, severity, self.name(example), record, message)

    def counts(self, part: str | None = None) -> np.ndarray:
        """Return how many boxes that count each class has in a part, or in all: int [classes]."""
        examples = self.examples if part is None else self.parts[part]
        labels = [example.targets.counted for example in examples]
        return np.bincount(np.concatenate([np.zeros(0, np.int32), *labels]), minlength=len(self.classes))


def admit(
    data: Dataset | Splits, size: tuple[int, int], root: Path | None = None, tile: tuple[int, int] | None = None
) -> Patient:
    """Return the patient that data is; files are named relative to `root`, or their common folder if none is in it."""
    if isinstance(data, Splits):
        first, parts = data.train, {name: part.examples for name, part in data.parts().items()}
    else:
        first, parts = data, parts_of(data)
    under = root and any(e.image.is_relative_to(root) for part in parts.values() for e in part)
    return Patient(first.classes, first.task, parts, size, root if under else _common(parts), data.findings, tile)


def parts_of(dataset: Dataset) -> dict[str, tuple[Example, ...]]:
    """Return a dataset's examples by the split that they say they are in."""
    declared = {example.split for example in dataset.examples} - {""}
    names = {name: name for name in ("train", "validation", "test") if name in declared}
    names |= {"": NO_PART if declared else ALL}
    parts = {shown: tuple(e for e in dataset.examples if e.split == name) for name, shown in names.items()}
    return {shown: examples for shown, examples in parts.items() if examples}


def whole(data: Dataset | Splits) -> Dataset:
    """Return data as one dataset, whose examples name the parts that they are in."""
    if isinstance(data, Dataset):
        return data
    examples = (replace(e, split=name) for name, part in data.parts().items() for e in part.examples)
    return replace(data.train, examples=tuple(examples), findings=data.findings)


def _common(parts: Mapping[str, tuple[Example, ...]]) -> Path:
    folders = {example.image.parent for part in parts.values() for example in part}
    absolute = {folder.is_absolute() for folder in folders}
    return Path(os.path.commonpath(folders)) if len(absolute) == 1 else Path()

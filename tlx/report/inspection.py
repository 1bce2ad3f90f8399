"""What `tlx inspect` tells about a dataset, as plain values."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.doctor import examine, grouped, worst
from tlx.data.doctor.patient import Patient, admit
from tlx.data.splits.parts import Splits
from tlx.pipeline import Views
from tlx.report.histogram import Histogram, counted, doubling
from tlx.sizing import Advice, advise
from tlx.tasks.task import Task, task_of

# COCO's: a box is small below 32 x 32 pixels and large from 96 x 96 on.
SMALL, LARGE = 32.0, 96.0
SIZES = ("small", "medium", "large")


@dataclass(frozen=True, eq=False)
class Inspection:
    """A dataset and all findings about it; `format` is the name of what read it.

    `views` are those that an experiment would train on, if it is one that is inspected.
    """

    path: str
    name: str
    format: str
    patient: Patient
    findings: tuple[Finding, ...]
    views: Views | None = None

    @property
    def task(self) -> Task:
        """The task that the data is labelled for, which says what its labels are called."""
        return task_of(self.patient.task)

    @cached_property
    def table(self) -> list[list[str]]:
        """The counts as a person reads them: a line of heads, one for each class, and the total last."""
        parts = [name for name in self.parts if len(self.parts) > 1]
        sizes = SIZES if self.task.sized else ()
        lines = [["class", "images", self.task.labels, *parts, *sizes, *(["ignored"] if self.task.sized else [])]]
        for row in self.rows:
            numbers = [row["images"], row["boxes"], *(row["parts"][part] for part in parts)]
            numbers += [*row["sizes"].values(), row["ignored"]] if self.task.sized else []
            lines.append([row["class"], *map(str, numbers)])
        return lines

    @property
    def summary(self) -> str:
        """How much there is, in words."""
        labels = f"{self.rows[-1]['boxes']} {self.task.labels}"
        return f"{len(self.patient.examples)} images, {labels}, {len(self.patient.classes)} classes"

    @property
    def severity(self) -> int:
        """0 where there is nothing worse than a note, 1 for warnings, 2 for errors: the command's exit code."""
        return worst(self.findings)

    @cached_property
    def groups(self) -> dict[str, list[Finding]]:
        """The findings by code, the worst first."""
        return grouped(self.findings)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What there is of each class, and in total: images, boxes, ignored boxes, boxes of each size and part."""
        return list(_rows(self.patient))

    @cached_property
    def parts(self) -> dict[str, dict[str, int]]:
        """How many images, boxes that count and images without boxes each part has."""
        return {
            name: {
                "images": len(examples),
                "boxes": sum(len(e.targets.counted) for e in examples),
                "empty": sum(not len(e.targets.counted) for e in examples),
            }
            for name, examples in self.patient.parts.items()
        }

    @cached_property
    def histograms(self) -> list[Histogram]:
        """The sizes of images, and, where labels have sizes, theirs and how many an image has."""
        examples = self.patient.examples
        height, width = self.patient.size
        what = "tiles" if self.patient.tile else "images"
        images = doubling("image size: √(width x height), px", (float(e.width * e.height) ** 0.5 for e in examples))
        if not self.task.sized:
            return [images]
        sides = [_sides(e)[~e.objects.ignore] for e in examples]
        trained = [side * self.patient.scale(e) for side, e in zip(sides, examples, strict=True)]
        return [
            images,
            doubling("box size: √(width x height), px", _joined(sides)),
            doubling(f"box size once {what} are {width} x {height} px", _joined(trained)),
            counted(f"{self.task.labels} in an image", (len(e.targets.counted) for e in examples)),
        ]

    @cached_property
    def advice(self) -> Advice | None:
        """Which input size the training pictures ask for, and whether to cut them up, where labels have sizes."""
        examples = self.patient.parts.get("train", self.patient.examples)
        return advise(examples) if self.task.sized else None

    def image_kinds(self) -> dict[str, int]:
        """Return how many images there are of each format and mode, such as "JPEG, RGB"."""
        kinds = Counter(f"{p.format}, {p.mode}" for p in self.patient.pictures if not p.error)
        return dict(kinds.most_common())

    def to_json(self) -> dict[str, Any]:
        """Return everything as values that JSON has."""
        return {
            "path": self.path,
            "name": self.name,
            "format": self.format,
            "task": self.patient.task,
            "image_size": list(self.patient.size),
            "severity": ("info", "warning", "error")[self.severity],
            "classes": list(self.patient.classes),
            "parts": self.parts,
            "counts": self.rows,
            "image_kinds": self.image_kinds(),
            "advice": self.advice and asdict(self.advice),
            "histograms": [asdict(histogram) for histogram in self.histograms],
            "codes": [
                {"code": code, "severity": found[0].severity, "count": len(found)}
                for code, found in self.groups.items()
            ],
            "findings": [asdict(finding) for found in self.groups.values() for finding in found],
        }


def inspect(
    data: Dataset | Splits,
    size: tuple[int, int],
    path: Path,
    format: str,
    root: Path | None = None,
    views: Views | None = None,
    tile: tuple[int, int] | None = None,
) -> Inspection:
    """Return all there is to tell about data that is to be trained at `size`, (height, width) in pixels.

    `tile` is the (height, width) of the parts that pictures are cut into first, if they are.
    """
    patient = admit(data, size, root, tile)
    found = (*data.findings, *examine(data, size, task_of(patient.task).check, root, tile))
    return Inspection(str(path), path.resolve().stem, format, patient, found, views)


def _rows(patient: Patient) -> Iterator[dict[str, Any]]:
    examples = patient.examples
    owner = np.repeat(np.arange(len(examples)), [len(e.objects) for e in examples])
    part = np.repeat(patient.part_of, [len(e.objects) for e in examples])
    labels = np.concatenate([np.zeros(0, np.int32), *(e.objects.labels for e in examples)])
    ignore = np.concatenate([np.zeros(0, np.bool_), *(e.objects.ignore for e in examples)])
    sides = np.concatenate([np.zeros(0), *map(_sides, examples)])
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(len(patient.classes) + 1))
    for name, start, stop in zip(patient.classes, starts, starts[1:], strict=False):
        chosen = order[start:stop]
        counts = chosen[~ignore[chosen]]
        images = len(np.unique(owner[counts]))
        yield _row(name, images, len(chosen) - len(counts), sides[counts], part[counts], patient)
    # Ignore regions of no class are in the total alone.
    yield _row("total", len(examples), int(ignore.sum()), sides[~ignore], part[~ignore], patient)


def _row(name: str, images: int, ignored: int, sides: np.ndarray, part: np.ndarray, patient: Patient) -> dict[str, Any]:
    by_size = np.bincount(np.digitize(sides, (SMALL, LARGE)), minlength=len(SIZES)).tolist()
    parts = {known: int((part == known).sum()) for known in patient.parts}
    sizes = dict(zip(SIZES, by_size, strict=True))
    return {"class": name, "images": images, "boxes": len(sides), "ignored": ignored, "sizes": sizes, "parts": parts}


def _sides(example: Example) -> np.ndarray:
    boxes = example.objects.boxes.astype(np.float64)
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _joined(values: list[np.ndarray]) -> Iterator[float]:
    return (float(value) for array in values for value in array)

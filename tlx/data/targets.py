"""What an example's picture is labelled with: one record of arrays for each task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

# The label of an ignore region that belongs to no class.
ANY_CLASS = -1
# Boxes of the same object in two labellings of one picture overlap at least so much.
_AGREE_IOU = 0.5


class Targets(ABC):
    """A picture's labels as arrays; a task brings a class of them, and nothing else knows what they mean.

    `task` is the task's registered name, or "" where any task will do. `labels` are positions in
    `Dataset.classes`, or `ANY_CLASS`: int32 [n].
    """

    task: ClassVar[str]
    labels: np.ndarray

    @property
    @abstractmethod
    def arrays(self) -> Mapping[str, np.ndarray]:
        """All that the record holds, by name; fingerprints and cache keys hash these arrays in this order."""

    @abstractmethod
    def fault(self, width: int, height: int) -> str | None:
        """Return what is wrong with the record of a picture of `width` x `height` pixels, or None."""

    @abstractmethod
    def relabelled(self, table: np.ndarray) -> Self:
        """Return the record with `table[label]` in place of each label."""

    @property
    def counted(self) -> np.ndarray:
        """The labels of what is learnt and judged: int32 [n]."""
        return self.labels

    def as_boxes(self, width: int, height: int) -> "Boxes":
        """Return what formats, counts and pictures of boxes can tell of the record: by default, nothing."""
        return NO_BOXES

    def only(self, objects: np.ndarray) -> Self:
        """Return the record of some objects, by their positions in `as_boxes`; where it is of no such, all of it."""
        return self

    def agrees(self, other: Self) -> bool:
        """Return whether two records of one picture say about the same."""
        return type(self) is type(other) and self.tobytes() == other.tobytes()

    def tobytes(self) -> bytes:
        """Return all arrays' bytes."""
        return b"".join(array.tobytes() for array in self.arrays.values())


@dataclass(frozen=True, eq=False)
class Boxes(Targets):
    """The objects in a picture.

    `boxes` is float32 [n, 4]: (x_min, y_min, x_max, y_max) in absolute pixels of the upright decoded
    picture, 0-based, max exclusive. `labels` is int32 [n]: positions in `Dataset.classes`, or `ANY_CLASS`
    for an ignore region that belongs to no class. `ignore` is bool [n]: regions that are neither
    rewarded nor punished, in the loss or in the metric.
    """

    task: ClassVar[str] = "detection"

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray

    def __post_init__(self):
        for array in self.arrays.values():
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"boxes": self.boxes, "labels": self.labels, "ignore": self.ignore}

    @property
    def counted(self) -> np.ndarray:
        return self.labels[~self.ignore]

    def fault(self, width: int, height: int) -> str | None:
        n = len(self.boxes)
        shapes = tuple(array.shape for array in self.arrays.values())
        dtypes = tuple(array.dtype for array in self.arrays.values())
        if shapes != ((n, 4), (n,), (n,)) or dtypes != (np.float32, np.int32, np.bool_):
            return f"boxes, labels and ignore have {shapes} {dtypes}"
        # Without NumPy, which takes longer for the few boxes that a picture has.
        for x0, y0, x1, y1 in self.boxes.tolist():
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                return "a box is empty, not finite or outside the image"
        if (ANY_CLASS, False) in zip(self.labels.tolist(), self.ignore.tolist(), strict=True):
            return "a box of no class is not marked as ignored"
        return None

    def relabelled(self, table: np.ndarray) -> Self:
        return replace(self, labels=table[self.labels])

    def as_boxes(self, width: int, height: int) -> "Boxes":
        return self

    def only(self, objects: np.ndarray) -> Self:
        return Boxes(*(array[objects] for array in self.arrays.values()))

    def agrees(self, other: Self) -> bool:
        if type(self) is not type(other) or sorted(self.counted.tolist()) != sorted(other.counted.tolist()):
            return False
        return _all_in(self, other) and _all_in(other, self)


@dataclass(frozen=True, eq=False)
class ImageClass(Targets):
    """The class of a whole picture: a position in `Dataset.classes`."""

    task: ClassVar[str] = "classification"

    label: int

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"label": np.array(self.label, np.int32)}

    @property
    def labels(self) -> np.ndarray:
        return np.array([self.label], np.int32)

    def fault(self, width: int, height: int) -> str | None:
        return None if self.label >= 0 else "the image has no class"

    def relabelled(self, table: np.ndarray) -> Self:
        return replace(self, label=int(table[self.label]))

    def as_boxes(self, width: int, height: int) -> Boxes:
        whole = np.array([[0, 0, width, height]], np.float32)
        return Boxes(whole, self.labels, np.array([False]))


class Unlabelled(Targets):
    """The targets of a picture that nobody labelled."""

    task: ClassVar[str] = ""

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return {}

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(0, np.int32)

    def fault(self, width: int, height: int) -> str | None:
        return None

    def relabelled(self, table: np.ndarray) -> Self:
        return self


NO_BOXES = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.bool_))
UNLABELLED = Unlabelled()


def iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of one box [4] with others [n, 4], as [n], 0 to 1."""
    overlap = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return overlap / (areas + (box[2:] - box[:2]).prod() - overlap)


def _all_in(one: Boxes, other: Boxes) -> bool:
    pairs = zip(one.boxes, one.labels, strict=True)
    return all((iou(box, other.boxes[other.labels == label]) >= _AGREE_IOU).any() for box, label in pairs)

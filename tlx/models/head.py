"""What a head is: the part of a detector that learns from scratch, with its loss and its decoding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

Grid = tuple[np.ndarray, np.ndarray]
Size = tuple[int, int]


class Head(ABC):
    """Turns backbone taps into detections, and says how wrong they are.

    `strides` names the taps that it wants, finest first, `task` the data that it learns from: `Dataset.task`.
    """

    strides: tuple[int, ...]
    task: ClassVar[Literal["detection", "classification"]] = "detection"

    @abstractmethod
    def build(self, shapes: Sequence[tuple[int, int, int]], classes: int) -> Any:
        """Return a `keras.Model` from taps [b, h, w, c] of these shapes to the head's raw outputs, float32."""

    @abstractmethod
    def grid(self, shapes: Sequence[tuple[int, int, int]], size: Size) -> Grid:
        """Return the centres float32 [n, 2] of all locations in input pixels, and their strides float32 [n]."""

    @abstractmethod
    def losses(self, outputs: Any, targets: Any, grid: Grid) -> tuple[Any, Any, Any]:
        """Return, for each image, the summed score loss [b], the summed box loss [b] and the positives [b].

        `targets` are boxes [b, m, 4] in input pixels, labels [b, m] and ignore flags [b, m]. A batch's loss
        is the sum of both losses over the sum of the positives, so that it can be added up in parts.
        """

    @abstractmethod
    def decode(self, outputs: Any, grid: Grid) -> tuple[Any, Any, Any]:
        """Return boxes [b, k, 4] in input pixels, scores [b, k] and labels [b, k], best first.

        Places that hold no detection have score 0.
        """

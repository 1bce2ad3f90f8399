"""What an engine is: something that computes a built network forward only, outside of any graph."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

Compiled = Callable[[np.ndarray], list[np.ndarray]]


class Engine(ABC):
    """Turns a network into a function of arrays; the feature cache, prediction and export compute by it."""

    @property
    @abstractmethod
    def key(self) -> str:
        """The engine's kind, version and precision: features are taken for the same only where it is the same."""

    @abstractmethod
    def compile(self, model: Any) -> Compiled:
        """Return a function that computes what a functional `keras.Model` computes, in inference mode.

        The model's input is float32 RGB [b, h, w, 3] in 0..255. The function takes uint8 [b, h, w, 3], with any b
        from 1 on, such as a short last batch, and returns the model's outputs in order as float32 [b, ...].
        Where the model's weights change, compile it again.
        """

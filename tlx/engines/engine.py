"""What an engine is: something that computes a built network forward only, outside of any graph."""

import contextlib
import importlib.util
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from tlx.errors import ConfigError, ModelError

Compiled = Callable[[np.ndarray], list[np.ndarray]]


class Engine(ABC):
    """Turns a network into a function of arrays; the feature cache, prediction and export compute by it.

    `tolerance` is how far its outputs may be from TensorFlow's: the largest difference in an output, as a share of the
    largest magnitude there.
    """

    tolerance: ClassVar[float] = 0.0

    @property
    @abstractmethod
    def key(self) -> str:
        """The engine's kind, version and precision: features are taken for the same only where it is the same."""

    @abstractmethod
    def compile(self, model: Any) -> Compiled:
        """Return a function that computes what a functional `keras.Model` computes, in inference mode.

        The model's input is float32 RGB [b, h, w, 3] in 0..255. The function takes uint8 [b, h, w, 3], with any b
        from 1 on, such as a short last batch, and returns the model's outputs in order as float32 [b, ...].
        Where the model's weights change, compile it again. It is called by one thread at a time.

        Raises:
          ModelError: the engine is not installed, or cannot compute such a model.
        """

    def settle(self, model: Any, pictures: Callable[[], np.ndarray]) -> "Settled":
        """Return the engine for one model; `pictures()` are some of those that it will see, uint8 [b, h, w, 3]."""
        return Settled(self, model, "as run.engine says")


class Settled(Engine):
    """An engine that was chosen for one model, which it compiles once; `why` says in words why it is this one.

    Of several threads that call what it compiled, one waits for the other.
    """

    def __init__(self, engine: Engine, model: Any, why: str, compiled: Compiled | None = None):
        self.engine, self.model, self.why = engine, model, why
        self._compiled, self._turn = compiled, threading.Lock()

    @property
    def key(self) -> str:
        return self.engine.key

    def compile(self, model: Any) -> Compiled:
        if model is not self.model:
            return self.engine.compile(model)
        if self._compiled is None:
            self._compiled = self.engine.compile(model)
        return self._compute

    def _compute(self, pictures: np.ndarray) -> list[np.ndarray]:
        with self._turn:
            return self._compiled(pictures)

    def settle(self, model: Any, pictures: Callable[[], np.ndarray]) -> "Settled":
        return self if model is self.model else super().settle(model, pictures)

    def __str__(self) -> str:
        return f"{self.key}: {self.why}"


def as_pictures(array: np.ndarray, model: Any) -> np.ndarray:
    """Return pictures for a model as they are.

    Raises:
      TypeError: they are not uint8; most libraries would cast them without a word.
      ValueError: they have another size than the model's input.
    """
    if array.dtype != np.uint8:
        raise TypeError(f"an engine takes pictures as uint8, not {array.dtype}")
    if array.shape[1:] != tuple(model.inputs[0].shape[1:]):
        raise ValueError(f"this network takes pictures {tuple(model.inputs[0].shape[1:])}, not {array.shape[1:]}")
    return array


def difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest difference between outputs, as a share of the largest magnitude in each; NaN where one is."""
    shares = [
        float(np.abs(one - other).max() / max(float(np.abs(other).max()), np.finfo(np.float32).tiny))
        for one, other in zip(found, expected, strict=True)
    ]
    return float(np.max(shares))


@contextlib.contextmanager
def needing(package: str, install: str) -> Iterator[None]:
    """Turn what is raised where a package is missing into a ModelError that says how to install it."""
    try:
        yield
    except ImportError as error:
        raise ModelError(f"{package} is not installed ({error}): pip install {install}") from error


def refuse_missing(name: str, module: str, install: str) -> None:
    """Raise a ConfigError where the module is not installed by which an engine computes."""
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"engines.{name} needs what is not installed: pip install {install}")

"""Schedules: which share of `fit.learning_rate` each update of a phase has, after the warm-up.

The warm-up rises linearly to the schedule's first factor, over the share `fit.warmup` of the phase's updates, at
least one; a schedule counts its updates from the warm-up's end.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from tlx.errors import above, at_least, refuse_values
from tlx.registry import schedules


class Schedule(ABC):
    """A factor on the learning rate for each update of a phase."""

    @abstractmethod
    def at(self, update: int, updates: int) -> float:
        """Return the factor, in 0..1, of update number `update`, counted from 0, of `updates`, at least 1."""


@schedules.register("cosine")
@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine, from 1 down to `end`, in 0..1, where the phase ends.

    Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without restarts.
    """

    end: float = 0.0

    def __post_init__(self):
        refuse_values("schedules.cosine", self, {"end": at_least(0, most=1)})

    def at(self, update: int, updates: int) -> float:
        return self.end + (1 - self.end) * _falling(update, updates)


@schedules.register("constant")
@dataclass(frozen=True)
class Constant(Schedule):
    """The whole learning rate, from the warm-up to the end."""

    def at(self, update: int, updates: int) -> float:
        return 1.0


@schedules.register("exponential")
@dataclass(frozen=True)
class Exponential(Schedule):
    """`decay_rate`, in 0..1, to the power of updates / `decay_steps`; with `staircase`, of whole multiples alone.

    Source: `keras.optimizers.schedules.ExponentialDecay`.
    """

    decay_rate: float
    decay_steps: int
    staircase: bool = False

    def __post_init__(self):
        sound = {"decay_rate": above(0, most=1), "decay_steps": at_least(1)}
        refuse_values("schedules.exponential", self, sound)

    def at(self, update: int, updates: int) -> float:
        times = update // self.decay_steps if self.staircase else update / self.decay_steps
        return self.decay_rate**times


@schedules.register("polynomial")
@dataclass(frozen=True)
class Polynomial(Schedule):
    """From 1 down to `end`, in 0..1, where the phase ends, by the share of updates to come to `power`, above 0.

    A power of 1 is a straight line. Source: `keras.optimizers.schedules.PolynomialDecay`.
    """

    power: float = 1.0
    end: float = 0.0

    def __post_init__(self):
        refuse_values("schedules.polynomial", self, {"power": above(0), "end": at_least(0, most=1)})

    def at(self, update: int, updates: int) -> float:
        return self.end + (1 - self.end) * (1 - update / updates) ** self.power


@schedules.register("one_cycle")
@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine up from `start` to 1 over the share `rise` of the updates, and another one down to `end`.

    All three are in 0..1, `rise` neither 0 nor 1. It is its own warm-up: set `fit.warmup` to 0. Source: Smith and
    Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2019; the defaults
    are those of `torch.optim.lr_scheduler.OneCycleLR`.
    """

    rise: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self):
        sound = {"rise": above(0, below=1), "start": at_least(0, most=1), "end": at_least(0, most=1)}
        refuse_values("schedules.one_cycle", self, sound)

    def at(self, update: int, updates: int) -> float:
        peak = self.rise * updates
        if update < peak:
            return 1 - (1 - self.start) * _falling(update, peak)
        return self.end + (1 - self.end) * _falling(update - peak, updates - peak)


@schedules.register("step")
@dataclass(frozen=True)
class Step(Schedule):
    """Times `factor`, in 0..1, after each `every` updates.

    Source: `torch.optim.lr_scheduler.StepLR`.
    """

    every: int
    factor: float = 0.1

    def __post_init__(self):
        refuse_values("schedules.step", self, {"every": at_least(1), "factor": above(0, most=1)})

    def at(self, update: int, updates: int) -> float:
        return self.factor ** (update // self.every)


@schedules.register("piecewise")
@dataclass(frozen=True)
class Piecewise(Schedule):
    """The first of `factors`, each in 0..1, until the first of `boundaries`, then the second until the next, and so on.

    `boundaries` are numbers of updates, growing; there is one factor more than there are boundaries. An example:
    `boundaries = (1000, 2000)` and `factors = (1.0, 0.1, 0.01)`. Update number 1000, counted from 0, is the first
    with 0.1. Source: `keras.optimizers.schedules.PiecewiseConstantDecay`.
    """

    boundaries: tuple[int, ...]
    factors: tuple[float, ...]

    def __post_init__(self):
        growing = all(a < b for a, b in pairwise((0, *self.boundaries)))
        right = len(self.factors) == len(self.boundaries) + 1 and all(0 <= factor <= 1 for factor in self.factors)
        sound = {
            "boundaries": growing or "growing numbers of updates, 1 or more",
            "factors": right or f"{len(self.boundaries) + 1} numbers, 0 to 1: one more than boundaries",
        }
        refuse_values("schedules.piecewise", self, sound)

    def at(self, update: int, updates: int) -> float:
        return self.factors[bisect_right(self.boundaries, update)]


def _falling(done: float, of: float) -> float:
    """Return half a cosine from 1, where nothing is done, to 0."""
    return (1 + math.cos(math.pi * done / of)) / 2

"""Other light: maps of colours, all of which become one."""

import math
from dataclasses import dataclass

import numpy as np

from tlx.augment.operation import Colour
from tlx.errors import at_least
from tlx.registry import augmentations

# What makes a colour light, by Rec. 601, and the plane of its hues: RGB to YIQ.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)


@augmentations.register("brightness")
@dataclass(frozen=True)
class Brightness(Colour):
    """Multiplies all channels by a factor, drawn uniformly from 1 - `change` to 1 + `change`."""

    change: float = 0.25

    def __post_init__(self):
        self.refuse({"change": at_least(0, most=1)})

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return linear(_factor(rng, self.change) * np.eye(3))


@augmentations.register("contrast")
@dataclass(frozen=True)
class Contrast(Colour):
    """Multiplies the distance to middle grey by a factor, drawn uniformly from 1 - `change` to 1 + `change`."""

    change: float = 0.25

    def __post_init__(self):
        self.refuse({"change": at_least(0, most=1)})

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return contrasted(_factor(rng, self.change))


@augmentations.register("saturation")
@dataclass(frozen=True)
class Saturation(Colour):
    """Multiplies the distance to grey of the same lightness by a factor, from 1 - `change` to 1 + `change`."""

    change: float = 0.4

    def __post_init__(self):
        self.refuse({"change": at_least(0, most=1)})

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return saturated(_factor(rng, self.change))


@augmentations.register("hue")
@dataclass(frozen=True)
class Hue(Colour):
    """Turns hues by an angle up to so many degrees in either direction, drawn uniformly; lightness stays."""

    degrees: float = 10.0

    def __post_init__(self):
        self.refuse({"degrees": at_least(0, most=180)})

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return turned(rng.uniform(-self.degrees, self.degrees))


def linear(matrix: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """Return the map of colours that multiplies by `matrix` [3, 3] and adds `shift` to each channel."""
    return np.hstack([matrix, np.full((3, 1), shift)])


def contrasted(factor: float) -> np.ndarray:
    """Return the map that multiplies the distance to middle grey."""
    return linear(factor * np.eye(3), 128 * (1 - factor))


def saturated(factor: float) -> np.ndarray:
    """Return the map that multiplies the distance to grey of the same lightness."""
    return linear(factor * np.eye(3) + (1 - factor) * _YIQ[0])


def turned(degrees: float) -> np.ndarray:
    """Return the map that turns hues and keeps lightness."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return linear(_RGB @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ _YIQ)


def _factor(rng: np.random.Generator, change: float) -> float:
    return 1 + rng.uniform(-change, change)

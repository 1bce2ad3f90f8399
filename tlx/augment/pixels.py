"""Blur, noise, JPEG's losses and cut-outs, at the input's size."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from tlx.augment.affine import Frame
from tlx.augment.operation import Pixels
from tlx.augment.render import GREY
from tlx.augment.view import Box
from tlx.errors import above, at_least
from tlx.registry import augmentations

Range = tuple[float, float]


@dataclass(frozen=True)
class Blurred:
    """A Gaussian blur, of a standard deviation in pixels."""

    sigma: float
    hides: tuple[Box, ...] = ()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(self.sigma)))


@augmentations.register("blur")
@dataclass(frozen=True)
class Blur(Pixels):
    """Blurs, with a probability, by a Gaussian whose standard deviation in pixels is drawn from a range."""

    sigma: Range = (0.3, 1.5)
    probability: float = 0.5

    def __post_init__(self):
        sound = {"sigma": at_least(0, most=50), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, size: Frame) -> Blurred | None:
        return Blurred(rng.uniform(*self.sigma)) if rng.random() < self.probability else None


@dataclass(frozen=True)
class Noisy:
    """Gaussian noise of a standard deviation in levels of 0..255, each channel by itself, from a seed."""

    sigma: float
    seed: int
    hides: tuple[Box, ...] = ()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(self.seed).standard_normal(pixels.shape, np.float32)
        return np.clip(np.rint(pixels + noise * np.float32(self.sigma)), 0, 255).astype(np.uint8)


@augmentations.register("noise")
@dataclass(frozen=True)
class Noise(Pixels):
    """Adds Gaussian noise, with a probability; its standard deviation in levels of 0..255 is drawn from a range."""

    sigma: Range = (2.0, 15.0)
    probability: float = 0.5

    def __post_init__(self):
        sound = {"sigma": at_least(0, most=255), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, size: Frame) -> Noisy | None:
        if rng.random() >= self.probability:
            return None
        return Noisy(rng.uniform(*self.sigma), int(rng.integers(2**32)))


@dataclass(frozen=True)
class Compressed:
    """What is left of an input once it was kept as JPEG of a quality in 1..95."""

    quality: int
    hides: tuple[Box, ...] = ()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "JPEG", quality=self.quality)
        return np.asarray(Image.open(content))


@augmentations.register("jpeg")
@dataclass(frozen=True)
class Jpeg(Pixels):
    """Compresses as JPEG, with a probability; its quality (1 to 95) is drawn from a range."""

    quality: tuple[int, int] = (30, 90)
    probability: float = 0.5

    def __post_init__(self):
        sound = {"quality": at_least(1, most=95), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, size: Frame) -> Compressed | None:
        if rng.random() >= self.probability:
            return None
        return Compressed(int(rng.integers(self.quality[0], self.quality[1] + 1)))


@dataclass(frozen=True)
class Cut:
    """Grey boxes in pixels of the input, which hide what was there."""

    hides: tuple[Box, ...]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        left = pixels.copy()
        for x0, y0, x1, y1 in self.hides:
            left[int(y0) : int(y1), int(x0) : int(x1)] = GREY
        return left


@augmentations.register("cut_out")
@dataclass(frozen=True)
class CutOut(Pixels):
    """Paints grey boxes over the input, with a probability; an object that they hide counts as out of view.

    There are up to `holes`. `side` is the range of their sides, as a share of the input's.
    """

    holes: int = 3
    side: Range = (0.05, 0.2)
    probability: float = 0.5

    def __post_init__(self):
        sound = {
            "holes": at_least(1, most=1000),
            "side": above(0, most=1),
            "probability": at_least(0, most=1),
        }
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, size: Frame) -> Cut | None:
        if rng.random() >= self.probability:
            return None
        count = rng.integers(1, self.holes + 1)
        frame = np.array([size[1], size[0]])
        sides = np.maximum(1, np.rint(rng.uniform(*self.side, (count, 2)) * frame)).astype(int)
        low = rng.integers(0, frame - sides + 1)
        return Cut(tuple(map(tuple, np.concatenate([low, low + sides], axis=1).astype(float).tolist())))

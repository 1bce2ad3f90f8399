"""Augmentations of the TensorFlow Object Detection API's pipeline configurations, under its names and arguments.

Source: its preprocessor.proto and core/preprocessor.py. An object of which too little is left in view is ignored
here rather than removed, so there is no `overlap_thresh`; colours change by one linear map.
"""

from dataclasses import dataclass

import numpy as np

from tlx.augment.colours import contrasted, linear, saturated, turned
from tlx.augment.crops import crop
from tlx.augment.flips import Flip, Sometimes, VerticalFlip
from tlx.augment.flips import turned as quarter_turned
from tlx.augment.operation import Colour, Geometry
from tlx.augment.scene import Scene
from tlx.errors import Bounds, above, at_least
from tlx.registry import augmentations


@augmentations.register("random_horizontal_flip")
@dataclass(frozen=True)
class RandomHorizontalFlip(Flip):
    """Mirrors left to right, with a probability: as `flip`."""


@augmentations.register("random_vertical_flip")
@dataclass(frozen=True)
class RandomVerticalFlip(VerticalFlip):
    """Mirrors top to bottom, with a probability: as `vertical_flip`."""


@augmentations.register("random_rotation90")
@dataclass(frozen=True)
class RandomRotation90(Sometimes):
    """Turns by 90 degrees counter-clockwise, with a probability."""

    def change(self, rng: np.random.Generator, scene: Scene) -> Scene:
        return quarter_turned(scene, 3)


@augmentations.register("random_adjust_brightness")
@dataclass(frozen=True)
class RandomAdjustBrightness(Colour):
    """Adds to all channels a share of full brightness up to `max_delta` in either direction, drawn uniformly."""

    max_delta: float = 0.2

    def __post_init__(self):
        self.refuse({"max_delta": at_least(0, most=1)})

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return linear(np.eye(3), 255 * rng.uniform(-self.max_delta, self.max_delta))


@augmentations.register("random_adjust_contrast")
@dataclass(frozen=True)
class RandomAdjustContrast(Colour):
    """Multiplies the distance to middle grey by a factor from `min_delta` to `max_delta`, drawn uniformly."""

    min_delta: float = 0.8
    max_delta: float = 1.25

    def __post_init__(self):
        self.refuse(_factors(self.min_delta, self.max_delta))

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return contrasted(rng.uniform(self.min_delta, self.max_delta))


@augmentations.register("random_adjust_hue")
@dataclass(frozen=True)
class RandomAdjustHue(Colour):
    """Turns hues by a share of the full circle up to `max_delta` in either direction, drawn uniformly."""

    max_delta: float = 0.02

    def __post_init__(self):
        self.refuse({"max_delta": at_least(0, most=0.5)})

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return turned(360 * rng.uniform(-self.max_delta, self.max_delta))


@augmentations.register("random_adjust_saturation")
@dataclass(frozen=True)
class RandomAdjustSaturation(Colour):
    """Multiplies the distance to grey by a factor from `min_delta` to `max_delta`, drawn uniformly."""

    min_delta: float = 0.8
    max_delta: float = 1.25

    def __post_init__(self):
        self.refuse(_factors(self.min_delta, self.max_delta))

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        return saturated(rng.uniform(self.min_delta, self.max_delta))


@augmentations.register("random_crop_image")
@dataclass(frozen=True)
class RandomCropImage(Geometry):
    """Crops at random so that at least `min_object_covered` of some object stays in the picture.

    Areas are shares of the picture's; an aspect ratio is width by height. With `random_coef`, and where no crop is
    found, the whole picture is shown.
    """

    min_object_covered: float = 1.0
    min_aspect_ratio: float = 0.75
    max_aspect_ratio: float = 1.33
    min_area: float = 0.1
    max_area: float = 1.0
    random_coef: float = 0.0
    sees_objects = True

    def __post_init__(self):
        least = np.atleast_1d(self.min_object_covered)
        sound = {
            "min_object_covered": bool(least.size and ((least >= 0) & (least <= 1)).all()) or "0 to 1",
            "min_aspect_ratio": above(0, most=self.max_aspect_ratio),
            "min_area": above(0, most=self.max_area),
            "max_area": above(0, most=1),
            "random_coef": at_least(0, most=1),
        }
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        if rng.random() < self.random_coef:
            return scene
        area, aspect = (self.min_area, self.max_area), (self.min_aspect_ratio, self.max_aspect_ratio)
        return crop(rng, scene, area, aspect, self.covered(rng), "covered")

    def covered(self, rng: np.random.Generator) -> float:
        """Return the share of some object that must stay in the picture this time."""
        return self.min_object_covered


@augmentations.register("ssd_random_crop")
@dataclass(frozen=True)
class SsdRandomCrop(RandomCropImage):
    """Crops at random as `random_crop_image`; one of `min_object_covered` is drawn each time."""

    min_object_covered: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    min_aspect_ratio: float = 0.5
    max_aspect_ratio: float = 2.0
    random_coef: float = 0.15

    def covered(self, rng: np.random.Generator) -> float:
        return rng.choice(self.min_object_covered)


def _factors(low: float, high: float) -> dict[str, Bounds]:
    return {"min_delta": at_least(0, most=high), "max_delta": at_least(low, most=10)}

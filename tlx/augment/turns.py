"""Rotation and shear, about the middle of the canvas."""

import math
from dataclasses import dataclass

import numpy as np

from tlx.augment.affine import about
from tlx.augment.operation import Geometry
from tlx.augment.scene import Scene
from tlx.errors import at_least
from tlx.registry import augmentations


@augmentations.register("rotate")
@dataclass(frozen=True)
class Rotate(Geometry):
    """Rotates by an angle up to so many degrees in either direction, drawn uniformly.

    An upright box around a turned object's box is larger than the object: small angles keep boxes tight.
    """

    degrees: float = 10.0

    def __post_init__(self):
        self.refuse({"degrees": at_least(0, most=180)})

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        cosine, sine = math.cos(angle), math.sin(angle)
        return scene.moved(about(scene.centre, np.array([[cosine, -sine], [sine, cosine]])))


@augmentations.register("shear")
@dataclass(frozen=True)
class Shear(Geometry):
    """Shears along both axes, by up to so many degrees in either direction, each drawn uniformly."""

    degrees: float = 5.0

    def __post_init__(self):
        self.refuse({"degrees": at_least(0, most=40)})

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        along_x, along_y = (math.tan(math.radians(a)) for a in rng.uniform(-self.degrees, self.degrees, 2))
        return scene.moved(about(scene.centre, np.array([[1.0, along_x], [along_y, 1.0]])))

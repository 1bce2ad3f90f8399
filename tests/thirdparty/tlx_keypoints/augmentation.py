"""An augmentation of its own."""

from dataclasses import dataclass

import numpy as np

from tlx.augment import Geometry, Scene
from tlx.augment.affine import shifted
from tlx.registry import augmentations


@augmentations.register("jitter")
@dataclass(frozen=True)
class Jitter(Geometry):
    """The whole picture, moved to any side by at most `share` of its own."""

    share: float = 0.05

    def __post_init__(self):
        self.refuse({"share": 0 <= self.share < 1})

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        return scene.moved(shifted(*rng.uniform(-self.share, self.share, 2) * (scene.width, scene.height)))

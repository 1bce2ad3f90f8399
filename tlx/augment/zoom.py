"""Larger and smaller, wider and narrower, and anywhere in the input."""

import math
from dataclasses import dataclass, replace

import numpy as np

from tlx.augment.affine import fit, shifted
from tlx.augment.operation import Geometry
from tlx.augment.scene import Scene
from tlx.errors import above, at_least
from tlx.registry import augmentations


@augmentations.register("zoom")
@dataclass(frozen=True)
class Zoom(Geometry):
    """Zooms and stretches, and shifts within the room that this leaves.

    `range` is that of sizes relative to the picture as `run.resize` fits it into the input, drawn log-uniformly.
    `stretch` is the greatest change of aspect, as a factor. A small picture then goes anywhere in the input, of a
    large one any part is shown.
    """

    range: tuple[float, float] = (0.6, 1.6)
    stretch: float = 1.0

    def __post_init__(self):
        sound = {"range": above(0), "stretch": at_least(1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        zoom = math.exp(rng.uniform(*map(math.log, self.range)))
        stretch = math.exp(rng.uniform(-1, 1) * math.log(self.stretch) / 2)
        x, y = zoom * stretch, zoom / stretch
        fitted, placed = scene.fitted(), fit(scene.width, scene.height, scene.size, scene.resize)
        shift_x, shift_y = rng.uniform(-0.5, 0.5, 2).tolist()
        shift_x *= fitted.width - scene.width * placed[0, 0] * x
        shift_y *= fitted.height - scene.height * placed[1, 1] * y
        middle_x, middle_y = fitted.centre
        moved = [[x, 0.0, middle_x * (1 - x) + shift_x], [0.0, y, middle_y * (1 - y) + shift_y]]
        return fitted.moved(np.array(moved))


@augmentations.register("expand")
@dataclass(frozen=True)
class Expand(Geometry):
    """Puts the picture anywhere on a larger grey canvas, with a probability: SSD's zooming out.

    `largest` is the greatest factor by which the canvas grows, drawn uniformly from 1.
    """

    largest: float = 4.0
    probability: float = 0.5

    def __post_init__(self):
        sound = {"largest": at_least(1), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        if rng.random() >= self.probability:
            return scene
        ratio = rng.uniform(1, self.largest)
        room = np.array([scene.width, scene.height]) * (ratio - 1)
        moved = scene.moved(shifted(*rng.uniform(0, room)))
        return replace(moved, width=scene.width * ratio, height=scene.height * ratio)

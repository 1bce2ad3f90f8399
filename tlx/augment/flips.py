"""Mirror images and turns by 90 degrees: exact, as no pixel is resampled for them."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from tlx.augment.operation import Geometry
from tlx.augment.scene import Scene
from tlx.errors import at_least
from tlx.registry import augmentations


@dataclass(frozen=True)
class Sometimes(Geometry):
    """What is done with a probability, and otherwise changes nothing."""

    probability: float = 0.5

    def __post_init__(self):
        self.refuse({"probability": at_least(0, most=1)})

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        return self.change(rng, scene) if rng.random() < self.probability else scene

    @abstractmethod
    def change(self, rng: np.random.Generator, scene: Scene) -> Scene:
        """Return the changed scene."""


@augmentations.register("flip")
@dataclass(frozen=True)
class Flip(Sometimes):
    """Mirrors left to right, with a probability."""

    def change(self, rng: np.random.Generator, scene: Scene) -> Scene:
        return scene.moved(np.array([[-1.0, 0.0, scene.width], [0.0, 1.0, 0.0]]))


@augmentations.register("vertical_flip")
@dataclass(frozen=True)
class VerticalFlip(Sometimes):
    """Mirrors top to bottom, with a probability: for pictures from above or through a microscope."""

    def change(self, rng: np.random.Generator, scene: Scene) -> Scene:
        return scene.moved(np.array([[1.0, 0.0, 0.0], [0.0, -1.0, scene.height]]))


@augmentations.register("quarter_turns")
@dataclass(frozen=True)
class QuarterTurns(Sometimes):
    """Turns by 90, 180 or 270 degrees, each as often, with a probability."""

    probability: float = 0.75

    def change(self, rng: np.random.Generator, scene: Scene) -> Scene:
        return turned(scene, rng.integers(1, 4))


def turned(scene: Scene, quarters: int) -> Scene:
    """Return a scene turned clockwise by so many times 90 degrees."""
    for _ in range(quarters):
        moved = scene.moved(np.array([[0.0, -1.0, scene.height], [1.0, 0.0, 0.0]]))
        scene = replace(moved, width=scene.height, height=scene.width)
    return scene

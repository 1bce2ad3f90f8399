"""Random crops that look at where objects are. What is cut off of an object counts as `move` says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlx.augment.operation import Geometry
from tlx.augment.scene import Scene
from tlx.augment.view import Box
from tlx.errors import above, at_least
from tlx.registry import augmentations

Range = tuple[float, float]
_ATTEMPTS = 100


@augmentations.register("crop_by_overlap")
@dataclass(frozen=True)
class CropByOverlap(Geometry):
    """Crops so that an object overlaps the crop at least so much: SSD's random crop.

    One of `overlaps` is drawn each time: the least IoU of the crop with some object. `area` is the range of the
    crop's share of the picture, `aspect` that of its width by its height. With 1 - `probability`, and where no crop
    is found, the whole picture is shown. Source: Liu et al., SSD: Single Shot MultiBox Detector, 2.2.
    """

    overlaps: tuple[float, ...] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
    area: Range = (0.1, 1.0)
    aspect: Range = (0.5, 2.0)
    probability: float = 0.85
    sees_objects = True

    def __post_init__(self):
        sound = {
            "overlaps": (self.overlaps and all(0 <= least <= 1 for least in self.overlaps)) or "some numbers, 0 to 1",
            "area": above(0, most=1),
            "aspect": above(0),
            "probability": at_least(0, most=1),
        }
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        if rng.random() >= self.probability:
            return scene
        return crop(rng, scene, self.area, self.aspect, rng.choice(self.overlaps), "iou")


@augmentations.register("crop_keeping_centres")
@dataclass(frozen=True)
class CropKeepingCentres(Geometry):
    """Crops so that the middle of every object stays in the picture.

    `smallest` is the least share of each side that is kept; both are drawn uniformly from there to 1, and are larger
    where objects lie farther apart.
    """

    smallest: float = 0.5
    probability: float = 1.0
    sees_objects = True

    def __post_init__(self):
        sound = {"smallest": above(0, most=1), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        if rng.random() >= self.probability:
            return scene
        boxes, whole = scene.objects(), np.array([scene.width, scene.height])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 if len(boxes) else whole[None] * rng.random(2)
        first, last = centres.min(0), centres.max(0)
        side = np.maximum(whole * rng.uniform(self.smallest, 1, 2), last - first)
        # Rounding may leave a little less than no room where objects lie as far apart as can be.
        least = np.maximum(0, last - side)
        low = rng.uniform(least, np.maximum(least, np.minimum(whole - side, first)))
        return scene.cropped((*low.tolist(), *(low + side).tolist()))


def crop(
    rng: np.random.Generator, scene: Scene, area: Range, aspect: Range, least: float, measure: Literal["iou", "covered"]
) -> Scene:
    """Return a random crop of a scene, of which some object has at least so much, or the scene where none is found.

    `measure` says how much that is: the IoU of crop and object, or the share of the object that the crop covers.
    """
    whole = np.array([scene.width, scene.height])
    share, ratio = rng.uniform(*area, _ATTEMPTS), np.exp(rng.uniform(*np.log(aspect), _ATTEMPTS))
    sides = np.sqrt(share * whole.prod())[:, None] * np.stack([np.sqrt(ratio), 1 / np.sqrt(ratio)], axis=1)
    low = rng.random((_ATTEMPTS, 2)) * (whole - sides)
    crops = np.concatenate([low, low + sides], axis=1)
    sound = (sides <= whole).all(1)
    boxes = scene.objects()
    if len(boxes):
        sound &= (_overlaps(crops, boxes, measure) >= least).any(1)
    return scene.cropped(_box(crops[sound][0])) if sound.any() else scene


def _overlaps(crops: np.ndarray, boxes: np.ndarray, measure: str) -> np.ndarray:
    inner = np.minimum(crops[:, None, 2:], boxes[None, :, 2:]) - np.maximum(crops[:, None, :2], boxes[None, :, :2])
    shared = np.clip(inner, 0, None).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)[None]
    if measure == "iou":
        areas = areas + (crops[:, 2:] - crops[:, :2]).prod(1)[:, None] - shared
    # What is covered but for a rounding error is covered.
    return shared / np.maximum(areas, 1e-9) + 1e-9


def _box(values: Sequence[float]) -> Box:
    x0, y0, x1, y1 = map(float, values)
    return x0, y0, x1, y1

"""Several pictures in one view: mosaic, mixup and copy-paste."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tlx.augment.affine import after, fit, scaled, shifted
from tlx.augment.operation import Combination
from tlx.augment.scene import Picture, Scene
from tlx.augment.view import Layer, place
from tlx.errors import above, at_least
from tlx.registry import augmentations

Range = tuple[float, float]


@augmentations.register("mosaic")
@dataclass(frozen=True)
class Mosaic(Combination):
    """Shows parts of four pictures side by side, with a probability, each of them smaller.

    They meet at a point that is drawn from the range `meet`, as shares of the input's width and height. Each fills
    its part without distortion; what does not fit is cut off at random sides.
    Source: Bochkovskiy et al., YOLOv4: Optimal Speed and Accuracy of Object Detection, 3.3.
    """

    meet: Range = (0.3, 0.7)
    probability: float = 0.5
    pictures = 4

    def __post_init__(self):
        sound = {"meet": above(0, below=1), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene, others: Sequence[Picture]) -> Scene:
        if rng.random() >= self.probability:
            return scene
        height, width = scene.size
        x, y = (rng.uniform(*self.meet, 2) * (width, height)).tolist()
        parts = [(0.0, 0.0, x, y), (x, 0.0, width, y), (0.0, y, x, height), (x, y, width, height)]
        scenes = [scene, *(Scene.of(other, scene.size, scene.resize) for other in others)]
        order = rng.permutation(len(parts))
        filled = [one.filling(parts[i], tuple(rng.random(2))) for one, i in zip(scenes, order, strict=True)]
        layers = tuple(layer for one in filled for layer in one.layers)
        return replace(scene, layers=layers, width=float(width), height=float(height), pictures=_known(scene, others))


@augmentations.register("mixup")
@dataclass(frozen=True)
class Mixup(Combination):
    """Lays a second picture over the first, half transparent, with a probability; both keep their objects.

    How much of the second is seen is drawn from Beta(`alpha`, `alpha`): about a half where alpha is large.
    Source: Zhang et al., Bag of Freebies for Training Object Detection Neural Networks, 3.1.
    """

    alpha: float = 32.0
    probability: float = 0.5
    pictures = 2

    def __post_init__(self):
        sound = {"alpha": above(0, most=1e6), "probability": at_least(0, most=1)}
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene, others: Sequence[Picture]) -> Scene:
        if rng.random() >= self.probability:
            return scene
        opacity = float(rng.beta(self.alpha, self.alpha))
        fitted = scene.fitted()
        second = Scene.of(others[0], scene.size, scene.resize).fitted()
        layers = tuple(replace(layer, opacity=opacity) for layer in second.layers)
        return replace(fitted, layers=(*fitted.layers, *layers), pictures=_known(scene, others))


@augmentations.register("copy_paste")
@dataclass(frozen=True)
class CopyPaste(Combination):
    """Pastes objects of a second picture, with the box around them, anywhere on the first, with a probability.

    There are up to `objects`. `scale` is the range of their sizes relative to those in a view of their own picture,
    drawn log-uniformly. What they cover counts as out of view. Objects that touch others are pasted with them.
    Source: Dwibedi et al., Cut, Paste and Learn: Surprisingly Easy Synthesis for Instance Detection.
    """

    objects: int = 3
    scale: Range = (0.5, 1.5)
    probability: float = 0.5
    pictures = 2

    def __post_init__(self):
        sound = {
            "objects": at_least(1, most=1000),
            "scale": above(0),
            "probability": at_least(0, most=1),
        }
        self.refuse(sound)

    def __call__(self, rng: np.random.Generator, scene: Scene, others: Sequence[Picture]) -> Scene:
        if rng.random() >= self.probability:
            return scene
        other, fitted = others[0], scene.fitted()
        fits = fit(other.width, other.height, scene.size, scene.resize)
        layers, pasted = [], np.zeros(len(other.boxes), np.bool_)
        for number in rng.permutation(np.flatnonzero(~other.ignore))[: self.objects]:
            x0, y0, x1, y1 = crop = tuple(other.boxes[number].astype(float).tolist())
            zoom = np.exp(rng.uniform(*np.log(self.scale)))
            x, y = fits[0, 0] * zoom, fits[1, 1] * zoom
            room = np.array([fitted.width - x * (x1 - x0), fitted.height - y * (y1 - y0)])
            at = rng.uniform(np.minimum(0, room), np.maximum(0, room))
            layer = Layer(other.number, after(shifted(*at), after(scaled(x, y), shifted(-x0, -y0))), crop)
            touched = place(other.boxes, layer, np.inf, np.inf)[1] > 0
            # One label for one object: what came along with an earlier one does not come again.
            if not (touched & pasted).any():
                pasted |= touched
                layers.append(replace(layer, objects=tuple(np.flatnonzero(touched).tolist())))
        return replace(fitted, layers=(*fitted.layers, *layers), pictures=_known(scene, others))


def _known(scene: Scene, others: Sequence[Picture]) -> dict[int, Picture]:
    return {**scene.pictures, **{other.number: other for other in others}}

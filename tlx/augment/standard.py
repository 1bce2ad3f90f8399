"""Presets: several operations under one name."""

from dataclasses import dataclass

from tlx.augment.colours import Brightness, Contrast, Hue, Saturation
from tlx.augment.flips import Flip
from tlx.augment.operation import Augmentation, Operation
from tlx.augment.zoom import Zoom
from tlx.errors import above, at_least
from tlx.registry import augmentations


@augmentations.register("none")
@dataclass(frozen=True)
class NoAugmentation(Augmentation):
    """Every view shows the whole picture as it is."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        return ()


@augmentations.register("photometric")
@dataclass(frozen=True)
class Photometric(Augmentation):
    """Other light: brightness, contrast, saturation and hue, as those operations do it."""

    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.4
    hue: float = 10.0

    def __post_init__(self):
        sound = {name: at_least(0, most=1) for name in ("brightness", "contrast", "saturation")}
        self.refuse({**sound, "hue": at_least(0, most=180)})

    @property
    def operations(self) -> tuple[Operation, ...]:
        light = Saturation(self.saturation), Brightness(self.brightness), Contrast(self.contrast)
        return (*light, Hue(self.hue)) if self.hue else light


@augmentations.register("standard")
@dataclass(frozen=True)
class Standard(Augmentation):
    """Mirrored, zoomed, stretched and shifted views, under other light; the default.

    It is `flip`, `zoom`, `saturation`, `brightness` and `contrast`. `flip` is the probability of a mirror image.
    `zoom` is the range of sizes relative to the fitted picture, drawn log-uniformly. `stretch` is the greatest
    change of aspect, as a factor. `brightness`, `contrast` and `saturation` are the greatest relative changes, each
    drawn uniformly.
    """

    flip: float = 0.5
    zoom: tuple[float, float] = (0.6, 1.6)
    stretch: float = 1.15
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.4

    def __post_init__(self):
        sound = {
            "flip": at_least(0, most=1),
            "zoom": above(0),
            "stretch": at_least(1),
            **{name: at_least(0, most=1) for name in ("brightness", "contrast", "saturation")},
        }
        self.refuse(sound)

    @property
    def operations(self) -> tuple[Operation, ...]:
        light = Photometric(self.brightness, self.contrast, self.saturation, 0.0)
        return Flip(self.flip), Zoom(self.zoom, self.stretch), *light.operations

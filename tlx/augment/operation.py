"""What augmentations are: operations of four kinds, which views are drawn by."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from tlx.augment.affine import Frame, Resize, after
from tlx.augment.scene import Picture, Scene
from tlx.augment.view import PixelChange, View
from tlx.errors import Bounds, ConfigError, refuse_values
from tlx.registry import augmentations


class Augmentation(ABC):
    """What `run.augment` takes, one or several: an operation, or a preset of them.

    Its `repr` must tell everything that its views depend on: cached features are filed under it.
    """

    @property
    @abstractmethod
    def operations(self) -> "tuple[Operation, ...]":
        """The operations that it stands for, in order."""

    def refuse(self, sound: Mapping[str, Bounds | bool | str]) -> None:
        """Raise a ConfigError that names the first argument, under the name it is registered by, that is not sound."""
        named = (entry.full_name for entry in augmentations.entries.values() if entry.factory is type(self))
        refuse_values(next(named, type(self).__name__), self, sound)


class Operation(Augmentation):
    """One operation, which is of one of the kinds below.

    `pictures` is how many pictures it takes, that which the view is of included. `sees_objects` says whether what
    it draws depends on where objects are, or on other pictures.
    """

    pictures: ClassVar[int] = 1
    sees_objects: ClassVar[bool] = False

    @property
    def operations(self) -> "tuple[Operation, ...]":
        return (self,)


class Combination(Operation):
    """Lays other pictures on the canvas."""

    sees_objects = True

    @abstractmethod
    def __call__(self, rng: np.random.Generator, scene: Scene, others: Sequence[Picture]) -> Scene:
        """Return `scene` with others laid on it, which are `pictures` - 1, its own first layer still first."""


class Geometry(Operation):
    """Moves what is on the canvas, or chooses a part of it: all such operations become one map for each picture."""

    @abstractmethod
    def __call__(self, rng: np.random.Generator, scene: Scene) -> Scene:
        """Return `scene` mapped (`Scene.moved`), cropped (`Scene.cropped`) or both."""


class Colour(Operation):
    """Changes colours: all such operations become one map."""

    @abstractmethod
    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        """Return a map [3, 4] of RGB1 to RGB in 0..255."""


class Pixels(Operation):
    """Changes pixels of the input, when everything else is done."""

    @abstractmethod
    def __call__(self, rng: np.random.Generator, size: Frame) -> PixelChange | None:
        """Return a change of an input of `size` (height, width) with its parameters drawn, or None for no change."""


KINDS = (Combination, Geometry, Colour, Pixels)


def arranged(augment: Augmentation | Sequence[Augmentation] | None) -> tuple[Operation, ...]:
    """Return the operations of one or several augmentations: by kind, and within a kind as they were given.

    Raises:
      ConfigError: something in it is no operation of a known kind.
    """
    given = () if augment is None else (augment,) if not isinstance(augment, (tuple, list)) else augment
    operations = [operation for one in given for operation in getattr(one, "operations", (one,))]
    for operation in operations:
        if not isinstance(operation, KINDS):
            kinds = ", ".join(kind.__name__ for kind in KINDS)
            raise ConfigError(f"run.augment: {operation!r} is no operation; those are subclasses of {kinds}")
    return tuple(sorted(operations, key=lambda o: next(i for i, kind in enumerate(KINDS) if isinstance(o, kind))))


def pictures_of(operations: Sequence[Operation]) -> int:
    """Return how many pictures one view takes."""
    return 1 + sum(operation.pictures - 1 for operation in operations)


def draw_view(
    operations: Sequence[Operation],
    rng: np.random.Generator,
    picture: Picture,
    size: Frame,
    resize: Resize = "letterbox",
    others: Sequence[Picture] = (),
) -> View:
    """Return a view of a picture, and of `others` where operations combine pictures, for an input of `size`.

    `operations` are in the order of `arranged`, `others` are `pictures_of(operations)` - 1. Without operations it is
    the whole picture.

    Raises:
      ConfigError: operations made a view that cannot be drawn.
    """
    scene, colour, changes, waiting = Scene.of(picture, size, resize), None, [], list(others)
    for operation in operations:
        match operation:
            case Combination():
                taken, waiting = waiting[: operation.pictures - 1], waiting[operation.pictures - 1 :]
                scene = operation(rng, scene, taken)
            case Geometry():
                scene = operation(rng, scene)
            case Colour():
                mixed = operation(rng)
                colour = mixed if colour is None else after(mixed, colour)
            case Pixels():
                changes.append(operation(rng, size))
    try:
        return View(size, scene.fitted().layers, colour, tuple(change for change in changes if change is not None))
    except ConfigError as error:
        raise ConfigError(f"run.augment = ({', '.join(map(repr, operations))}): {error}") from error


def whole(picture: Picture, size: Frame, resize: Resize = "letterbox") -> View:
    """Return the view that shows a picture as it is, without any augmentation."""
    return View(size, Scene.of(picture, size, resize).fitted().layers)

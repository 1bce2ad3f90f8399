"""Solids of revolution, seen from slightly above: the shape of bottles, mugs and pots."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tlx.data.scenes.canvas import Light


@dataclass(frozen=True)
class Surface:
    """What each pixel of a turned solid shows; all arrays are float32 [h, w].

    (`x`, `y`) is the top left corner relative to the middle of the foot, in canvas pixels. `height`
    runs from 0 at the foot to 1 at the top, `side` from -1 at the left outline to 1 at the right one,
    and `slope` is how fast the radius shrinks upwards. `cover` is the whole silhouette. `lid` covers
    the top disc; in it `lid_x` and `lid_y` run from -1 to 1, left to right and front to back.
    """

    x: int
    y: int
    angle: float
    height: np.ndarray
    side: np.ndarray
    slope: np.ndarray
    cover: np.ndarray
    lid: np.ndarray
    lid_x: np.ndarray
    lid_y: np.ndarray

    @cached_property
    def facing(self) -> np.ndarray:
        """How far each pixel faces the viewer, 0 at the outline to 1 in the middle."""
        return np.sqrt(np.maximum(1 - self.side * self.side, 0))

    def lit(self, towards: tuple[float, float, float]) -> np.ndarray:
        """Return the cosine between the surface and a direction (across, along, out), at least 0."""
        length = np.sqrt(1 + self.slope * self.slope)
        cosine = (self.side * towards[0] + self.slope * towards[1] + self.facing * towards[2]) / length
        return np.maximum(cosine, 0).astype(np.float32)

    def shade(self, colour: np.ndarray, light: Light, gloss: float) -> np.ndarray:
        """Return `colour` [h, w, 3] or [3] under `light`, with a highlight of strength `gloss`."""
        across, along, out = light.turned(self.angle)
        diffuse = light.ambient + (1 - light.ambient) * 1.15 * self.lit((across, along, out))
        return colour * diffuse[..., None] + (gloss * self.highlight(light))[..., None]

    def highlight(self, light: Light, sharpness: int = 5) -> np.ndarray:
        """Return the mirrored light, 0..1; each step of `sharpness` squares it once more."""
        across, along, out = light.turned(self.angle)
        length = math.sqrt(across**2 + along**2 + (out + 1) ** 2)
        shine = self.lit((across / length, along / length, (out + 1) / length))
        for _ in range(sharpness):
            shine = shine * shine
        return shine


def smooth_profile(knots: list[tuple[float, float]], height: int, radius: float, rounds: int) -> np.ndarray:
    """Return float32 radii in pixels for each of `height` pixels of height, from (height, radius) knots in 0..1."""
    places, radii = np.array(knots).T
    profile = np.interp((np.arange(height) + 0.5) / height, places, radii * radius)
    for _ in range(rounds):
        padded = np.concatenate([profile[:1], profile, profile[-1:]])
        profile = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return profile.astype(np.float32)


def turn(profile: np.ndarray, view: float, angle: float = 0.0) -> Surface:
    """Return the surface with these radii, its foot at the origin, leaning clockwise by `angle` radians.

    `view` is the ratio of the short to the long axis of a circle as the viewer sees it: 0 from the side.
    """
    tall, radius = len(profile), float(profile.max())
    sine, cosine = math.sin(angle), math.cos(angle)
    corners = [(v, u) for v in (-radius, radius) for u in (-view * radius, tall + view * radius)]
    xs = [v * cosine + u * sine for v, u in corners]
    ys = [v * sine - u * cosine for v, u in corners]
    x, y = math.floor(min(xs)) - 1, math.floor(min(ys)) - 1
    across = np.arange(x, math.ceil(max(xs)) + 2, dtype=np.float32)[None, :] + np.float32(0.5)
    down = np.arange(y, math.ceil(max(ys)) + 2, dtype=np.float32)[:, None] + np.float32(0.5)
    v = across * np.float32(cosine) + down * np.float32(sine)
    u = across * np.float32(sine) - down * np.float32(cosine)

    def radius_at(height: np.ndarray) -> np.ndarray:
        return profile[np.clip(height, 0, tall - 1).astype(np.int32)]

    # The visible front of a circle hangs below its middle; two steps find which circle a pixel lies on.
    along = u
    for _ in range(2):
        r = radius_at(along)
        along = u + np.float32(view) * np.sqrt(np.maximum(r * r - v * v, 0))
    r = radius_at(along)
    body = np.clip(r - np.abs(v) + 0.5, 0, 1) * np.clip(along + 0.5, 0, 1) * (along <= tall)
    rim = profile[-1]
    lid_x, lid_y = v / rim, (u - tall) / (rim * np.float32(max(view, 1e-3)))
    lid = np.clip((1 - np.sqrt(lid_x * lid_x + lid_y * lid_y)) * (rim * view) + 0.5, 0, 1)
    steps = np.concatenate(
        [profile[:1] - profile[1:2], (profile[:-2] - profile[2:]) / 2, profile[-2:-1] - profile[-1:]]
    )
    slope = steps[np.clip(along, 0, tall - 1).astype(np.int32)]
    side = np.clip(v / r, -1, 1)
    return Surface(x, y, angle, along / tall, side, slope, np.maximum(body, lid), lid, lid_x, lid_y)

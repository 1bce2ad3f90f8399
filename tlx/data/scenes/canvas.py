"""What things are painted on: a float picture at twice the final size, with light and shadow.

Only + - * / and square roots touch pixels here and in the other files of this folder: unlike powers
and sines they round the same on every processor, which keeps the pictures byte for byte the same.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

SUPERSAMPLE = 2


@dataclass(frozen=True)
class Light:
    """Where light comes from and what colour it has.

    `direction` is a unit vector (right, up, towards the viewer); `ambient` is the share of light that
    comes from everywhere; `colour` is what white becomes, as RGB factors near 1.
    """

    direction: tuple[float, float, float]
    ambient: float
    colour: tuple[float, float, float]

    def turned(self, angle: float) -> tuple[float, float, float]:
        """Return the direction as seen by something turned clockwise by `angle` (radians): across, along, out."""
        x, y, z = self.direction
        return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle), z


@dataclass(frozen=True)
class Sprite:
    """A painted thing: what it emits, what it lets through, and which pixels it covers.

    (`x`, `y`) is the canvas pixel of its top left corner. `light` is float32 [h, w, 3], `through` [h, w, 3]
    or (without colour) [h, w, 1], `cover` is float32 [h, w] in 0..1. Painting makes
    `canvas * through + light`, which serves glass as well.
    """

    x: int
    y: int
    light: np.ndarray
    through: np.ndarray
    cover: np.ndarray

    @classmethod
    def solid(cls, x: int, y: int, colour: np.ndarray, cover: np.ndarray) -> "Sprite":
        """Return an opaque sprite of `colour` [h, w, 3] where `cover` [h, w] is 1."""
        mask = cover[..., None]
        return cls(x, y, colour * mask, 1 - mask, cover)

    @classmethod
    def picture(cls, x: int, y: int, image: Image.Image, shade: float | np.ndarray = 1.0) -> "Sprite":
        """Return what Pillow drew: an RGBA image, its colours multiplied by `shade`."""
        left, top, *_ = box = image.getbbox()
        pixels = np.asarray(image.crop(box), np.float32) / np.float32(255)
        return cls.solid(x + left, y + top, pixels[..., :3] * np.float32(shade), pixels[..., 3])

    def over(self, other: "Sprite") -> "Sprite":
        """Return this sprite painted in front of another as one sprite."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        width = max(s.x + s.cover.shape[1] for s in (self, other)) - x
        height = max(s.y + s.cover.shape[0] for s in (self, other)) - y
        light = np.zeros((height, width, 3), np.float32)
        through = np.ones((height, width, max(self.through.shape[2], other.through.shape[2])), np.float32)
        cover = np.zeros((height, width), np.float32)
        for sprite in (other, self):
            rows = slice(sprite.y - y, sprite.y - y + sprite.cover.shape[0])
            columns = slice(sprite.x - x, sprite.x - x + sprite.cover.shape[1])
            light[rows, columns] = light[rows, columns] * sprite.through + sprite.light
            through[rows, columns] *= sprite.through
            cover[rows, columns] = np.maximum(cover[rows, columns], sprite.cover)
        return Sprite(x, y, light, through, cover)


class Canvas:
    """A picture in the making: float32 [h, w, 3], about 0..1, at SUPERSAMPLE times the final size."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def window(self, sprite: Sprite) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of the canvas that a sprite falls on, and the part of the sprite that falls on it."""
        height, width = self.pixels.shape[:2]
        h, w = sprite.cover.shape
        top, bottom = max(sprite.y, 0), max(min(sprite.y + h, height), 0)
        left, right = max(sprite.x, 0), max(min(sprite.x + w, width), 0)
        here = slice(top, max(top, bottom)), slice(left, max(left, right))
        there = tuple(slice(s.start - o, s.stop - o) for s, o in zip(here, (sprite.y, sprite.x), strict=True))
        return here, there

    def paint(self, sprite: Sprite) -> None:
        """Lay a sprite over what is there."""
        here, there = self.window(sprite)
        self.pixels[here] = self.pixels[here] * sprite.through[there] + sprite.light[there]

    def cast(self, standing: list[tuple[Sprite, int]], light: Light, horizon: int) -> None:
        """Darken the table (below row `horizon`) where sprites, each with the row it stands on, keep light away."""
        height, width = self.pixels.shape[:2]
        quarter = (width // 4, height // 4)
        cast, contact = Image.new("L", quarter), Image.new("L", quarter)
        for sprite, base in standing:
            cast = ImageChops.lighter(cast, _thrown(sprite, base, light, quarter))
            _touch(contact, sprite, base)
        soft = np.asarray(cast.filter(ImageFilter.GaussianBlur(2)), np.float32) * (1 - light.ambient)
        soft = np.maximum(soft, np.asarray(contact.filter(ImageFilter.GaussianBlur(2.5)), np.float32) * 0.6)
        dark = Image.fromarray(soft.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
        self.pixels[horizon:] *= 1 - np.asarray(dark, np.float32)[horizon:, :, None] / np.float32(255)

    def finish(self, light: Light, exposure: float, blur: float, noise: np.ndarray) -> Image.Image:
        """Return the picture as a camera would: scaled down, exposed, tinted, blurred and noisy (levels)."""
        small = sum(self.pixels[y::SUPERSAMPLE, x::SUPERSAMPLE] for y in range(SUPERSAMPLE) for x in range(SUPERSAMPLE))
        exposed = small * (np.float32(exposure * 255 / SUPERSAMPLE**2) * np.float32(light.colour))
        exposed = np.where(exposed > 200, 200 + (exposed - 200) * np.float32(0.6), exposed)
        image = Image.fromarray(np.clip(exposed, 0, 255).astype(np.uint8))
        if blur > 0:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        return Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))


def _thrown(sprite: Sprite, base: int, light: Light, quarter: tuple[int, int]) -> Image.Image:
    """Return the shadow that a sprite throws on the table, on a canvas a quarter as large."""
    lean = -light.direction[0] / max(light.direction[1], 0.3)
    flat = 0.32 * (light.direction[2] / max(light.direction[1], 0.3))
    # Shadow pixel (x, y) takes sprite pixel (x - lean * up, base - up), where up = (base - y) / flat.
    scale, bias = 4 / flat, base / flat
    matrix = (4, lean * scale, -sprite.x - lean * bias, 0, scale, base - sprite.y - bias)
    mask = Image.fromarray((sprite.cover * 255).astype(np.uint8))
    return mask.transform(quarter, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _touch(contact: Image.Image, sprite: Sprite, base: int) -> None:
    """Darken the small strip of table that a sprite nearly touches."""
    h, w = sprite.cover.shape
    foot = np.flatnonzero(sprite.cover[max(0, h - max(6, w // 6)) :].max(axis=0) > 0.5)
    left, right = (int(foot[0]), int(foot[-1])) if len(foot) else (0, w)
    deep = min((right - left) * 0.16, 14)
    box = (sprite.x + left) / 4, (base - deep) / 4, (sprite.x + right) / 4 + 1, (base + deep * 0.7) / 4 + 1
    contact.paste(255, tuple(int(value) for value in box))

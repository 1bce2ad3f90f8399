"""Plants, and the clutter that nobody asked for: balls, boxes, sheets of paper and pens."""

import colorsys
import math

import numpy as np
from PIL import Image, ImageDraw

from tlx.data.scenes.canvas import Light, Sprite
from tlx.data.scenes.turned import POTS, vessel

Point = tuple[float, float]


def _paint(rng: np.random.Generator, hue: tuple[float, float], saturation: tuple[float, float], value) -> tuple:
    colour = colorsys.hsv_to_rgb(rng.uniform(*hue) % 1, rng.uniform(*saturation), rng.uniform(*value))
    return tuple(round(part * 255) for part in colour)


def _scaled(colour: tuple, factor: float) -> tuple:
    return tuple(min(255, round(part * factor)) for part in colour)


def plant(rng: np.random.Generator, light: Light, height: float, view: float) -> Sprite:
    """Return a potted plant: broad, spiky or bushy leaves above a pot."""
    tall = height * rng.uniform(0.36, 0.46)
    pot = vessel(rng, light, tall, view, shapes=POTS, inside=np.float32([0.16, 0.1, 0.07]))
    reach = round(height * 0.62)
    image = Image.new("RGBA", (2 * reach, 2 * reach))
    draw = ImageDraw.Draw(image)
    root = (reach, 2 * reach - 1 - tall * 0.05)
    style = rng.integers(3)
    hue, saturation, value = (0.22, 0.4), (0.45, 0.75), (0.35, 0.62)
    count, width, spread = [(9, 0.17, 1.15), (13, 0.055, 0.6), (26, 0.1, 1.3)][style]
    lengths = rng.uniform(0.6, 1.0, count) * (height - tall) * 1.02
    for i in np.argsort(-lengths, kind="stable"):
        angle = (rng.uniform(-1, 1) if style else (i / (count - 1) * 2 - 1 + rng.uniform(-0.1, 0.1))) * spread
        length = lengths[i] * (1 - 0.25 * abs(angle))
        bend = angle * rng.uniform(0.2, 0.6)
        green = _paint(rng, hue, saturation, value)
        _leaf(draw, root, length, angle=angle, bend=bend, width=width * height, colour=green, sun=light.direction[0])
    leaves = Sprite.picture(-reach, -round(tall) - 2 * reach + 2, image)
    return pot.over(leaves) if style == 2 else leaves.over(pot)


def _leaf(draw, root: Point, length: float, *, angle: float, bend: float, width: float, colour: tuple, sun: float):
    """Draw one leaf as two halves along a bent rib, the half that faces the sun lighter."""
    rib, normals = [], []
    for step in range(13):
        t = step / 12
        direction = angle + bend * t
        rib.append((root[0] + length * t * math.sin(direction), root[1] - length * t * math.cos(direction)))
        normals.append((math.cos(direction + bend * t), math.sin(direction + bend * t)))
    wide = [width / 2 * 6.75 * (s / 12) ** 2 * (1 - s / 12) + width * 0.04 for s in range(13)]
    for sign in (-1, 1):
        outline = [(p[0] + sign * w * n[0], p[1] + sign * w * n[1]) for p, n, w in zip(rib, normals, wide, strict=True)]
        draw.polygon(rib + outline[::-1], fill=(*_scaled(colour, 1 + 0.3 * sign * sun), 255))
    draw.line(rib, fill=(*_scaled(colour, 1.35), 255), width=max(1, round(width / 16)))


def ball(rng: np.random.Generator, light: Light, size: float) -> Sprite:
    """Return a ball `size` pixels high, resting on the origin."""
    radius = size / 2
    grid = np.arange(-math.ceil(radius) - 1, math.ceil(radius) + 1, dtype=np.float32) + np.float32(0.5)
    x, y = grid[None, :] / np.float32(radius), -grid[:, None] / np.float32(radius)
    off = np.sqrt(x * x + y * y)
    cover = np.clip((1 - off) * radius + 0.5, 0, 1).astype(np.float32)
    z = np.sqrt(np.maximum(1 - off * off, 0))
    lit = np.maximum(x * light.direction[0] + y * light.direction[1] + z * light.direction[2], 0)
    colour = np.float32(_paint(rng, (0, 1), (0.3, 0.85), (0.5, 0.95))) / np.float32(255)
    if rng.uniform() < 0.4:
        seam = np.abs(x * 0.8 + y * 0.6 + z * 0.3) < 0.12
        colour = np.where(seam[..., None], np.float32([0.95, 0.95, 0.92]), colour)
    shine = lit * lit
    for _ in range(4):
        shine = shine * shine
    shaded = colour * (light.ambient + (1 - light.ambient) * lit)[..., None] + 0.3 * shine[..., None]
    corner = -math.ceil(radius) - 1
    return Sprite.solid(corner, corner - round(radius * 0.92), shaded.astype(np.float32), cover)


def carton(rng: np.random.Generator, light: Light, size: float, view: float) -> Sprite:
    """Return a box `size` pixels high, seen over a corner, its front low in the middle of the origin."""
    left, right = size * rng.uniform(0.3, 1.0), size * rng.uniform(0.25, 0.9)
    drop = view * 0.55
    edge, wide = round(left) + 2, round(left + right) + 4
    up = round(size + (left + right) * drop) + 4
    image = Image.new("RGBA", (wide, up))
    draw = ImageDraw.Draw(image)
    foot = up - 2
    a, b, c = (edge - left, foot - left * drop), (edge, foot), (edge + right, foot - right * drop)
    top = [(x, y - size) for x, y in (a, b, c)]
    top.append((edge - left + right, foot - (left + right) * drop - size))
    brown = rng.uniform() < 0.5
    colour = _paint(rng, (0.02, 0.14) if brown else (0, 1), (0.2, 0.6), (0.45, 0.88))
    sun = light.direction[0]
    draw.polygon((a, b, top[1], top[0]), fill=(*_scaled(colour, 0.75 - 0.3 * sun), 255))
    draw.polygon((b, c, top[2], top[1]), fill=(*_scaled(colour, 0.75 + 0.3 * sun), 255))
    draw.polygon(top, fill=(*_scaled(colour, 1.12), 255))
    band = rng.uniform(0.2, 0.6)
    stripe = [(p[0], p[1] - size * h) for p, h in ((a, band), (b, band), (b, band + 0.18), (a, band + 0.18))]
    draw.polygon(stripe, fill=(*_paint(rng, (0, 1), (0.2, 0.8), (0.5, 0.9)), 255))
    return Sprite.picture(-edge, -foot, image)


def paper(rng: np.random.Generator, size: float, flat: float, brightness: float) -> Sprite:
    """Return a written sheet that lies around the origin, `size` pixels wide and squeezed by `flat`."""
    page = Image.new("RGBA", (48, 64), (*_paint(rng, (0.1, 0.16), (0, 0.12), (0.88, 0.97)), 255))
    draw = ImageDraw.Draw(page)
    for row in range(8, 58, 6):
        draw.line([(6, row), (rng.integers(24, 43), row)], fill=(90, 95, 120, 255), width=2)
    angle = math.degrees(rng.uniform(-1.4, 1.4))
    scale = size / 48
    page = page.resize((round(48 * scale), round(64 * scale)), Image.Resampling.BILINEAR)
    page = page.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    page = page.resize((page.width, max(4, round(page.height * flat))), Image.Resampling.BOX)
    return Sprite.picture(-page.width // 2, -page.height // 2, page, brightness)


def pen(rng: np.random.Generator, size: float, flat: float, brightness: float) -> Sprite:
    """Return a pen that lies around the origin, `size` pixels long."""
    half = math.ceil(size / 2) + 4
    image = Image.new("RGBA", (2 * half, 2 * half))
    draw = ImageDraw.Draw(image)
    angle = rng.uniform(0, math.pi)
    end = (math.cos(angle) * size / 2, math.sin(angle) * size / 2 * flat)
    colour = _paint(rng, (0, 1), (0.4, 0.9), (0.2, 0.85))
    middle, thick = np.array([half, half]), max(3, round(size * 0.055))
    tail, grip, neck, tip = (tuple(middle + np.array(end) * share) for share in (-1, -0.6, 0.85, 1))
    draw.line([tail, neck], fill=(*colour, 255), width=thick)
    draw.line([tail, grip], fill=(*_scaled(colour, 0.5), 255), width=thick)
    draw.line([neck, tip], fill=(40, 40, 44, 255), width=max(1, thick // 3))
    return Sprite.picture(-half, -half, image, brightness)

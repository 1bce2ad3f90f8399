"""Bottles, mugs and pots: turned things and what is printed on them."""

import math

import numpy as np

from tlx.data.scenes.canvas import Light, Sprite
from tlx.data.scenes.lathe import Surface, smooth_profile, turn

# Outlines as (height, radius) knots, with the radius as a share of the height.
BOTTLES = {
    "wine": ([(0, 0.92), (0.02, 1), (0.58, 1), (0.66, 0.84), (0.74, 0.42), (0.8, 0.34), (1, 0.31)], 0.145),
    "beer": ([(0, 0.92), (0.03, 1), (0.5, 1), (0.6, 0.8), (0.74, 0.5), (0.92, 0.36), (1, 0.38)], 0.16),
    "water": ([(0, 0.84), (0.05, 1), (0.34, 1), (0.42, 0.87), (0.5, 1), (0.72, 1), (0.88, 0.46), (1, 0.42)], 0.175),
    "milk": ([(0, 0.95), (0.04, 1), (0.58, 1), (0.8, 0.55), (0.9, 0.5), (1, 0.55)], 0.2),
    "soap": ([(0, 0.93), (0.05, 1), (0.68, 1), (0.78, 0.82), (0.82, 0.4), (1, 0.36)], 0.22),
    "sauce": ([(0, 0.88), (0.08, 1), (0.3, 0.93), (0.55, 1), (0.74, 0.62), (0.84, 0.42), (1, 0.24)], 0.18),
}
MUGS = [
    ([(0, 0.88), (0.04, 0.97), (0.1, 1), (1, 1)], 0.47),
    ([(0, 0.66), (0.06, 0.74), (0.5, 0.9), (1, 1)], 0.52),
    ([(0, 0.62), (0.08, 0.84), (0.3, 1), (0.7, 0.98), (1, 0.86)], 0.5),
]
POTS = [
    ([(0, 0.68), (0.7, 0.9), (0.73, 1), (1, 1)], 0.56),
    ([(0, 0.8), (0.05, 0.86), (1, 1)], 0.58),
    ([(0, 0.6), (0.3, 0.95), (0.6, 1), (1, 0.8)], 0.6),
]
GLASS = np.float32([[0.16, 0.36, 0.14], [0.42, 0.2, 0.06], [0.72, 0.86, 0.84], [0.5, 0.74, 0.86], [0.08, 0.2, 0.12]])
PLASTIC = np.float32(
    [[0.88, 0.88, 0.86], [0.8, 0.12, 0.1], [0.95, 0.72, 0.1], [0.12, 0.34, 0.7], [0.14, 0.55, 0.36], [0.5, 0.25, 0.56]]
)
CERAMIC = np.float32(
    [
        [0.92, 0.9, 0.86],
        [0.16, 0.32, 0.55],
        [0.72, 0.18, 0.15],
        [0.93, 0.7, 0.22],
        [0.25, 0.5, 0.45],
        [0.2, 0.2, 0.23],
        [0.85, 0.55, 0.5],
    ]
)
CLAY = np.float32([[0.72, 0.38, 0.22], [0.62, 0.32, 0.2], [0.86, 0.84, 0.8], [0.3, 0.38, 0.42], [0.75, 0.66, 0.5]])
DRINKS = np.float32([[0.16, 0.08, 0.04], [0.42, 0.2, 0.07], [0.8, 0.68, 0.52]])


def bottle(rng: np.random.Generator, light: Light, height: float, view: float) -> Sprite:
    """Return a bottle `height` pixels tall around the origin: standing, leaning or lying."""
    kind = str(rng.choice(list(BOTTLES)))
    knots, share = BOTTLES[kind]
    radius = height * share * rng.uniform(0.9, 1.15)
    pose = rng.uniform()
    angle = rng.uniform(-0.03, 0.03)
    if pose < 0.15:
        angle = rng.choice([-1, 1]) * rng.uniform(0.12, 0.4)
    elif pose < 0.33:
        angle, view = rng.choice([-1, 1]) * rng.uniform(1.35, 1.75), 0.12
    surface = turn(smooth_profile(knots, round(height), radius, max(2, round(height / 12))), view, angle)
    glassy = kind in ("wine", "beer") or (kind in ("water", "milk") and rng.uniform() < 0.6)
    albedo = np.broadcast_to(PLASTIC[rng.integers(len(PLASTIC))], (*surface.cover.shape, 3)).copy()
    opaque = np.full(surface.cover.shape, np.float32(not glassy))
    low = rng.uniform(0.1, 0.2)
    _stick_label(rng, surface, albedo, opaque, (low, low + rng.uniform(0.22, 0.36)))
    if kind == "wine" or rng.uniform() < 0.85:
        _put_cap(rng, surface, albedo, opaque, rng.uniform(0.74, 0.86) if kind == "wine" else rng.uniform(0.88, 0.93))
    painted = _glaze(rng, surface, light, albedo, opaque)
    lift = -round(radius * 0.85 * abs(math.sin(angle)))
    shift = -round(math.sin(angle) * height / 2)
    return Sprite(surface.x + shift, surface.y + lift, *painted)


def _stick_label(rng: np.random.Generator, surface: Surface, albedo: np.ndarray, opaque: np.ndarray, span) -> None:
    low, high = span
    place = (surface.height - low) / (high - low)
    where = (place >= 0) & (place <= 1)
    around = surface.side * (1 + surface.side * surface.side / 6)
    paper, ink, second = PLASTIC[rng.permutation(len(PLASTIC))[:3]]
    if rng.uniform() < 0.6:
        paper = np.float32([0.93, 0.91, 0.85])
    art = np.broadcast_to(paper, albedo.shape).copy()
    art[(place > 0.9) | (place < 0.08)] = ink
    middle, round_off = rng.uniform(0.5, 0.68), rng.uniform(0.25, 0.6)
    disc = around * around + ((place - middle) * 1.7) ** 2 < round_off**2 * 0.5
    art[disc] = second
    words = rng.uniform(size=(6, 24)) < 0.7
    row, column = np.clip(place * 14, 0, 5).astype(np.int32), np.clip((around + 1.2) * 10, 0, 23).astype(np.int32)
    art[words[row, column] & (place > 0.12) & (place < 0.36) & ((place * 14) % 1 < 0.55)] = ink * np.float32(0.6)
    albedo[where] = art[where]
    opaque[where] = 1


def _put_cap(rng: np.random.Generator, surface: Surface, albedo: np.ndarray, opaque: np.ndarray, above: float) -> None:
    where = surface.height >= above
    ridges = 0.86 + 0.14 * (np.abs((surface.side * 5) % 1 - 0.5) > 0.2)
    colour = PLASTIC[rng.integers(len(PLASTIC))] * rng.choice([1.0, 0.35])
    albedo[where] = (colour * ridges[..., None])[where]
    opaque[where] = 1


def _glaze(rng: np.random.Generator, surface: Surface, light: Light, albedo: np.ndarray, opaque: np.ndarray):
    """Return light, through and cover of a surface that is glass where `opaque` is 0."""
    tint = GLASS[rng.integers(len(GLASS))]
    dark = GLASS[rng.integers(2)] * rng.uniform(0.5, 1.0)
    filled = (surface.height < rng.uniform(0.25, 0.8))[..., None] & (rng.uniform() < 0.7)
    wall = (0.3 + 0.7 * surface.facing)[..., None]
    through = np.where(filled, dark * tint, tint) * wall * wall * 0.85
    glow = np.where(filled, dark, tint) * (0.1 + 0.25 * surface.lit(light.turned(surface.angle)))[..., None]
    shine = surface.highlight(light, 6) * 0.9 + surface.highlight(light, 4) * 0.12
    mirrored = (-light.direction[0], light.direction[1], light.direction[2])
    back = surface.lit(Light(mirrored, 0, (1, 1, 1)).turned(surface.angle))
    for _ in range(4):
        back = back * back
    glow = glow + (shine + back * 0.15)[..., None]
    solid = surface.shade(albedo, light, gloss=0.35)
    solid = np.where(surface.lid[..., None] > 0.5, albedo * (0.75 + 0.25 * light.direction[1]), solid)
    mask, cover = opaque[..., None], surface.cover[..., None]
    emitted = (mask * solid + (1 - mask) * glow) * cover
    passed = 1 - cover + cover * (1 - mask) * through
    return emitted.astype(np.float32), passed.astype(np.float32), surface.cover.astype(np.float32)


def vessel(
    rng: np.random.Generator, light: Light, height: float, view: float, *, shapes: list, inside: np.ndarray
) -> Sprite:
    """Return a mug or pot `height` pixels tall around the origin; `inside` is the colour that fills it."""
    knots, share = shapes[rng.integers(len(shapes))]
    radius = height * share * rng.uniform(0.9, 1.1)
    surface = turn(smooth_profile(knots, round(height), radius, max(1, round(height / 40))), view)
    colours = CLAY if shapes is POTS else CERAMIC
    base, accent = colours[rng.permutation(len(colours))[:2]]
    albedo = np.broadcast_to(base, (*surface.cover.shape, 3)).copy()
    _decorate(rng, surface, albedo, accent)
    shaded = surface.shade(albedo, light, gloss=0.08 if shapes is POTS else 0.4)
    # Inside the opening: the far wall in the light, then what the vessel holds, lower down and so nearer the viewer.
    wall = base * (0.35 + 0.3 * surface.lid_x * light.direction[0] + 0.25 * (surface.lid_y + 1))[..., None]
    level = surface.lid_x**2 * 1.25 + (surface.lid_y + 0.3) ** 2 * 1.5 < 1
    opening = np.where(level[..., None], inside * (1 + 0.25 * surface.lid_x * light.direction[0])[..., None], wall)
    lip = surface.lid_x**2 + surface.lid_y**2 > 0.84
    opening = np.where(lip[..., None], base * np.float32(0.95), opening)
    lid = surface.lid[..., None]
    return Sprite.solid(
        surface.x, surface.y, (shaded * (1 - lid) + opening * lid).astype(np.float32), surface.cover.astype(np.float32)
    )


def _decorate(rng: np.random.Generator, surface: Surface, albedo: np.ndarray, accent: np.ndarray) -> None:
    style, place = rng.integers(5), rng.uniform(0.25, 0.6)
    if style == 0:
        albedo[(surface.height > place) & (surface.height < place + 0.2)] = accent
    elif style == 1:
        albedo[(surface.height * rng.integers(3, 6)) % 1 < 0.3] = accent
    elif style == 2:
        spot = surface.side * 3 + rng.uniform(), surface.height * 4
        albedo[(spot[0] % 1 - 0.5) ** 2 + (spot[1] % 1 - 0.5) ** 2 < 0.09] = accent
    elif style == 3:
        albedo[surface.height < place] = accent


def mug(rng: np.random.Generator, light: Light, height: float, view: float) -> Sprite:
    """Return a mug with its handle to one side."""
    body = vessel(rng, light, height, view, shapes=MUGS, inside=DRINKS[rng.integers(len(DRINKS))])
    side = rng.choice([-1, 1])
    middle_row = body.cover[body.cover.shape[0] // 2]
    edge = int(np.flatnonzero(middle_row > 0.5)[-1 if side > 0 else 0]) + body.x
    reach, tall, thick = height * rng.uniform(0.28, 0.38), height * rng.uniform(0.27, 0.33), height * 0.065
    size = math.ceil(max(reach, tall) + thick) + 2
    grid = np.arange(-size, size, dtype=np.float32) + np.float32(0.5)
    x, y = grid[None, :] / np.float32(reach), grid[:, None] / np.float32(tall)
    far = np.sqrt(x * x + y * y)
    off = (far - 1) * np.float32((reach + tall) / 2) / np.float32(thick)
    cover = np.clip((1 - np.abs(off)) * thick + 0.5, 0, 1).astype(np.float32)
    round_off = np.sqrt(np.maximum(1 - off * off, 0))
    normal = off * x / np.maximum(far, 1e-3), -off * y / np.maximum(far, 1e-3), round_off
    lit = sum(np.float32(weight) * part for weight, part in zip(light.direction, normal, strict=True))
    lit = np.maximum(lit, 0)
    colour = _typical(body) * (light.ambient + (1 - light.ambient) * 1.15 * lit)[..., None]
    handle = Sprite.solid(
        edge - size, round(-height * rng.uniform(0.48, 0.55)) - size, colour.astype(np.float32), cover
    )
    return body.over(handle)


def _typical(sprite: Sprite) -> np.ndarray:
    """Return the colour of a mug at the middle of its foot, where no pattern reaches, without its shading."""
    column = sprite.light[int(sprite.cover.shape[0] * 0.93), sprite.cover.shape[1] // 2]
    return column / np.maximum(column.max(), np.float32(0.3)) * np.float32(0.85)

"""The empty room: a table in perspective before a wall."""

import numpy as np
from PIL import Image

from tlx.data.scenes.canvas import Light

WOOD = np.float32([[0.56, 0.38, 0.22], [0.7, 0.54, 0.36], [0.36, 0.23, 0.15], [0.78, 0.68, 0.54], [0.48, 0.44, 0.4]])
CLOTH = np.float32([[0.75, 0.25, 0.22], [0.3, 0.42, 0.6], [0.36, 0.52, 0.38], [0.86, 0.8, 0.68], [0.5, 0.5, 0.54]])
WALL = np.float32(
    [[0.84, 0.82, 0.76], [0.62, 0.7, 0.74], [0.74, 0.66, 0.56], [0.5, 0.56, 0.5], [0.8, 0.72, 0.72], [0.38, 0.42, 0.5]]
)


def noise(rng: np.random.Generator, shape: tuple[int, int], coarse: tuple[int, int]) -> np.ndarray:
    """Return smooth noise around 0 of `shape`, float32 in about -1..1, from `coarse` (rows, columns) random levels."""
    levels = Image.fromarray(rng.integers(0, 256, coarse, dtype=np.uint8))
    smooth = levels.resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / np.float32(127.5) - 1


def backdrop(rng: np.random.Generator, width: int, height: int, horizon: int, light: Light) -> np.ndarray:
    """Return the picture of a wall above row `horizon` and a table below it, float32 [height, width, 3] in 0..1."""
    pixels = np.empty((height, width, 3), np.float32)
    pixels[:horizon] = _wall(rng, width, horizon)
    pixels[horizon:] = _table(rng, width, height - horizon)
    pixels[horizon - 1 : horizon + 1] *= np.float32(0.7)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * light.direction[0]
    down = np.linspace(1, -1, height, dtype=np.float32)[:, None] * light.direction[1]
    fall = 0.86 + 0.2 * across + 0.08 * down + 0.05 * noise(rng, (height, width), (3, 4))
    return pixels * fall[..., None]


def _wall(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    colour, other = WALL[rng.permutation(len(WALL))[:2]]
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    wall = np.broadcast_to(colour, (height, width, 3)).copy()
    style, size = rng.integers(4), rng.uniform(18, 44)
    if style == 0:
        wall = np.where(
            ((x % size < size * rng.uniform(0.3, 0.6)) & (y >= 0))[..., None], wall * 0.5 + other * 0.5, wall
        )
    elif style == 1:
        grout = ((x + (y // size % 2) * size * 0.7) % (size * 1.4) < 1.6) | (y % size < 1.6)
        wall = np.where(grout[..., None], wall * 0.8, wall)
    wall *= 1 + 0.06 * noise(rng, (height, width), (max(2, height // 9), width // 9))[..., None]
    image = Image.fromarray(np.clip(wall * 255, 0, 255).astype(np.uint8))
    for _ in range(rng.integers(0, 3)):
        _hang(rng, image)
    blurred = image.reduce(2).resize(image.size, Image.Resampling.BICUBIC)
    return np.asarray(blurred, np.float32) / np.float32(255)


def _hang(rng: np.random.Generator, wall: Image.Image) -> None:
    """Hang a framed picture on the wall."""
    w, h = (int(value) for value in rng.integers(30, 80, 2))
    tones = rng.uniform(0.5, 1.0, (3, 4, 1)) * CLOTH[rng.integers(len(CLOTH))] + rng.uniform(0, 0.15, (3, 4, 3))
    inner = Image.fromarray((tones * 220).astype(np.uint8)).resize((w, h), Image.Resampling.BICUBIC)
    frame = Image.new("RGB", (w + 8, h + 8), tuple(int(v) for v in WOOD[rng.integers(len(WOOD))] * 200))
    frame.paste(inner, (4, 4))
    wall.paste(
        frame, (int(rng.integers(-20, wall.width - 20)), int(rng.integers(-h, max(1 - h, wall.height - h - 12))))
    )


def _table(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    vanish = rng.uniform(0.5, 1.1) * height
    depth = (np.float32(vanish + height) / (np.arange(height, dtype=np.float32) + np.float32(vanish)))[:, None]
    x = (np.arange(width, dtype=np.float32)[None, :] - width * rng.uniform(0.3, 0.7)) / width * depth
    z = depth * rng.uniform(1.5, 2.5) + x * rng.uniform(-0.1, 0.1)
    style = rng.integers(4)
    if style <= 1:
        return _wood(rng, x, z, bool(style))
    colour, other = CLOTH[rng.permutation(len(CLOTH))[:2]]
    if style == 2:
        count = rng.uniform(6, 12)
        threads = ((x * count) % 1 < 0.5).astype(np.float32) + ((z * count * 0.5) % 1 < 0.5)
        share = (threads / 2)[..., None]
        table = np.float32([0.9, 0.89, 0.86]) * (1 - share) + colour * share
    else:
        veins = np.abs(noise(rng, x.shape, (7, 9)) + 0.5 * noise(rng, x.shape, (20, 30)))
        table = np.where(rng.uniform() < 0.5, colour, other) * (0.75 + 0.25 * np.minimum(veins * 3, 1))[..., None]
    grain = noise(rng, x.shape, (height // 3, width // 3))
    return (table * (1 + 0.05 * grain)[..., None]).astype(np.float32)


def _wood(rng: np.random.Generator, x: np.ndarray, z: np.ndarray, lengthwise: bool) -> np.ndarray:
    across, along = (x, z) if lengthwise else (z * 0.8, x * 1.6)
    planks = across * rng.uniform(3, 6) + 40
    which = planks.astype(np.int32)
    tone = rng.uniform(0.85, 1.1, 80).astype(np.float32)[which % 80]
    texture = noise(rng, (512, 256), (256, 10)) + 0.5 * noise(rng, (512, 256), (128, 40))
    rows = (planks * 60 + which * 37).astype(np.int32) % 512
    columns = (along * 60 + which * 91 + 4000).astype(np.int32) % 256
    seam = np.where((planks % 1) < 0.03, np.float32(0.72), np.float32(1))
    shade = tone * seam * (1 + 0.09 * texture[rows, columns])
    return (WOOD[rng.integers(len(WOOD))] * shade[..., None]).astype(np.float32)

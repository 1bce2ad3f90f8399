"""One still life after another: where things stand, how they are lit, and what a labeller would box."""

import json
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place, new_folder
from tlx.data.scenes import still, turned
from tlx.data.scenes.backdrop import backdrop
from tlx.data.scenes.canvas import SUPERSAMPLE, Canvas, Light, Sprite
from tlx.data.targets import Boxes
from tlx.data.writers.voc import voc
from tlx.errors import DataError

RECORD = "scenes.json"
CLASSES = ("bottle", "mug", "plant")
DRAW = {"bottle": turned.bottle, "mug": turned.mug, "plant": still.plant}
# Heights of things as shares of the picture's height, before distance scales them.
HEIGHTS = {"bottle": (0.38, 0.6), "mug": (0.17, 0.27), "plant": (0.36, 0.6)}
SIZES = ((384, 288), (384, 288), (320, 320), (300, 360))
# A thing of which less than this share can be seen is marked difficult.
SEEN_ENOUGH = 0.3
# Slivers narrower than this, in pixels, are not labelled at all.
SMALLEST = 4
_SPLITS = ("train", "train", "train", "validation", "test")


@dataclass(frozen=True)
class Thing:
    """A sprite in its place; `name` is its class, or empty for clutter. `base` is the canvas row it stands on."""

    name: str
    base: int
    sprite: Sprite


@dataclass(frozen=True)
class Label:
    """The visible extent of one thing: class, (x_min, y_min, x_max, y_max) in whole pixels, max exclusive."""

    name: str
    box: tuple[int, int, int, int]
    difficult: bool


def draw_scene(seed: int, index: int) -> tuple[Image.Image, list[Label]]:
    """Return picture number `index` of the series `seed` and its labels.

    The same numbers give the same bytes on one Pillow version. Boxes cover what can be seen of a thing;
    one that is more than 70% hidden, by others or by the picture's edge, is marked difficult, and one
    of which only a sliver shows has none.
    """
    rng = np.random.default_rng([seed, index])
    width, height = (SUPERSAMPLE * side for side in SIZES[rng.integers(len(SIZES))])
    light = _light(rng)
    horizon = round(height * rng.uniform(0.18, 0.42))
    room = backdrop(rng, width // SUPERSAMPLE, height // SUPERSAMPLE, horizon // SUPERSAMPLE, light)
    canvas = Canvas(room.repeat(SUPERSAMPLE, axis=0).repeat(SUPERSAMPLE, axis=1))
    _scatter(rng, canvas, horizon)
    things = _arrange(rng, light, width, height, horizon)
    canvas.cast([(thing.sprite, thing.base) for thing in things], light, horizon)
    owner = np.full((height, width), -1, np.int32)
    for number, thing in enumerate(things):
        canvas.paint(thing.sprite)
        here, there = canvas.window(thing.sprite)
        owner[here][thing.sprite.cover[there] > 0.5] = number
    grain = rng.standard_normal((height // SUPERSAMPLE, width // SUPERSAMPLE, 1), np.float32) * np.float32(
        rng.uniform(0, 5)
    )
    blur = max(0.0, rng.uniform(-0.5, 0.8))
    return canvas.finish(light, rng.uniform(0.75, 1.3), blur, grain), _labels(things, owner)


def _light(rng: np.random.Generator) -> Light:
    x, y, z = rng.uniform(-0.8, 0.8), rng.uniform(0.4, 0.8), rng.uniform(0.35, 0.7)
    length = math.sqrt(x * x + y * y + z * z)
    warm = rng.uniform(-1, 1)
    colour = (1 + 0.1 * warm, 1.0, 1 - 0.16 * warm)
    return Light((x / length, y / length, z / length), rng.uniform(0.35, 0.6), colour)


def _scatter(rng: np.random.Generator, canvas: Canvas, horizon: int) -> None:
    """Lay papers and pens on the table."""
    height, width = canvas.pixels.shape[:2]
    for _ in range(rng.integers(0, 5)):
        draw, size = (still.paper, 0.2) if rng.uniform() < 0.5 else (still.pen, 0.24)
        sprite = draw(rng, size * height * rng.uniform(0.7, 1.2), rng.uniform(0.4, 0.55), rng.uniform(0.8, 1.0))
        low = horizon + sprite.cover.shape[0] // 2 + 8
        place = int(rng.integers(width)), int(rng.integers(low, max(low + 1, height)))
        canvas.paint(_moved(sprite, *place))


def _arrange(rng: np.random.Generator, light: Light, width: int, height: int, horizon: int) -> list[Thing]:
    """Return things and clutter in the order of painting, far to near."""
    names = [CLASSES[i] for i in rng.integers(0, len(CLASSES), rng.integers(1, 7))]
    names += [""] * int(rng.integers(0, 4))
    near, view = rng.uniform(0.85, 1.2), rng.uniform(0.18, 0.36)
    depths = np.sort(rng.uniform(0.12, 0.97, len(names)))
    things: list[Thing] = []
    for name, depth in zip((names[i] for i in rng.permutation(len(names))), depths, strict=True):
        base = horizon + round((height - horizon) * depth)
        scale = height * near * (0.72 + 0.5 * depth)
        if name:
            sprite = DRAW[name](rng, light, scale * rng.uniform(*HEIGHTS[name]), view)
        elif rng.uniform() < 0.5:
            sprite = still.ball(rng, light, scale * rng.uniform(0.09, 0.2))
        else:
            sprite = still.carton(rng, light, scale * rng.uniform(0.12, 0.3), view)
        place = _place(rng, sprite, base, width, things)
        if place is not None:
            things.append(Thing(name, base, place))
    return things


def _place(rng: np.random.Generator, sprite: Sprite, base: int, width: int, things: list[Thing]) -> Sprite | None:
    """Return the sprite at a spot where it hides at most about half of any other, or None where there is none."""
    h, w = sprite.cover.shape
    for _ in range(12):
        x = round(rng.uniform(-0.15 * w, width - 0.85 * w))
        y = base + sprite.y
        if all(_hidden(other.sprite, x, y, w, h) < 0.5 for other in things if other.name):
            return _moved(sprite, x - sprite.x, base)
    return None


def _hidden(sprite: Sprite, x: int, y: int, w: int, h: int) -> float:
    height, width = sprite.cover.shape
    across = min(sprite.x + width, x + w) - max(sprite.x, x)
    down = min(sprite.y + height, y + h) - max(sprite.y, y)
    return max(0, across) * max(0, down) / (width * height)


def _moved(sprite: Sprite, x: int, y: int) -> Sprite:
    return Sprite(sprite.x + x, sprite.y + y, sprite.light, sprite.through, sprite.cover)


def _labels(things: list[Thing], owner: np.ndarray) -> list[Label]:
    labels = []
    for number, thing in enumerate(things):
        visible = owner == number
        rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
        if not thing.name or not len(rows):
            continue
        seen = np.count_nonzero(visible) / np.count_nonzero(thing.sprite.cover > 0.5)
        low = columns[0] // SUPERSAMPLE, rows[0] // SUPERSAMPLE
        high = columns[-1] // SUPERSAMPLE + 1, rows[-1] // SUPERSAMPLE + 1
        if min(high[0] - low[0], high[1] - low[1]) >= SMALLEST:
            labels.append(Label(thing.name, tuple(int(value) for value in low + high), seen < SEEN_ENOUGH))
    return labels


def write_scenes(folder: Path, images: int, seed: int) -> None:
    """Draw `images` labelled pictures into a new Pascal VOC folder, split 60/20/20.

    The folder appears whole or not at all, with a `scenes.json` that says how it was drawn.

    Raises:
      DataError: `images` is below 5 (each split needs one), or the folder exists and is not empty.
    """
    if images < len(_SPLITS):
        raise DataError(f"images = {images}: at least {len(_SPLITS)} pictures are needed for three splits")
    with new_folder(folder) as whole, tempfile.TemporaryDirectory(dir=whole.parent) as drawn:
        with ThreadPoolExecutor() as pool:
            examples = tuple(pool.map(lambda index: _drawn(Path(drawn), seed, index), range(images)))
        voc(Dataset("scenes", CLASSES, examples), whole, Place())
        (whole / RECORD).write_text(json.dumps({"images": images, "seed": seed}) + "\n")


def _drawn(folder: Path, seed: int, index: int) -> Example:
    image, labels = draw_scene(seed, index)
    path = folder / f"scene_{index:05d}.jpg"
    image.save(path, quality=90)
    return Example(
        image=path,
        width=image.width,
        height=image.height,
        targets=Boxes(
            np.array([label.box for label in labels], np.float32).reshape(-1, 4),
            np.array([CLASSES.index(label.name) for label in labels], np.int32),
            np.array([label.difficult for label in labels], np.bool_),
        ),
        split=_SPLITS[index % len(_SPLITS)],
    )

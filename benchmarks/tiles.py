"""What tiles are worth: small objects in large pictures, beside a model of whole pictures that is shown slices.

    python benchmarks/tiles.py [--data=scenes|KITTI_FOLDER] [--tile=640] [--whole=576x1024] [--epochs=20] [--seed=0]

Two detectors (EfficientNet-Lite0, frozen) are trained on the same pictures: one on tiles, one on whole pictures at the
size `--whole` for as many pixels, and so about as long. The second predicts whole pictures and, as SAHI does it, slices
and the whole picture together (Akyon et al., Slicing Aided Hyper Inference, ICIP 2022; sliced prediction of sahi
0.12.8: slices share a fifth, the last ones are moved back; what overlaps by half of the smaller box is merged greedily,
and with low score thresholds what overlaps by half in IoU is suppressed). `--data=scenes` draws 3840 x 2160 pixels with
objects of about 12 to 40 pixels. Prints a table, and writes `tiles.json` to the present folder. "twice" counts objects
that two detections with a score of 0.3 or more agree with.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from tlx import registry
from tlx.data.dataset import Dataset, Example
from tlx.data.readers.kitti import kitti
from tlx.data.scenes import CLASSES
from tlx.data.scenes.backdrop import backdrop
from tlx.data.scenes.canvas import Light, Sprite
from tlx.data.scenes.scene import DRAW
from tlx.data.scenes.still import ball, carton
from tlx.data.splits.parts import Splits
from tlx.data.splits.policies import kfold
from tlx.data.targets import Boxes, iou
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.fcos import Fcos
from tlx.policies import last_layers
from tlx.predict import predict
from tlx.run import Run, reopen, train
from tlx.tasks.detection import Detection, Detections
from tlx.tiles import Tiles
from tlx.windows import Window, Windows

# Drawn so many times as large, and shrunk.
_FINER = 4
_TALL = {"bottle": 1.5, "mug": 1.0, "plant": 1.15}
_CLUSTERS, _EACH = 6, 9
_CONFIDENT = 0.3


def main() -> None:
    """Train, predict, print, and write the figures to `tiles.json`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--pictures", type=int, default=20, help="how many scenes; a fifth each to validate and test")
    parser.add_argument("--width", type=int, default=3840)
    parser.add_argument("--tile", type=int, default=640)
    parser.add_argument("--whole", default="576x1024")
    parser.add_argument("--epochs", type=float, default=20.0)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    registry.discover()
    with tempfile.TemporaryDirectory() as folder:
        if options.data == "scenes":
            data = _scenes(Path(folder) / "scenes", options.pictures, options.width, options.seed)
        else:
            data = kfold(kitti(Path(options.data), merge={"Van": "Car"}), folds=3, fold=options.seed % 3)
        rows = _measure(data, Path(folder), options)
    table = Table(title=f"{data.train.name}, seed {options.seed}, load {os.getloadavg()[0]:.1f}")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    Path("tiles.json").write_text(json.dumps({"options": vars(options), "rows": rows}, indent=1))


def _measure(data: Splits, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    whole = tuple(int(side) for side in options.whole.split("x"))
    tiles = Tiles(options.tile, options.overlap)
    base = Run(
        data,
        registry.find("backbones.efficientnet_lite0").factory(),
        Fcos(),
        last_layers(0),
        Fit(batch_size=8, epochs=options.epochs, evaluations=4, learning_rate=6e-3, ema=0.98),
        Features(views=options.views, folder=folder / "features", dtype="float16"),
        image_size=options.tile,
        tiles=tiles,
        seed=options.seed,
    )
    # As many pixels are learnt from whole pictures as from tiles.
    pixels = len(base.views.parts) * options.tile**2 / (len(data.train) * whole[0] * whole[1])
    plain = replace(base, tiles=None, image_size=whole, fit=replace(base.fit, epochs=options.epochs * pixels))
    slices = _Slices(options.tile)
    sahi = {"merged": _merged, "suppressed": _suppressed, "joined by tlx": Detection().join}
    rows = []
    for name, run, ways in (
        ("tiles", base, {("tiles", base.size, tiles): {"joined by tlx": Detection().join, "merged": _merged}}),
        (
            "whole",
            plain,
            {("whole", plain.size, plain.windows): {"": _merged}, ("slices", base.size, slices): sahi},
        ),
    ):
        began = time.monotonic()
        train(run, folder / name, "", _Saying())
        seconds = time.monotonic() - began
        for way, joins in ways.items():
            rows += [{"trained on": name, "train s": seconds} | row for row in _judged(run, folder / name, way, joins)]
    return rows


def _judged(
    run: Run, folder: Path, way: tuple[str, tuple[int, int], Windows], joins: dict[str, Callable]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each of `joins` of what is seen in the windows of every picture."""
    name, size, windows = way
    detector, parts = reopen(run.backbone, run.head, size, folder)
    _, dataset = run.judged
    began = time.monotonic()
    with mock.patch.object(Detection, "join", lambda _, seen: seen):
        raw = predict(detector, parts, dataset, 8, run.engine, windows=windows)
    seconds = (time.monotonic() - began) / len(dataset)
    for join_name, join in joins.items():
        found = [join(seen) if isinstance(seen, list) else seen for seen in raw]
        values = run.evaluator.judge(dataset, found, run.metric)["values"]
        twice = sum(_twice(one, example) for one, example in zip(found, dataset.examples, strict=True))
        scores = {metric: values[metric] for metric in ("AP", "AP50", "AP75")}
        yield {"seen in": name, "then": join_name} | scores | {"twice": twice, "s each picture": seconds}


def _twice(found: Detections, example: Example) -> int:
    sure = found.scores >= _CONFIDENT
    truth = example.objects
    count = 0
    for box, label in zip(truth.boxes[~truth.ignore], truth.labels[~truth.ignore], strict=True):
        same = found.boxes[sure & (found.labels == label)]
        count += int((iou(box, same) >= 0.5).sum() > 1) if len(same) else 0
    return count


class _Slices:
    """SAHI's slices: they share a fifth, the last ones are moved back, and the whole picture comes beside them."""

    def __init__(self, side: int, overlap: float = 0.2):
        self.side, self.step = side, side - int(overlap * side)

    def __call__(self, width: int, height: int) -> list[Window]:
        x, y = self._starts(width), self._starts(height)
        cut = [(a, b, min(a + self.side, width), min(b + self.side, height)) for b in y for a in x]
        return [Window(*one) for one in dict.fromkeys([*cut, (0, 0, width, height)])]

    def _starts(self, length: int) -> list[int]:
        last = max(0, length - self.side)
        return [*range(0, last, self.step), last]


def _greedy(seen: Sequence[Detections], by_smaller: bool, merge: bool) -> Detections:
    boxes = np.concatenate([one.boxes for one in seen])
    scores = np.concatenate([one.scores for one in seen])
    labels = np.concatenate([one.labels for one in seen])
    best = np.argsort(-scores, kind="stable")
    boxes, scores, labels = boxes[best], scores[best], labels[best]
    waiting, kept = np.ones(len(boxes), np.bool_), []
    for i in range(len(boxes)):
        if not waiting[i]:
            continue
        waiting[i] = False
        others = np.flatnonzero(waiting & (labels == labels[i]))
        shared = np.minimum(boxes[i, 2:], boxes[others, 2:]) - np.maximum(boxes[i, :2], boxes[others, :2])
        shared = np.maximum(shared, 0).prod(1)
        area, areas = (boxes[i, 2:] - boxes[i, :2]).prod(), (boxes[others, 2:] - boxes[others, :2]).prod(1)
        of = np.minimum(area, areas) if by_smaller else area + areas - shared
        same = others[shared >= 0.5 * of]
        waiting[same] = False
        if merge and len(same):
            low, high = boxes[same, :2].min(0), boxes[same, 2:].max(0)
            boxes[i] = [*np.minimum(boxes[i, :2], low), *np.maximum(boxes[i, 2:], high)]
        kept.append(i)
    return Detections(boxes[kept], scores[kept], labels[kept])


def _merged(seen: Sequence[Detections]) -> Detections:
    return _greedy(seen, by_smaller=True, merge=True)


def _suppressed(seen: Sequence[Detections]) -> Detections:
    return _greedy(seen, by_smaller=False, merge=False)


class _Saying(Listener):
    def say(self, message: str) -> None:
        print(message, flush=True)

    def evaluated(self, look: Any) -> str:
        print(f"look {look.number} of {look.of}: {look.score:.3f}", flush=True)
        return "continue"


def _scenes(folder: Path, pictures: int, width: int, seed: int) -> Splits:
    """Return splits of drawn pictures, 16 : 9, of which a fifth each is to validate and to test."""
    folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        drawn = list(pool.map(lambda i: _scene(folder / f"{i:03d}.jpg", width, [seed, i]), range(pictures)))
    held = max(1, pictures // 5)
    parts = {"test": drawn[:held], "validation": drawn[held : 2 * held], "train": drawn[2 * held :]}
    return Splits(**{name: Dataset(f"scenes {name}", CLASSES, tuple(part)) for name, part in parts.items()})


def _scene(path: Path, width: int, seed: Sequence[int]) -> Example:
    """Draw a table seen from afar: objects of about 12 to 40 pixels in groups, and clutter that is none."""
    rng = np.random.default_rng(seed)
    height = width * 9 // 16
    light = Light((0.4, 0.75, 0.53), 0.45, (1.0, 1.0, 1.0))
    pixels = backdrop(rng, width, height, height // 4, light)
    boxes, labels = [], []
    for _ in range(_CLUSTERS):
        middle = rng.uniform((60, height // 4 + 60), (width - 60, height - 60))
        for _ in range(_EACH):
            label = int(rng.integers(-1, len(CLASSES)))
            sprite = _small(rng, light, label)
            h, w = sprite.cover.shape
            x, y = np.clip(rng.normal(middle, 90) - (w / 2, h / 2), 2, (width - w - 2, height - h - 2)).astype(int)
            rows, columns = (np.flatnonzero((sprite.cover > 0.5).any(axis)) for axis in (1, 0))
            box = [x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1]
            if boxes and iou(np.array(box, np.float32), np.array(boxes, np.float32)).max() > 0:
                continue
            part = pixels[y : y + h, x : x + w]
            part[:] = part * sprite.through + sprite.light
            # Clutter keeps its place, too, and is no object.
            boxes.append(box)
            labels.append(label)
    noisy = pixels * 255 + rng.standard_normal((*pixels.shape[:2], 1), np.float32) * 3
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=92)
    objects = np.array(labels) >= 0
    table = np.array(boxes, np.float32)[objects]
    truth = Boxes(table, np.array(labels, np.int32)[objects], np.zeros(len(table), np.bool_))
    return Example(path, width, height, truth)


def _small(rng: np.random.Generator, light: Light, label: int) -> Sprite:
    tall = rng.uniform(12, 31) * _FINER
    if label >= 0:
        name = CLASSES[label]
        sprite = DRAW[name](rng, light, tall * _TALL[name], 0.3)
    else:
        sprite = ball(rng, light, tall) if rng.uniform() < 0.5 else carton(rng, light, tall, 0.3)
    parts = []
    for array in (sprite.light, sprite.through, sprite.cover[..., None]):
        h, w, channels = array.shape
        fill = 1.0 if array is sprite.through else 0.0
        padded = np.pad(array, ((0, -h % _FINER), (0, -w % _FINER), (0, 0)), constant_values=fill)
        parts.append(padded.reshape(-(-h // _FINER), _FINER, -(-w // _FINER), _FINER, channels).mean((1, 3)))
    return Sprite(0, 0, parts[0], parts[1], parts[2][..., 0])


if __name__ == "__main__":
    main()

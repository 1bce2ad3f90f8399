"""How fast datasets are read and pictures prepared, side by side in one run with the bare work and with peers.

    pip install supervision opencv-python-headless globox
    python benchmarks/readers.py [--files=10000] [--rounds=5]

Writes a Pascal VOC folder of many small XML files and a COCO file of 5,000 images and 36,000 boxes with
outlines, whose images are links to one small JPEG, and reads both: with tlx, with nothing but a parser
(defusedxml, msgspec), and with supervision and globox; a peer that is not installed is left out with a word.
The bare parse reads the same bytes from the disk (each XML file; the one JSON file), parses them into plain
elements or dicts and drops them; it opens no image. tlx does all that its reader does: it lists the folders,
opens every image's head, checks every box and outline, and returns the dataset; globox looks into no image,
supervision decodes all images of VOC. Each way runs once unmeasured, and all take turns; a ratio is the median
of those of single rounds. Then prepares pictures for training (decode, augment, batch), and with nothing but
Pillow's decoder and resizing on the same number of threads. Prints a table and writes `benchmarks/readers.json`.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
from defusedxml import ElementTree
from PIL import Image
from rich.console import Console
from rich.table import Table

from tlx import registry
from tlx.augment import Standard
from tlx.data.dataset import Dataset, Example
from tlx.pipeline import Views, batches, chunks

_CLASSES = ("cat", "dog", "person", "car", "bicycle")
_SIZE = (320, 320)
_PICTURES = 128
_VIEWS = 4


def main() -> None:
    """Measure, print, and write the figures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    registry.discover()
    peers = {name: peer for name in ("supervision", "globox") if (peer := _peer(name))}
    figures = {"files": options.files, "cores": os.cpu_count()}
    table = Table("", "seconds (median)", "times the bare work")
    with tempfile.TemporaryDirectory() as folder:
        makers = (_voc(Path(folder), options.files, peers), _coco(Path(folder), peers), _pictures(Path(folder)))
        for title, ways in makers:
            times = _measure(ways, options.rounds)
            bare = next(iter(times.values()))
            table.add_section()
            for name, seconds in times.items():
                # Of pairs from the same round, which a busy machine disturbs alike.
                ratio = statistics.median(own / base for own, base in zip(seconds, bare, strict=True))
                table.add_row(f"{title}: {name}", f"{statistics.median(seconds):.3f}", f"{ratio:.2f}")
            figures[title] = times
    Console().print(table)
    Path(__file__).with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


def _peer(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError as error:
        Console().print(f"{name} is left out: {error}")
        return None


def _measure(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return times


def _linked_images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True)
    first = folder / "000000.jpg"
    Image.effect_noise((64, 48), 60).convert("RGB").save(first)
    for i in range(1, count):
        os.link(first, folder / f"{i:06d}.jpg")
    return [f"{i:06d}" for i in range(count)]


def _voc(folder: Path, files: int, peers: dict[str, ModuleType]) -> tuple[str, dict[str, Callable[[], object]]]:
    root = folder / "voc"
    rng = random.Random(0)
    (root / "Annotations").mkdir(parents=True)
    for name in _linked_images(root / "JPEGImages", files):
        (root / f"Annotations/{name}.xml").write_text(_annotation(rng, name))
    paths = sorted((root / "Annotations").iterdir())
    read = registry.find("readers.voc").factory
    ways = {
        "bare defusedxml": lambda: _parsed(paths),
        "tlx": lambda: read(root),
    }
    if peer := peers.get("supervision"):
        places = str(root / "JPEGImages"), str(root / "Annotations")
        ways["supervision"] = lambda: peer.DetectionDataset.from_pascal_voc(*places)
    if other := peers.get("globox"):
        ways["globox"] = lambda: other.AnnotationSet.from_pascal_voc(root / "Annotations")
    return f"{files:,} VOC files", ways


def _parsed(paths: list[Path]) -> None:
    for path in paths:
        ElementTree.fromstring(path.read_bytes(), forbid_dtd=True)


def _annotation(rng: random.Random, name: str) -> str:
    # About as many objects as VOC 2012 has on a picture, written as LabelImg does.
    objects = "".join(
        f"\t<object>\n\t\t<name>{rng.choice(_CLASSES)}</name>\n\t\t<pose>Unspecified</pose>\n"
        f"\t\t<truncated>0</truncated>\n\t\t<difficult>{int(rng.random() < 0.1)}</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{rng.randint(1, 20)}</xmin>\n\t\t\t<ymin>{rng.randint(1, 20)}</ymin>\n"
        f"\t\t\t<xmax>{rng.randint(25, 64)}</xmax>\n\t\t\t<ymax>{rng.randint(25, 48)}</ymax>\n"
        "\t\t</bndbox>\n\t</object>\n"
        for _ in range(1 + int(rng.expovariate(0.5)))
    )
    return (
        f"<annotation>\n\t<folder>JPEGImages</folder>\n\t<filename>{name}.jpg</filename>\n\t<source>\n"
        "\t\t<database>Unknown</database>\n\t</source>\n\t<size>\n\t\t<width>64</width>\n\t\t<height>48</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _coco(folder: Path, peers: dict[str, ModuleType]) -> tuple[str, dict[str, Callable[[], object]]]:
    root = folder / "coco"
    rng = random.Random(0)
    names = _linked_images(root / "images", 5_000)
    content = {
        "images": [{"id": i, "file_name": f"{name}.jpg", "width": 64, "height": 48} for i, name in enumerate(names)],
        "annotations": [_outlined(rng, number) for number in range(1, 36_001)],
        "categories": [{"id": 2 * i + 1, "name": name} for i, name in enumerate(_CLASSES)],
    }
    file = root / "annotations.json"
    file.write_text(json.dumps(content))
    read = registry.find("readers.coco").factory
    ways = {"bare msgspec": lambda: msgspec.json.decode(file.read_bytes()), "tlx": lambda: read(file)}
    if peer := peers.get("supervision"):
        ways["supervision"] = lambda: peer.DetectionDataset.from_coco(str(root / "images"), str(file))
    if other := peers.get("globox"):
        ways["globox"] = lambda: other.AnnotationSet.from_coco(file)
    return "COCO, 5,000 images", ways


def _outlined(rng: random.Random, number: int) -> dict[str, object]:
    # Twenty corners, as an outline in COCO has about.
    xs = [round(rng.uniform(0, 64), 2) for _ in range(20)]
    ys = [round(rng.uniform(0, 48), 2) for _ in range(20)]
    x, y, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    return {
        "id": number,
        "image_id": rng.randrange(5_000),
        "category_id": 2 * rng.randrange(len(_CLASSES)) + 1,
        "bbox": [x, y, round(width, 2), round(height, 2)],
        "area": round(width * height / 2, 2),
        "iscrowd": 0,
        "segmentation": [[value for point in zip(xs, ys, strict=True) for value in point]],
    }


def _pictures(folder: Path) -> tuple[str, dict[str, Callable[[], object]]]:
    rng = np.random.default_rng(0)
    examples = []
    for number in range(_PICTURES):
        # As large as photographs in COCO are, and about as hard to decode.
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        path = folder / f"{number}.jpg"
        Image.fromarray(np.clip(coarse + rng.normal(0, 6, (480, 640, 1)), 0, 255).astype(np.uint8)).save(
            path, quality=90
        )
        truth = np.array([[10, 10, 200, 200]] * 7, np.float32), np.zeros(7, np.int32), np.zeros(7, np.bool_)
        examples.append(Example(path, 640, 480, *truth))
    paths = [example.image for example in examples] * _VIEWS
    views = Views(Dataset("pictures", _CLASSES, tuple(examples)), _SIZE, Standard(), _VIEWS)

    def pooled(work: Callable[[Path], object]) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(work, paths))

    def ours() -> None:
        for _ in batches(views.element, chunks(views.units, 16, 16)):
            pass

    ways = {
        "bare Pillow": lambda: pooled(_resized),
        "bare Pillow, made RGB": lambda: pooled(_made_rgb),
        "tlx, augmented": ours,
    }
    return f"{len(paths)} pictures", ways


def _resized(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.resize(_SIZE, Image.Resampling.BILINEAR))


def _made_rgb(path: Path) -> np.ndarray:
    # As loaders do, which cannot know that a picture is no gray one; the copy costs more than one would think.
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize(_SIZE, Image.Resampling.BILINEAR))


if __name__ == "__main__":
    main()

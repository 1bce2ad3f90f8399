"""What the feature cache is worth: training speed of the head with and without it, side by side in one run.

    python benchmarks/features.py [--size=320] [--batch=16] [--rounds=5]

Draws pictures, freezes an ImageNet-pretrained EfficientNet-Lite0, and takes turns between updates from
cached features and updates from pixels, as `tlx train` does them. Prints a table and writes
`benchmarks/features.json`.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tlx import freeze, policies, registry
from tlx.augment import Standard
from tlx.features import Features, Source, source
from tlx.fit import Fit
from tlx.learner import Learner
from tlx.models.detector import build
from tlx.models.graph import cut, weight_layers
from tlx.pipeline import Views, order


def main() -> None:
    """Measure, print, and write the figures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        speeds = _measure(Path(folder), options.size, options.batch, options.rounds)
    ratios = [cached / uncached for cached, uncached in zip(*speeds.values(), strict=True)]
    table = Table(title=f"head training at {options.size} px, batch {options.batch}, images/s")
    for column in ("", "min", "median", "max"):
        table.add_column(column)
    for name, values in {**speeds, "ratio": ratios}.items():
        table.add_row(name, *(f"{f(values):.1f}" for f in (min, statistics.median, max)))
    Console().print(table)
    figures = {"size": options.size, "batch": options.batch, **speeds, "ratio": ratios}
    Path(__file__).with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


def _measure(folder: Path, size: int, batch: int, rounds: int) -> dict[str, list[float]]:
    registry.discover()
    data = registry.find("readers.scenes").factory(folder / "scenes", 64)
    detector = build(
        registry.find("backbones.efficientnet_lite0").factory(),
        registry.find("heads.fcos").factory(),
        data.classes,
        (size, size),
    )
    freeze.apply(policies.backbone(), detector.network, weight_layers(detector.network, detector.blocks))
    parts = cut(detector.network, detector.blocks)
    views = Views(data, (size, size), Standard(), count=4)
    ways = {
        "cached": source(views, parts, Features(folder=folder / "features")),
        "uncached": source(views, parts, Features(cache=False)),
    }
    learners = {name: Learner(detector, parts, way, Fit()) for name, way in ways.items()}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            speed = _speed(learners[name], way, batch, 48 if name == "cached" else 6, turn)
            # The first turn traces graphs.
            if turn:
                speeds[name].append(speed)
    return speeds


def _speed(learner: Learner, way: Source, batch: int, updates: int, turn: int) -> float:
    """Return images per second of some updates, reading their examples included."""
    units = list(itertools.islice(order(way.views.parts, way.views.count, turn), batch * updates))
    started = time.perf_counter()
    for drawn, inputs, targets in way.batches(units, batch):
        learner.update([(inputs, targets, drawn[:, ::2])], 1e-3)
    return batch * updates / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

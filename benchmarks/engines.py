"""What each engine is worth: images per second of a network, alone and with its head, side by side in one run.

    python benchmarks/engines.py [--backbone=efficientnet_lite0] [--head=fcos] [--size=320] [--batch=8] [--rounds=7]

Draws pictures, and takes turns between the engines that are installed (OpenVINO in float32, and in bfloat16 where the
CPU has it). "backbone" is what fills the feature cache; "whole" is what `tlx predict` does once a picture is decoded.
Prints medians, and how far outputs are from TensorFlow's as a share of the largest, and writes
`benchmarks/engines.json`.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tlx import freeze, policies, registry
from tlx.engines.engine import Compiled, difference
from tlx.engines.litert import LiteRT
from tlx.engines.openvino import OpenVINO
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ModelError
from tlx.features import Source, encoder
from tlx.models.detector import Detector, build
from tlx.models.graph import Cut, cut, weight_layers
from tlx.pipeline import Unit, Views
from tlx.predict import Predictor

_PICTURES = 32


def main() -> None:
    """Measure, print, and write the figures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--head", default="fcos")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = _measure(Path(folder), options)
    load = os.getloadavg()[0]
    what = f"{options.backbone} + {options.head}, {options.size} px, batch {options.batch}"
    table = Table(title=f"{what}, load {load:.1f} on {os.cpu_count()} cores")
    for column in ("images/s", "backbone", "whole", "off by", "compiled in s"):
        table.add_column(column)
    for row in rows:
        speeds = (f"{statistics.median(row[what]):.1f}" for what in ("backbone", "whole"))
        table.add_row(row["engine"], *speeds, f"{row['difference']:.1e}", f"{row['compiled']:.1f}")
    Console().print(table)
    figures = {**vars(options), "cores": os.cpu_count(), "load": load, "rows": rows}
    Path(__file__).with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n")


def _measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    registry.discover()
    data = registry.find("readers.scenes").factory(folder / "scenes", _PICTURES)
    detector = build(
        registry.find(f"backbones.{options.backbone}").factory(),
        registry.find(f"heads.{options.head}").factory(),
        data.classes,
        (options.size, options.size),
    )
    freeze.apply(policies.backbone(), detector.backbone, weight_layers(detector.backbone, detector.blocks))
    parts, views = cut(detector.network, detector.blocks), Views(data, detector.size)
    pictures = np.stack([views.element(unit)[0][0] for unit in views.units])
    expected, rows, ways = TensorFlow().compile(parts.prefix)(pictures), [], []
    for engine in (TensorFlow(), LiteRT(), OpenVINO(), OpenVINO("bfloat16")):
        started = time.perf_counter()
        try:
            compiled = engine.compile(parts.prefix)
        except ModelError as error:
            Console().print(str(error), soft_wrap=True)
            continue
        seconds = time.perf_counter() - started
        apart = difference(compiled(pictures), expected)
        rows.append({"engine": engine.key, "backbone": [], "whole": [], "difference": apart, "compiled": seconds})
        ways.append(_ways(compiled, detector, parts, views, pictures, options.batch))
    for turn in range(options.rounds + 1):
        for row, (backbone, whole) in zip(rows, ways, strict=True):
            speeds = _speed(backbone), _speed(whole)
            # The first turn traces graphs.
            if turn:
                row["backbone"].append(speeds[0])
                row["whole"].append(speeds[1])
    return rows


def _ways(
    compiled: Compiled, detector: Detector, parts: Cut, views: Views, pictures: np.ndarray, batch: int
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return what takes all pictures through the backbone, and what predicts for them; none is decoded again."""

    def backbone() -> None:
        for start in range(0, len(pictures), batch):
            compiled(pictures[start : start + batch])

    def load(unit: Unit) -> Any:
        return (pictures[unit.picture],), {}

    source = Source(views, load, encoder(parts, True), False, "")
    return backbone, Predictor(detector, parts, source, batch, compiled)


def _speed(do: Callable[[], Any]) -> float:
    started = time.perf_counter()
    do()
    return _PICTURES / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

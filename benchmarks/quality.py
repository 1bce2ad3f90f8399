"""How good the shipped experiments are: the mean over seeds and its spread, for one version of tlx or several.

    python benchmarks/quality.py [--seeds=3] [--only=raccoon,bccd] [--label=now] [--source=FOLDER] [--runs=runs/quality]

Trains each experiment once for each seed and judges it on its test split. KITTI's 20 frames have none: they are
divided into five folds, and the figures are over folds. `--source` is the folder of another checkout of tlx, whose own
experiments are run under `--label`. What is finished is not run again, so more seeds can be added, and every label that
lies in `--runs` has its rows in the table, which is printed and written to `docs/quality.md`, with `docs/quality.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
METRICS = ("AP", "AP50", "AP75")
COCO_TRUNK = ("run.backbone = @backbones.ssd_mobilenet_v2_coco()", "features.dtype = 'float16'")


@dataclass(frozen=True)
class Case:
    """What is trained: an experiment with bindings; `by` is what differs between its runs."""

    file: str
    bindings: tuple[str, ...] = ()
    by: str = "run.seed"


CASES = {
    "raccoon": Case("experiments/raccoon.gin"),
    "bccd": Case("experiments/bccd.gin"),
    "star_wars": Case("experiments/star_wars.gin"),
    "quickstart": Case("experiments/quickstart.gin"),
    "raccoon-coco": Case("experiments/raccoon.gin", COCO_TRUNK),
    "bccd-coco": Case("experiments/bccd.gin", COCO_TRUNK),
    "star_wars-coco": Case("experiments/star_wars.gin", COCO_TRUNK),
    "kitti-folds": Case(str(HERE / "kitti_folds.gin"), by="splits.kfold.fold"),
    "coco_tiny": Case("experiments/coco_tiny.gin"),
}


def main() -> None:
    """Run what is missing, print the table, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*CASES])
    parser.add_argument("--label", default="now")
    parser.add_argument("--source", type=Path, default=HERE.parent)
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    parser.add_argument("--bind", action="append", default=[], help="one more binding of every run")
    options = parser.parse_args()
    for name in options.only:
        if name not in CASES:
            parser.error(f"--only: there is no case {name!r}; the cases are {', '.join(CASES)}")
        for number in range(5 if CASES[name].by == "splits.kfold.fold" else options.seeds):
            _run(CASES[name], number, options.source.resolve(), _place(options, name, number), options.bind)
    rows = [*_rows(options.runs)]
    (options.docs / "quality.json").write_text(json.dumps(rows, indent=1) + "\n")
    text = _table(rows)
    (options.docs / "quality.md").write_text(text)
    print(text)


def _place(options: argparse.Namespace, name: str, number: int) -> Path:
    return (options.runs / options.label / name / str(number)).resolve()


def _run(case: Case, number: int, source: Path, folder: Path, more: list[str]) -> None:
    if (folder / "result.json").exists():
        return
    bindings = [*case.bindings, f"{case.by} = {number}", *more]
    command = [sys.executable, "-m", "tlx", "train", case.file, f"--run_dir={folder}"]
    command += [f"--gin_bindings={binding}" for binding in bindings]
    path = os.pathsep.join([str(source), *map(str, source.glob("plugins/*"))])
    print(f"{folder.parent.parent.name}: {folder.parent.name}, {case.by} = {number}", flush=True)
    done = subprocess.run(
        command, cwd=source, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def _rows(runs: Path) -> Iterator[dict[str, Any]]:
    """Yield, for each case and label that was run, the figures of its runs."""
    for name in CASES:
        for label in sorted(runs.iterdir()):
            results = [json.loads(file.read_text()) for file in sorted(label.glob(f"{name}/*/result.json"))]
            if results:
                values = [result["metrics"].get("values", result["metrics"]) for result in results]
                figures = {metric: [one[metric] for one in values] for metric in METRICS}
                cost = {what: [result[what] for result in results] for what in ("images_per_second", "seconds")}
                yield {"case": name, "label": label.name, "split": results[0]["split"], **figures, **cost}


def _table(rows: list[dict[str, Any]]) -> str:
    """Return a page of Markdown: mean and standard deviation of each figure."""
    lines = [
        "# Quality of the shipped experiments",
        "",
        "Written by `benchmarks/quality.py`: mean ± standard deviation over runs that differ in their seed, or for",
        "KITTI in their fold. Images per second of training and seconds of whole runs are medians; they compare only",
        "where the machine was as busy.",
        "",
        "| experiment | version | runs | split | AP | AP50 | AP75 | images/s | seconds |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["case"], row["label"], str(len(row["AP"])), row["split"]]
        cells += [_spread(row[metric]) for metric in METRICS]
        cells += [f"{statistics.median(row['images_per_second']):.1f}", f"{statistics.median(row['seconds']):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.3f}{spread}"


if __name__ == "__main__":
    main()

"""How fast tlx is beside other trainers of detectors, on the same pictures, side by side in one run.

    python benchmarks/peers.py [--peers=runs/peers] [--install] [--turns=2] [--only=tlx,yolo11n] [--quick] [--page]

Each peer that has an environment of its own, `--peers`/NAME, is run by it through its program in `benchmarks/peers`;
`--install` makes those that are missing. All train on 160 pictures of BCCD and are judged on 40, at 320 pixels and
batch 8, from random weights (tlx has its ImageNet weights in a package), with no network. Programs take turns, and
the table has medians; the first turn is a tool's first run on this data, the later ones find what it keeps.
Everything that was seen goes to `docs/performance.json`, and the table made of it to `docs/performance.md`; `--page`
writes only the latter anew. `--quick` takes 16 and 8 pictures and one turn: it shows that all works, and its figures
say nothing.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from performance import page

HERE = Path(__file__).resolve().parent
TRAINING, VALIDATION = 160, 40
QUICK = 16, 8
# A program that takes longer than this, in seconds, has failed.
LONGEST = 1800


@dataclass(frozen=True)
class Tool:
    """A program of `benchmarks/peers`, the environment that runs it (tlx's own if none), and what `--install` asks.

    `tunes` says whether its tuner is timed, and `once` that it trains in the first turn only.
    """

    title: str
    program: str
    arguments: tuple[str, ...] = ()
    environment: str = ""
    packages: tuple[str, ...] = ()
    tunes: bool = False
    once: bool = False


def _yolo(name: str, threads: int) -> Tool:
    how = f"{threads} threads" if threads > 1 else "1 thread, as shipped"
    arguments = (f"--model={name}", f"--threads={threads}")
    return Tool(
        f"Ultralytics {name}, {how}", "ultralytics_yolo", arguments, "ultralytics", ("ultralytics",), threads > 1
    )


TOOLS = {
    "tlx": Tool("tlx, heads.gfl on EfficientNet-Lite0", "tlx_gfl", tunes=True),
    "yolo11n": _yolo("yolo11n", 2),
    "yolo26n": _yolo("yolo26n", 2),
    "yolo11n-1": _yolo("yolo11n", 1),
    "yolo26n-1": _yolo("yolo26n", 1),
    "ssdlite": Tool(
        "torchvision ssdlite320_mobilenet_v3_large",
        "torchvision_ssdlite",
        environment="torchvision",
        packages=("torchvision", "pillow"),
    ),
    "luxonis": Tool(
        "luxonis-train detection_light",
        "luxonis_light",
        environment="luxonis",
        packages=("luxonis-train",),
        tunes=True,
    ),
}


def main() -> None:
    """Run every tool that there is, and write down what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=Path("runs/peers"))
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*TOOLS])
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared/data/voc_bccd")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--page", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.only) - set(TOOLS):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    if options.quick:
        options.turns, options.trials = 1, 2
    # Programs run in folders of their own.
    options.peers = options.peers.resolve()
    if options.install:
        _install(options.peers)
    file = options.docs / "performance.json"
    if not options.page:
        with tempfile.TemporaryDirectory() as folder:
            file.write_text(json.dumps(_measure(Path(folder), options), indent=1) + "\n")
    text = page(json.loads(file.read_text()))
    (options.docs / "performance.md").write_text(text)
    print(text)


def _install(peers: Path) -> None:
    """Make the environments that are missing; what pip says of a failure stays visible."""
    for name, packages in {tool.environment: tool.packages for tool in TOOLS.values() if tool.environment}.items():
        if not (peers / name).exists():
            subprocess.run([sys.executable, "-m", "venv", peers / name], check=True)
            subprocess.run([peers / name / "bin/python", "-m", "pip", "install", *packages], check=False)


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    counts = QUICK if options.quick else (TRAINING, VALIDATION)
    _draw(options.data, folder / "data", *counts)
    bench = _Bench(folder, options.peers)
    tools = [name for name in options.only if bench.run(name, "versions", 0)]
    frozen_epochs = 2 if options.quick else 10
    for turn in range(1, options.turns + 1):
        for what in ("frozen", "all"):
            for name in (name for name in tools if turn == 1 or not TOOLS[name].once):
                # Where features are cached an epoch is over too soon to be timed.
                many = (f"--epochs={frozen_epochs}",) if (name, what) == ("tlx", "frozen") else ()
                bench.run(name, what, turn, *many)
    for name in tools:
        if TOOLS[name].tunes:
            bench.run(name, "trial", 1)
    if "tlx" in tools:
        bench.run("tlx", "limits", 1)
        bench.run("tlx", "search", 1, f"--rounds={options.trials}", f"--epochs={1 if options.quick else 12}")
    return {
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
        "pictures": counts,
        "titles": {name: TOOLS[name].title for name in options.only},
        "runs": bench.runs,
    }


class _Bench:
    """Runs programs one after another, in a home of their own, and keeps what they told."""

    def __init__(self, folder: Path, peers: Path):
        self.folder, self.peers, self.runs = folder, peers, []
        (folder / "home").mkdir()

    def run(self, name: str, what: str, turn: int, *more: str) -> bool:
        """Run a tool's program, and return whether it did what it was to do."""
        tool, out = TOOLS[name], self.folder / f"{name}-{what}-{turn}"
        python = self.peers / tool.environment / "bin/python" if tool.environment else Path(sys.executable)
        row: dict[str, Any] = {"tool": name, "what": what, "turn": turn}
        self.runs.append(row)
        if not python.exists():
            row["failed"] = f"not installed: there is no {python}"
            return False
        out.mkdir()
        command = [
            python,
            HERE / "peers" / f"{tool.program}.py",
            what,
            self.folder / "data",
            out,
            *tool.arguments,
            *more,
        ]
        home = {"HOME": str(self.folder / "home"), "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "2"}
        path = [str(HERE.parent), *map(str, HERE.parent.glob("plugins/*"))] if not tool.environment else []
        surroundings = os.environ | home | {"PYTHONPATH": os.pathsep.join(path)}
        began, busy = time.time(), _Busy()
        print(f"{time.strftime('%H:%M:%S')} {name}, {what}, turn {turn}", flush=True)
        try:
            done = subprocess.run(
                command, env=surroundings, cwd=out, capture_output=True, text=True, check=False, timeout=LONGEST
            )
            last = [line for line in done.stdout.splitlines() if line.startswith("{")][-1:]
            failed = "" if last and not done.returncode else (done.stderr or done.stdout).strip()[-2000:]
        except subprocess.TimeoutExpired:
            last, failed = [], f"it took more than {LONGEST} s"
        row |= {"began": began, "seconds": time.time() - began, "others": busy.others(), "load": os.getloadavg()[0]}
        row |= {"failed": failed} if failed else json.loads(last[0])
        shutil.rmtree(out)
        print(f"         {row['seconds']:.0f} s" + (f": {failed.splitlines()[-1]}" if failed else ""), flush=True)
        return not failed


class _Busy:
    """What the machine's cores did from now on."""

    def __init__(self):
        self.began, self.ours, self.all = time.monotonic(), self._ours(), self._all()

    def others(self) -> float | None:
        """Return the share of all cores that others than this program's children were given since."""
        if self.all is None:
            return None
        cores = (time.monotonic() - self.began) * os.cpu_count()
        return max(0.0, (self._all() - self.all - (self._ours() - self.ours)) / cores)

    @staticmethod
    def _ours() -> float:
        used = [resource.getrusage(whose) for whose in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    @staticmethod
    def _all() -> float | None:
        if not (file := Path("/proc/stat")).exists():
            return None
        user, nice, system, _, _, irq, soft, steal, *_ = map(int, file.read_text().split("\n")[0].split()[1:])
        return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _draw(source: Path, target: Path, training: int, validation: int) -> None:
    """Write pictures of the source's own splits as COCO, by tlx, and the same boxes as YOLO's text files."""
    from tlx import registry  # noqa: PLC0415  `--page` needs none of this.
    from tlx.data.convert import convert  # noqa: PLC0415

    registry.discover()
    data = registry.find("readers.voc").factory(source)
    chosen = []
    for split, count in (("train", training), ("validation", validation)):
        examples = [example for example in data.examples if example.split == split][:count]
        chosen += examples
        stem = "train" if split == "train" else "val"
        _labels(target / "labels", examples)
        (target / f"{stem}.txt").write_text("".join(f"{target}/images/{e.image.name}\n" for e in examples))
    convert(replace(data, examples=tuple(chosen), findings=()), target / "coco", "coco", link=False)
    for name in ("images", "annotations"):
        (target / "coco" / name).rename(target / name)


def _labels(folder: Path, examples: list[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for example in examples:
        left, top, right, bottom = (example.objects.boxes / (2 * [example.width, example.height])).T
        centres = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        rows = zip(example.objects.labels, *centres, strict=True)
        (folder / f"{example.image.stem}.txt").write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


if __name__ == "__main__":
    main()

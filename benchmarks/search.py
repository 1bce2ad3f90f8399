"""What a search costs beside its trials: 1 worker and 4, in a journal and on a PostgreSQL server, trials that sleep.

`python benchmarks/search.py [--storage=postgresql://...] [--seconds=10] [--trials=8]` prints a table, and writes
`search.json` to the present folder. A driver's overhead is the share of its workers' time in which no trial ran,
from the first trial's beginning until all are done, beyond what no driver can use: the rounds that do not come out
even. On top of that comes what happens once: starting processes, and judging.
"""

import argparse
import json
import math
import platform
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tlx import config
from tlx.events import NOBODY, Look
from tlx.search import study
from tlx.search.postgresql import Server
from tlx.work import attempts
from tlx.work.hand import Outcome

EXPERIMENT = """\
run.data = @splits.own()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.fcos()
run.freeze = @freezes.last_layers()
readers.voc.path = '{folder}/none'
splits.own.dataset = @readers.voc()
freezes.last_layers.unfrozen = 0
memory.probe = False
search.trials = {trials}
search.workers = {workers}
search.pruner = 'median'
search.space = {{'fit.learning_rate': ('log', 1e-5, 1e-1), 'fit.batch_size': ('power_of_two', 4, 16)}}
"""
LOOKS = 5


class Asleep(attempts.Attempts):
    """Attempts that sleep, look now and then, and note down when they did."""

    seconds, ran = 10.0, []

    def train(self, bindings, folder, more, listener):
        begun = time.monotonic()
        metrics = scores(float(bindings[0].split(" = ")[1]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.json").write_text('{"layers": []}')
        for look in range(1, LOOKS + 1):
            # Asking at a look is the driver's work, and not the trial's.
            time.sleep(max(0.0, begun + self.seconds * look / LOOKS - time.monotonic()))
            listener.evaluated(Look(look, LOOKS + 1, look, LOOKS + 1, look, metrics["values"]["AP"], metrics, {}))
        (folder / "data.json").write_text('{"fingerprint": "none"}')
        (folder / "environment.json").write_text("{}")
        self.ran.append((begun, begun + self.seconds, time.monotonic()))
        return Outcome("done", {"metrics": metrics})

    def judge(self, bindings, folder, listener):
        return Outcome("done", {"split": "test", "metrics": scores(0.0)})


def scores(value: float) -> dict:
    """Return metrics as the evaluator of detection gives them."""
    return {"primary": "AP", "values": {"AP": value, "AP50": value}}


def measure(workers: int, trials: int, seconds: float, storage: str | None) -> dict:
    """Run one search and return what it took."""
    Asleep.seconds, Asleep.ran = seconds, []
    study.Attempts = Asleep
    with tempfile.TemporaryDirectory() as folder:
        gin = Path(folder) / "search.gin"
        gin.write_text(EXPERIMENT.format(folder=folder, trials=trials, workers=workers))
        # Never pruned: the pruner is asked at each look, and its answer is not heeded.
        experiment = config.load([gin])
        settings = config.build(experiment.trees["search"])
        server = Server(storage) if storage else None
        begun, cpu = time.monotonic(), time.process_time()
        name = f"benchmark-{time.time_ns()}" if storage else None
        result = study.search(experiment, settings, Path(folder) / "run", NOBODY, server, name)
        took, cpu = time.monotonic() - begun, time.process_time() - cpu
    first, last = min(r[0] for r in Asleep.ran), max(r[2] for r in Asleep.ran)
    ideal = math.ceil(trials / workers) * seconds
    return {
        "storage": "PostgreSQL" if storage else "journal",
        "workers": workers,
        "finished": sum(row["state"] in ("complete", "pruned") for row in result["trials"]),
        "seconds": took,
        "ideal_seconds": ideal,
        "overhead": (last - first) / ideal - 1,
        "once_seconds": took - (last - first),
        "driver_cpu_seconds": cpu,
    }


def main() -> None:
    """Measure all ways and show them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--storage")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--trials", type=int, default=8)
    given = parser.parse_args()
    rows = [
        measure(workers, given.trials, given.seconds, storage)
        for storage in (None, *([given.storage] if given.storage else ()))
        for workers in (1, 4)
    ]
    table = Table(title=f"{given.trials} trials of {given.seconds:g} s")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        shown = {key: f"{value:.2f}" if isinstance(value, float) else str(value) for key, value in row.items()}
        table.add_row(*(shown | {"overhead": f"{row['overhead']:.2%}"}).values())
    Console().print(table)
    machine = {"platform": platform.platform(), "python": platform.python_version()}
    Path("search.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

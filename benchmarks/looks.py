"""What a look at a run says about its end, by look and by how much trains: what pruning may rest on.

`python benchmarks/looks.py FOLDER...` takes the folders of runs and of searches (best ones without a pruner). Runs on
the same data, at the same size and with the same looks are compared with one another. For each look it prints the rank
correlation (Spearman) of the best score until then with the best one at the end: of all runs, of those that train only
a head, and of those that train more. Then searches are played again, their trials in 200 random orders, with pruning
from each look on: how much of the training is saved, and how often the trial that ends best is cut.
"""

import argparse
import json
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tlx.search.pruning import COMPARED, is_behind, trained_share

_ORDERS = 200


@dataclass(frozen=True)
class Run:
    """A finished run: its scores, look by look, the best until then, and the share of weight layers that train."""

    scores: tuple[float, ...]
    share: float

    @property
    def end(self) -> float:
        return self.scores[-1]


def runs(folders: Sequence[Path]) -> dict[str, list[Run]]:
    """Return the finished runs below some folders, by what they can be compared with."""
    found = defaultdict(list)
    for file in sorted({file for folder in folders for file in folder.rglob("history.jsonl")}):
        folder = file.parent
        if not all((folder / name).exists() for name in ("model.json", "data.json", "result.json")):
            continue
        looks = [json.loads(line) for line in file.read_text().splitlines()]
        model, data = (json.loads((folder / name).read_text()) for name in ("model.json", "data.json"))
        values = [look["metrics"]["values"][look["metrics"]["primary"]] or 0.0 for look in looks]
        alike = f"{folder.parent.parent.name} {data['fingerprint'][:6]}, {model['size']} px, {len(looks)} looks"
        found[alike].append(Run(tuple(accumulate(values, max)), trained_share(folder)))
    return found


def ranks(values: Sequence[float]) -> list[float]:
    """Return each value's rank; ties share the mean of theirs."""
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


def correlation(group: Sequence[Run], look: int) -> float | None:
    """Return the rank correlation of a look, counted from 0, with the end; None of fewer than four runs."""
    now, end = ([*map(by, group)] for by in (lambda run: run.scores[look], lambda run: run.end))
    if len(group) < 4 or len(set(now)) == 1 or len(set(end)) == 1:
        return None
    return statistics.correlation(ranks(now), ranks(end))


def replays(group: Sequence[Run], first: int, alike: Callable[[Run, Run], bool]) -> Iterator[tuple[float, bool]]:
    """Yield of searches in random orders the share of looks that pruning saves, and whether the best run was cut."""
    best = max(group, key=lambda run: run.end)
    for seed in range(_ORDERS):
        done: list[tuple[Run, int]] = []
        for run in random.Random(seed).sample(group, len(group)):
            cut = len(run.scores)
            for look in range(first, len(run.scores) - 1):
                others = [other.scores[look] for other, seen in done if seen > look and alike(other, run)]
                if is_behind(run.scores[look], others):
                    cut = look + 1
                    break
            done.append((run, cut))
        looks = sum(len(run.scores) for run in group)
        yield 1 - sum(cut for _, cut in done) / looks, any(run is best and cut < len(run.scores) for run, cut in done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    console = Console(highlight=False)
    for name, group in runs(parser.parse_args().folder).items():
        if len(group) < 4:
            continue
        columns = "look", "all", "head only", "more trains", "saved", "best cut", "saved, alike", "best cut, alike"
        table = Table(title=f"{name}: {len(group)} runs")
        for column in columns:
            table.add_column(column, justify="right")
        parts = group, [run for run in group if not run.share], [run for run in group if run.share]
        for look in range(len(group[0].scores)):
            found = [correlation(part, look) for part in parts]
            cells = ["-" if value is None else f"{value:.2f}" for value in found]
            for alike in (lambda other, run: True, lambda other, run: other.share >= run.share):
                saved, cut = zip(*replays(group, look, alike), strict=True)
                cells += [f"{statistics.mean(saved):.0%}", f"{statistics.mean(cut):.0%}"]
            table.add_row(str(look + 1), *cells)
        console.print(table)
    console.print(f"alike: those compared train at least as much; there are {COMPARED} of them, or nothing is cut")


if __name__ == "__main__":
    main()

"""The command that says how much memory an experiment takes, and what fits."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from rich.table import Table

from tlx import checkpoint, config
from tlx.commands.experiment import load
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.errors import TlxError

flags.DEFINE_list("unfrozen", [], "Numbers of unfrozen layers to measure; by default some out of search.space.")
for _name in ("gin_file", "gin_bindings", "allow_imports"):
    flags.declare_key_flag(_name)

_BOUNDARY = "freezes.last_layers.unfrozen"
_ROWS = 6
_MOST = 100_000


def memory(arguments: list[str]) -> None:
    """tlx memory EXPERIMENT.gin: show which micro-batches fit in memory, and what an example takes.

    One line for each number of unfrozen layers: the memory that every run of the kind takes, that of each
    example of a micro-batch, and the largest micro-batch that fits within memory.budget_gb or, where that is
    not set, the memory that is free. Steps are measured in another process, and remembered.
    """
    experiment = load(arguments)
    from tlx.report.terminal import Terminal  # noqa: PLC0415  The commands that only answer need none of this.
    from tlx.work.attempts import Attempts, tells  # noqa: PLC0415

    settings = config.build(experiment.trees["run"].arguments["memory"])
    with tempfile.TemporaryDirectory() as work, Terminal(CONSOLE) as terminal:
        file = Path(work) / "config.gin"
        checkpoint.write(file, experiment.text().encode())
        attempts = Attempts(experiment, settings, file, Path(work) / "worker.log")
        table = Table(title=f"{experiment.name}: {attempts.limit.bytes / 1e9:.2f} GB, {attempts.limit.why}")
        for column in ("unfrozen layers", "fixed GB", "MB an example", "largest micro-batch"):
            table.add_column(column, justify="right")
        try:
            for name, bindings in _kinds(experiment):
                need = attempts.need(bindings, tells(terminal))
                if need is None:
                    raise TlxError(f"memory: {name} unfrozen layers could not be measured; does `tlx train` work?")
                fits = need.largest(_MOST, attempts.limit.bytes, settings.margin)
                table.add_row(
                    name, f"{need.fixed / 1e9:.2f}", f"{need.each / 1e6:.1f}", f"{fits:,}" if fits else "none"
                )
        finally:
            attempts.stop()
    CONSOLE.print(table)


def _kinds(experiment: config.Experiment) -> Iterator[tuple[str, list[str]]]:
    try:
        written = experiment.value(_BOUNDARY)
    except TlxError:
        yield "as written", []
        return
    kind, *numbers = experiment.value("search.space").get(_BOUNDARY, ("choice", written))
    if kind != "choice":
        low, high = numbers
        numbers = [*range(low, high, max(1, -(-(high - low) // (_ROWS - 1)))), high]
    for number in map(int, FLAGS.unfrozen or sorted({*numbers, written})):
        yield str(number), [f"{_BOUNDARY} = {number}"]

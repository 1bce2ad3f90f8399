"""The command that says how much memory an experiment takes, and what fits."""

import tempfile
from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from rich.table import Table
from rich.text import Text

from tlx import checkpoint, config
from tlx.commands.experiment import load
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.errors import ConfigError, TlxError
from tlx.events import Listener
from tlx.ginfile import show
from tlx.memory import Limit
from tlx.registry import commands
from tlx.tree import walk

flags.DEFINE_list(
    "rows",
    [],
    "Values to measure of the argument along which memory grows, such as numbers of unfrozen layers; by default some"
    " out of search.space.",
)
for _name in ("gin_file", "gin_bindings", "allow_imports"):
    flags.declare_key_flag(_name)

_ROWS = 6
_MOST = 100_000


class _Row(NamedTuple):
    """A kind of run: what it is called, by the names of what differs between kinds, and its bindings."""

    cells: dict[str, str]
    bindings: list[str]

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value}" for name, value in self.cells.items()) or "the experiment as written"


@commands.register("memory")
def memory(arguments: list[str]) -> None:
    """tlx memory EXPERIMENT.gin: show which micro-batches fit in memory, and what an example takes.

    One line for each number of layers that the freeze policy may let train, for each alternative of
    search.space, and for each phase where the policy has several: the memory that every run of the kind takes,
    that of each example of a micro-batch, and the largest micro-batch that fits within memory.budget_gb or,
    where that is not set, the memory that is free.
    Steps are measured in another process, and remembered.
    """
    experiment = load(arguments)
    from tlx.report.terminal import Terminal  # noqa: PLC0415  The commands that only answer need none of this.
    from tlx.work.attempts import Attempts  # noqa: PLC0415

    rows = list(_rows(experiment))
    settings = config.build(experiment.trees["run"].arguments["memory"])
    with tempfile.TemporaryDirectory() as work, Terminal(CONSOLE) as terminal:
        file = Path(work) / "config.gin"
        checkpoint.write(file, experiment.text().encode())
        attempts = Attempts(experiment, settings, file, Path(work) / "worker.log")
        try:
            measured = [(row, _measured(attempts, row, terminal)) for row in rows]
        finally:
            attempts.stop()
    CONSOLE.print(_table(experiment.name, measured, attempts.limit, settings.margin))


def _measured(attempts: Any, row: _Row, listener: Listener) -> tuple[Any, ...]:
    needs = attempts.needs(row.bindings, listener)
    if needs is None:
        raise TlxError(f"memory: {row} could not be measured; does `tlx train` work?")
    return needs


def _table(name: str, measured: list[tuple[_Row, tuple[Any, ...]]], limit: Limit, margin: float) -> Table:
    """Return a table of kinds of runs and the needs of their phases, which are numbered where there are several."""
    table = Table(title=f"{name}: {limit.bytes / 1e9:.2f} GB, {limit.why}")
    phases = ["phase"] if any(len(needs) > 1 for _, needs in measured) else []
    differing = [*dict.fromkeys(name for row, _ in measured for name in row.cells), *phases]
    for column in (*differing, "fixed GB", "MB an example", "largest micro-batch"):
        table.add_column(column, justify="right")
    for row, needs in measured:
        for number, need in enumerate(needs, 1):
            cells = row.cells | {"phase": str(number) if len(needs) > 1 else ""}
            fits = need.largest(_MOST, limit.bytes, margin)
            amounts = (f"{need.fixed / 1e9:.2f}", f"{need.each / 1e6:.1f}", f"{fits:,}" if fits else "none")
            table.add_row(*(cells.get(name, "") for name in differing), *amounts)
    return table


def _rows(experiment: config.Experiment) -> Iterator[_Row]:
    from tlx.search import space  # noqa: PLC0415

    settings = config.build(experiment.trees["search"])
    if settings.space:
        space.check(experiment, settings)
    varied = space.space_of(experiment, settings)
    for way in varied.alternatives():
        # What is no alternative is measured as it is written.
        values = varied.usual(experiment, way)
        needed = [name for name in values if name in way or experiment.value(name) is Parameter.empty]
        bindings = [space.binding(name, values[name]) for name in needed]
        cells = {name: show(value) for name, value in way.items()}
        try:
            chosen = experiment.with_bindings(bindings)
        except ConfigError as error:
            CONSOLE.print(Text(f"{_Row(cells, bindings)}: left out: {error}"), soft_wrap=True)
            continue
        yield from _grown(chosen, varied, cells, bindings)


def _grown(experiment: config.Experiment, varied: Any, cells: dict[str, str], bindings: list[str]) -> Iterator[_Row]:
    """Yield a row for each value of the argument along which the memory of an experiment grows, if it has one."""
    node = next((node for node in walk([experiment.trees["run"]]) if node.entry.grows), None)
    if node is None:
        yield _Row(cells, bindings)
        return
    target = f"{node.target}.{node.entry.grows}"
    written = experiment.value(target)
    kind, *numbers = varied.bounds.get(varied.written_as.get(target), ("choice", written))
    if kind != "choice":
        low, high = numbers
        numbers = [*range(low, high, max(1, -(-(high - low) // (_ROWS - 1)))), high]
    for number in map(int, FLAGS.rows or sorted({*numbers, written})):
        yield _Row(cells | {target: str(number)}, [*bindings, f"{target} = {number}"])

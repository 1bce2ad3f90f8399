"""The command that shows what a search has come to so far."""

import contextlib
import json
from pathlib import Path

from absl import flags
from rich.table import Table
from rich.text import Text

from tlx import config
from tlx.commands.experiment import notice_unlisted
from tlx.commands.shared import CONSOLE, FLAGS, server
from tlx.errors import ConfigError, TlxError
from tlx.registry import commands

for _name in ("storage", "allow_imports"):
    flags.declare_key_flag(_name)


@commands.register("study")
def study(arguments: list[str]) -> None:
    """tlx study STUDY_DIR: show a search's trials, what mattered, its memory, and what failed.

    A search that is still running may be looked at. The importance of a parameter is its share in what
    distinguishes the better trials from all (PED-ANOVA); it takes a handful of finished trials. A search that
    many hosts share is read with the --storage that it was given.
    """
    if not arguments:
        raise TlxError("name the folder of a search, such as runs/quickstart")
    from tlx.report import pareto  # noqa: PLC0415
    from tlx.report.terminal import first_look_table, trials_table  # noqa: PLC0415  The commands that only answer need none of this.
    from tlx.search.alternatives import FIRST_LOOK  # noqa: PLC0415
    from tlx.search.storage import METRIC, OBJECTIVES, importances, read_study, rows  # noqa: PLC0415

    folder = Path(arguments[0])
    kept = read_study(folder, server())
    notice_unlisted(folder)
    trials = rows(kept)
    if looked := kept.user_attrs.get(FIRST_LOOK):
        CONSOLE.print(first_look_table(looked["value"]["rows"]))
    CONSOLE.print(trials_table(trials))
    if names := kept.user_attrs.get(OBJECTIVES):
        CONSOLE.print(pareto.table(trials, names, kept.user_attrs[METRIC]))
    if shares := importances(kept):
        table = Table(title="what mattered for the validation score")
        table.add_column("binding")
        table.add_column("importance", justify="right")
        for name, share in shares.items():
            table.add_row(name, f"{share:.2f}")
        CONSOLE.print(table)
    for row in trials:
        if row["cause"]:
            last = row["cause"].strip().splitlines()[-1]
            CONSOLE.print(Text(f"trial {row['trial']} {row['state']}: {last}"), soft_wrap=True)
    result = folder / "result.json"
    best = json.loads(result.read_text())["best"] if result.exists() else None
    end = f"finished; the best is trial {best['trial']}" if best else "not finished; `tlx search` goes on with it"
    CONSOLE.print(f"{folder} is {end}", soft_wrap=True)
    _print_memory(folder, trials)


def _print_memory(folder: Path, trials: list[dict]) -> None:
    from tlx.work.attempts import LEDGER  # noqa: PLC0415
    from tlx.work.kinds import describe  # noqa: PLC0415
    from tlx.work.ledger import Ledger, kind  # noqa: PLC0415

    try:
        experiment = config.load([folder / "config.gin"], (), FLAGS.allow_imports)
    except ConfigError as error:
        # Such as a file of weights that is on another machine: all else can be shown without it.
        CONSOLE.print(Text(f"what is known about memory cannot be shown: {error}"), soft_wrap=True)
        return
    kinds: dict[str, list[int]] = {}
    for row in trials:
        # A trial whose bindings do not go together has no memory to tell of.
        with contextlib.suppress(ConfigError):
            if row["bindings"]:
                kinds.setdefault(kind(describe(experiment.with_bindings(row["bindings"]))), []).append(row["trial"])
    known = [(", ".join(map(str, numbers)), Ledger(LEDGER).get(key) or ()) for key, numbers in kinds.items()]
    table = Table(title="memory")
    several = any(len(needs) > 1 for _, needs in known)
    for column in ("trials", *["phase"] * several, "fixed GB", "MB an example", "tried after a death"):
        table.add_column(column, justify="right")
    for numbers, needs in known:
        for phase, need in enumerate(needs, 1):
            which = [str(phase) if len(needs) > 1 else ""] * several
            amounts = (f"{need.fixed / 1e9:.2f}", f"{need.each / 1e6:.1f}") if need.fixed else ("-", "-")
            table.add_row(numbers, *which, *amounts, "-" if need.tried is None else str(need.tried))
    if table.row_count:
        CONSOLE.print(table)

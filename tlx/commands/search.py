"""The command that searches the best configuration."""

from pathlib import Path
from typing import Any

from absl import flags
from rich.text import Text

from tlx import config
from tlx.commands.experiment import load, print_result, run_dir
from tlx.commands.shared import CONSOLE, FLAGS, server
from tlx.errors import ConfigError
from tlx.evaluate.choose import evaluator_of
from tlx.evaluate.evaluator import in_words
from tlx.registry import commands

for _name in ("gin_file", "gin_bindings", "run_dir", "overwrite", "allow_imports", "storage"):
    flags.declare_key_flag(_name)
flags.DEFINE_string(
    "study_name", None, "The study in --storage; by default the experiment's name and a digest of what it says."
)


@commands.register("search", resumes=True)
def search(arguments: list[str]) -> None:
    """tlx search EXPERIMENT.gin: search the best configuration within search.space.

    Where there are search.alternatives, a first look at each decides which combination is searched. Trial 0 is
    the experiment as written. The winner, by search.metric on the validation split, is judged on the test split,
    which no trial has seen. Interrupted by Ctrl-C or killed, the same command goes on, also with other
    search.trials, search.minutes, search.workers or memory settings.

    With --storage, the same command on many hosts works on one search: a PostgreSQL database keeps the trials,
    search.trials counts those of all hosts, and what a dead host left is taken up by another. Each host has a
    --run_dir of its own, and the one that has the winner judges it. Paths may differ between hosts, the data may
    not. Another experiment is another study; --study_name begins the same one anew. A password is better kept
    from the command line: in the environment variable PGPASSWORD, or in ~/.pgpass.
    """
    experiment = load(arguments)
    settings = config.build(experiment.trees["search"])
    from tlx.report.terminal import Terminal  # noqa: PLC0415
    from tlx.search import space, study  # noqa: PLC0415

    space.check(experiment, settings)
    config.refuse_unready(experiment)
    if FLAGS.storage and FLAGS.overwrite:
        raise ConfigError(
            "--overwrite does not reach what other hosts work on; give --study_name and another --run_dir"
        )
    if FLAGS.study_name and not FLAGS.storage:
        raise ConfigError("--study_name names a study in --storage; give that as well")
    shared = server()
    folder = run_dir(experiment, "search")
    with Terminal(CONSOLE) as terminal:
        result = study.search(experiment, settings, folder, terminal, shared, FLAGS.study_name)
    _print_best(experiment, settings, result, folder)


def _print_best(experiment: config.Experiment, settings: Any, result: dict[str, Any], folder: Path) -> None:
    from tlx.report.terminal import first_look_table  # noqa: PLC0415  The commands that only answer need none of this.

    if rows := result.get("first_look"):
        CONSOLE.print(first_look_table(rows))
    best = result["best"]
    finished = sum(row["state"] in ("complete", "pruned") for row in result["trials"])
    print_result(experiment, result, folder / best["folder"], folder)
    if not (folder / best["folder"]).exists():
        where = f"on the host {best['host']}" if best["host"] else f"gone: {folder / best['folder']} was removed"
        CONSOLE.print(f"The run folder and the pictures are {where}.", soft_wrap=True)
    validation = best["validation"]
    CONSOLE.print(
        f"\nThe best of {finished} trials is trial {best['trial']}, with validation {in_words(validation)}."
        " Its bindings:",
        soft_wrap=True,
    )
    for binding in best["bindings"]:
        CONSOLE.print(Text(f"    {binding}"))
    if settings.objectives:
        from tlx.report import pareto  # noqa: PLC0415

        metric = evaluator_of(experiment).metric(settings.metric).name
        CONSOLE.print(pareto.table(result["trials"], settings.objectives, metric))
        CONSOLE.print(f"{'Pareto front:':<14} {folder / 'pareto.png'}", soft_wrap=True)
    says = result["written"]["says"]
    CONSOLE.print(Text(f"{says[0].upper()}{says[1:]}."), soft_wrap=True)

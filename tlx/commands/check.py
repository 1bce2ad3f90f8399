"""The command that checks a configuration."""

from absl import flags

from tlx import config
from tlx.commands.experiment import load
from tlx.registry import commands

for _name in ("gin_file", "gin_bindings", "allow_imports"):
    flags.declare_key_flag(_name)


@commands.register("check")
def check(arguments: list[str]) -> None:
    """tlx check EXPERIMENT.gin: check a configuration and print it, macros and defaults included.

    Nothing is trained and no data is opened.
    """
    experiment = load(arguments)
    if any(statement.target.startswith("search.") for statement in experiment.statements):
        from tlx.search import space  # noqa: PLC0415

        space.check(experiment, config.build(experiment.trees["search"]))
    print(experiment.text(), end="")

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

    Nothing is trained and no data is opened. What is not installed, such as the weights of a backbone that the
    search may choose, is named.
    """
    experiment = load(arguments)
    config.refuse_unready(experiment)
    if any(statement.target.startswith("search.") for statement in experiment.statements):
        from tlx.search import space  # noqa: PLC0415

        space.check(experiment, config.build(experiment.trees["search"]))
    print(experiment.text(), end="")

"""The command that judges a trained detector."""

from absl import flags

from tlx import config
from tlx.commands.experiment import print_result, trained
from tlx.registry import commands

for _name in ("gin_bindings", "allow_imports", "tiles"):
    flags.declare_key_flag(_name)


@commands.register("evaluate")
def evaluate(arguments: list[str]) -> None:
    """tlx evaluate RUN_DIR: judge a trained detector, or a search's best one, on the test split.

    Other data: --gin_bindings="DATA = '/other/folder'". Pictures cut into windows: --tiles=640.
    """
    folder, experiment = trained(arguments[:1])
    from tlx.run import evaluate as evaluate_run  # noqa: PLC0415

    print_result(experiment, evaluate_run(config.build(experiment.trees["run"]), folder), folder)

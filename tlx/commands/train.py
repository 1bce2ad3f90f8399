"""The command that trains one detector."""

from absl import flags

from tlx import config
from tlx.commands.experiment import load, print_result, run_dir
from tlx.commands.shared import CONSOLE
from tlx.lock import only_process
from tlx.registry import commands

for _name in ("gin_file", "gin_bindings", "run_dir", "overwrite", "allow_imports"):
    flags.declare_key_flag(_name)


@commands.register("train", resumes=True)
def train(arguments: list[str]) -> None:
    """tlx train EXPERIMENT.gin: train one detector, as the experiment is written.

    Prints the metrics of the test split (validation, where there is no test split). The run folder then
    holds the weights, result.json, pictures and TensorBoard logs. An interrupted run goes on where it was.
    """
    experiment = load(arguments)
    config.refuse_unready(experiment)
    folder = run_dir(experiment, "run")
    from tlx.report.terminal import Terminal  # noqa: PLC0415  The commands that only answer need none of this.
    from tlx.work.attempts import train as train_run  # noqa: PLC0415

    with only_process(folder), Terminal(CONSOLE) as terminal:
        result = train_run(experiment, folder, terminal)
    print_result(experiment, result, folder)

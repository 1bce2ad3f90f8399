"""The command that judges a trained detector."""

from absl import flags

from tlx import config
from tlx.commands.experiment import fusion, must_cut, print_result, trained
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.evaluate.evaluator import in_words
from tlx.registry import commands

for _name in ("gin_bindings", "allow_imports", "tiles", "fuse"):
    flags.declare_key_flag(_name)


@commands.register("evaluate")
def evaluate(arguments: list[str]) -> None:
    """tlx evaluate RUN_DIR: judge a trained detector, or a search's best one, on the test split.

    Other data: --gin_bindings="DATA = '/other/folder'". Pictures cut into windows: --tiles=640.
    --fuse=mirror looks at mirrored pictures as well, and says what that gains and costs.
    """
    folder, experiment = trained(arguments[:1])
    fused = fusion()
    from tlx.run import evaluate as evaluate_run  # noqa: PLC0415
    from tlx.tiles import tiles_of  # noqa: PLC0415

    run = config.build(experiment.trees["run"])
    if must_cut():
        tiles_of(run.tiles).refuse_larger(run.judged[1], f"--tiles={FLAGS.tiles}", "none")
    result = evaluate_run(run, folder, fusion=fused)
    print_result(experiment, result, folder)
    if "plain" in result:
        alone, both = result["seconds"]
        cost = f"{both / alone:.1f} times the time ({alone:.1f} -> {both:.1f} s)"
        CONSOLE.print(f"without --fuse={FLAGS.fuse}: {in_words(result['plain'])}; with it {cost}", soft_wrap=True)

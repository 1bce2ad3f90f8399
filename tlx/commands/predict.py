"""The command that finds objects in pictures."""

from pathlib import Path

from absl import flags
from rich.text import Text

from tlx import ownership
from tlx.commands.experiment import fusion, must_cut, trained
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.errors import TlxError
from tlx.registry import commands

for _name in ("gin_bindings", "run_dir", "out", "allow_imports", "tiles", "fuse"):
    flags.declare_key_flag(_name)
flags.DEFINE_float("min_score", 0.3, "Draw detections that score at least this.", 0.0, 1.0)


@commands.register("predict")
def predict(arguments: list[str]) -> None:
    """tlx predict RUN_DIR IMAGE_OR_FOLDER...: find objects in pictures.

    Folders are searched with those within them; what is hidden, and the results of tlx, are left out.
    Writes predictions.json, and every picture with what was found drawn, to --out or --run_dir (by default the
    folder `predictions` in RUN_DIR, or RUN_DIR-predictions beside it where RUN_DIR has no list of what tlx made).
    Boxes are (x_min, y_min, x_max, y_max) in pixels of the upright picture. --tiles cuts large pictures into
    overlapping windows, whatever the run was trained on; what several of them see of an object is told once.
    --fuse=mirror looks at mirrored pictures as well.
    """
    folder, experiment = trained(arguments[:1])
    if len(arguments) < 2:
        raise TlxError("predict: name at least one picture or folder of pictures after RUN_DIR")
    from tlx.inference import predict_pictures  # noqa: PLC0415

    chosen = FLAGS.out or FLAGS.run_dir
    # Nothing is written in a folder that is not tlx's.
    inside = not chosen and ownership.kind(folder) is not None
    target = Path(chosen or (folder / "predictions" if inside else f"{folder}-predictions"))
    ownership.take(target, "predictions", within=folder if inside else None)
    paths = [Path(argument) for argument in arguments[1:]]
    fused = fusion()
    count, errors = predict_pictures(experiment, folder, paths, target, FLAGS.min_score, must_cut(), fused, _say)
    for error in errors:
        _say(f"left out: {error}")
    CONSOLE.print(f"{count} pictures: {target / 'predictions.json'}, drawn in {target}", soft_wrap=True)


def _say(message: str) -> None:
    CONSOLE.print(Text(message), soft_wrap=True)

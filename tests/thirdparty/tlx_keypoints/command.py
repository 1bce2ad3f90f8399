"""A command of its own."""

import json

from absl import flags
from rich.text import Text

from tlx.commands.experiment import trained
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.registry import commands

for _name in ("gin_bindings", "allow_imports"):
    flags.declare_key_flag(_name)
flags.DEFINE_integer("digits", 2, "How many digits a number is shown with.", 0, 9)


@commands.register("keypoints")
def keypoints(arguments: list[str]) -> None:
    """tlx keypoints RUN_DIR: say in a line for each class how good its points are."""
    folder, _ = trained(arguments[:1])
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    for name, values in metrics["per_class"].items():
        # Of a class without points nothing is known.
        numbers = {key: "-" if value is None else f"{value:.{FLAGS.digits}f}" for key, value in values.items()}
        CONSOLE.print(Text(f"{name}: PCK {numbers['PCK']}, {numbers['pixel_error']} px off, {values['points']} points"))

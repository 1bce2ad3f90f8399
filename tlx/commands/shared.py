"""What all commands share: the flags, the terminal, and how a metric is printed."""

from absl import flags
from rich.console import Console

FLAGS = flags.FLAGS
CONSOLE = Console(highlight=False)

flags.DEFINE_string("format", None, "The format to write, or to read (by default the one that is recognized).")
flags.DEFINE_multi_string("gin_bindings", [], 'A binding such as "fit.epochs = 10"; may be repeated; overrides files.')
flags.DEFINE_bool("allow_imports", False, "Let gin files import Python modules, which runs their code.")
flags.DEFINE_string("out", None, "The folder that the results go to; by default one that is named after the data.")


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

"""What all commands share: the flags, the terminal, and how a metric is printed."""

from absl import flags
from rich.console import Console

FLAGS = flags.FLAGS
CONSOLE = Console(highlight=False)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

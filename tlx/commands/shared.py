"""What all commands share: the flags and the terminal."""

import os
import sys
from typing import Any

from absl import flags
from rich.console import Console

FLAGS = flags.FLAGS
CONSOLE = Console(highlight=False)
if not CONSOLE.is_terminal and "COLUMNS" not in os.environ:
    # In a file or a pipe no column of a table needs to be cut short.
    CONSOLE.width = 1000

flags.DEFINE_string("format", None, "The format to write, or to read (by default the one that is recognized).")
flags.DEFINE_multi_string("gin_bindings", [], 'A binding such as "fit.epochs = 10"; may be repeated; overrides files.')
flags.DEFINE_bool("allow_imports", False, "Let gin files import Python modules, which runs their code.")
flags.DEFINE_string("out", None, "The folder that the results go to; by default one that is named after the data.")
flags.DEFINE_string(
    "storage",
    None,
    "The PostgreSQL database that keeps a search of many hosts: postgresql://USER:PASSWORD@HOST/DATABASE.",
)


def server() -> Any:
    """Return the server that --storage names, or None."""
    if not FLAGS.storage:
        return None
    from tlx.search.postgresql import Server  # noqa: PLC0415  Commands that only answer need none of this.

    made = Server(FLAGS.storage)
    # Each run notes down the command that began it.
    sys.argv[:] = [argument.replace(FLAGS.storage, str(made)) for argument in sys.argv]
    return made

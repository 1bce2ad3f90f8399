"""The command line: one verb per command, on absl."""

import inspect
import signal
import sys
from collections.abc import Callable

from absl import app, flags
from rich.console import Console
from rich.text import Text

from tlx.commands import experiment
from tlx.commands.convert import convert_data
from tlx.commands.fetch import fetch_images
from tlx.commands.inspect import inspect_data
from tlx.commands.listing import list_registered
from tlx.commands.memory import memory
from tlx.commands.shared import FLAGS
from tlx.commands.study import study
from tlx.errors import TlxError, of_system, suggest

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": experiment.train,
    "search": experiment.search,
    "evaluate": experiment.evaluate,
    "predict": experiment.predict,
    "study": study,
    "memory": memory,
    "check": experiment.check,
    "inspect": inspect_data,
    "convert": convert_data,
    "fetch": fetch_images,
    "list": list_registered,
}


def usage() -> str:
    """Return the text of `tlx --help`."""
    lines = ["tlx: the best detector that your pictures and your machine allow.", "", "Commands:"]
    for command in COMMANDS.values():
        what, _, does = inspect.getdoc(command).partition("\n")[0].partition(": ")
        lines.append(f"  {what:<44} {does}")
    return "\n".join([*lines, "", "`tlx COMMAND --help` says more about one, its flags included."])


def help_on(name: str) -> str:
    """Return the text of `tlx NAME --help`: what the command does, and its flags."""
    command = COMMANDS[name]
    lines = [inspect.getdoc(command), ""]
    for flag in FLAGS.get_key_flags_for_module(sys.modules[command.__module__]):
        of, colon, text = flag.help.partition(": ")
        # A flag's help may begin with the one command of several that it is for.
        if not (colon and of in COMMANDS and of != name):
            text = (text if of == name else flag.help).partition(";\n")[0]
            lines.append(f"  --{flag.name:<15} {text[0].upper()}{text[1:]}")
    return "\n".join(lines)


def _main(argv: list[str]) -> None:
    command, *arguments = argv[1:] or [""]
    if command not in COMMANDS:
        problem = f"tlx: {command!r} is no command{suggest(command, COMMANDS)}\n\n" if command else ""
        print(problem + usage(), file=sys.stderr if command else sys.stdout)
        sys.exit(2 if command else 0)
    try:
        COMMANDS[command](arguments)
    except TlxError as error:
        Console(stderr=True, highlight=False).print(Text(f"tlx {command}: {error}"), soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        print(f"tlx {command}: {of_system(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if command in ("train", "search", "fetch") else ""
        print(f"\ntlx {command}: interrupted{goes_on}", file=sys.stderr)
        sys.exit(130)


def _parse(argv: list[str]) -> list[str]:
    if any(a in ("--help", "-h", "-help", "--helpfull") for a in argv):
        command = next((a for a in argv[1:] if a in COMMANDS), None)
        print(help_on(command) if command else usage())
        sys.exit(0)
    try:
        return FLAGS(argv)
    except flags.Error as error:
        print(f"tlx: {error}", file=sys.stderr)
        sys.exit(2)


def entry() -> None:
    """Run the command that the command line names."""
    # What ends a session politely should leave things as tidy as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.run(_main, flags_parser=_parse)

"""The command line: one verb per command, on absl."""

import inspect
import signal
import sys

from absl import app, flags
from rich.console import Console
from rich.text import Text

from tlx import registry
from tlx.errors import TlxError, of_system, suggest
from tlx.registry import Entry, commands

FLAGS = flags.FLAGS


def usage() -> str:
    """Return the text of `tlx --help`."""
    lines = ["tlx: the best detector that your pictures and your machine allow.", "", "Commands:"]
    for _, command in sorted(_every_command().items()):
        what, _, does = command.summary.partition(": ")
        lines.append(f"  {what:<44} {does}")
    return "\n".join([*lines, "", "`tlx COMMAND --help` says more about one, its flags included."])


def help_on(command: Entry) -> str:
    """Return the text of `tlx COMMAND --help`: what the command does, and its flags."""
    lines = [inspect.getdoc(command.factory), ""]
    for flag in _flags_of(command):
        # To a flag that may be repeated absl adds that it may.
        text, _, _ = flag.help.partition(";\n")
        lines.append(f"  --{flag.name:<15} {text}")
    return "\n".join(lines)


def _flags_of(command: Entry) -> list[flags.Flag]:
    """Return the flags that a command has: those that its module defines or declares to be key flags."""
    return FLAGS.get_key_flags_for_module(sys.modules[command.factory.__module__])


def _find(name: str) -> Entry | None:
    """Return a command, for which neither other commands nor, where it is tlx's own, plugins are imported."""
    commands.load(name)
    return commands.entries.get(name) or _every_command().get(name)


def _every_command() -> dict[str, Entry]:
    # tlx's own come first: no plugin is to take a name of theirs.
    commands.load()
    registry.load_plugins()
    return commands.entries


def _main(argv: list[str]) -> None:
    name, *arguments = argv[1:] or [""]
    command = _find(name)
    if command is None:
        problem = f"tlx: {name!r} is no command{suggest(name, _every_command())}\n\n" if name else ""
        print(problem + usage(), file=sys.stderr if name else sys.stdout)
        sys.exit(2 if name else 0)
    try:
        command.factory(arguments)
    except TlxError as error:
        Console(stderr=True, highlight=False).print(Text(f"tlx {name}: {error}"), soft_wrap=True)
        sys.exit(1)
    except OSError as error:
        print(f"tlx {name}: {of_system(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if command.resumes else ""
        print(f"\ntlx {name}: interrupted{goes_on}", file=sys.stderr)
        sys.exit(130)


def _parse(argv: list[str]) -> list[str]:
    """Return the arguments without the flags; those that there are depend on the command, which the first word is."""
    word = next((argument for argument in argv[1:] if not argument.startswith("-")), "")
    command = _find(word)
    if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in argv):
        print(help_on(command) if command else usage())
        sys.exit(0)
    if command is None:
        return FLAGS([argv[0], word] if word else argv[:1])
    try:
        found = FLAGS(argv)
        _refuse_others(command)
        return found
    except flags.UnrecognizedFlagError as error:
        problem = _no_flag(command, error.flagname)
    except flags.Error as error:
        problem = error
    print(f"tlx {word}: {problem}", file=sys.stderr)
    sys.exit(2)


def _refuse_others(command: Entry) -> None:
    """Raise an UnrecognizedFlagError for a flag that was given and is another command's: it would have no effect."""
    own = {flag.name for flag in _flags_of(command)}
    for module, known in FLAGS.flags_by_module_dict().items():
        for flag in known:
            if flag.present and flag.name not in own and not module.startswith("absl."):
                raise flags.UnrecognizedFlagError(flag.name)


def _no_flag(command: Entry, name: str) -> str:
    own = sorted(flag.name for flag in _flags_of(command))
    has = f"it has --{', --'.join(own)}" if own else "it has none"
    return f"there is no flag --{name}{suggest(name, own)} ({has})"


def entry() -> None:
    """Run the command that the command line names."""
    # What ends a session politely should leave things as tidy as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.run(_main, flags_parser=_parse)

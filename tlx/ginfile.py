"""Gin files and bindings as a list of statements, each with its place; nothing is looked up or run here.

Only the parser of gin-config is used. Its own evaluation lives in global state, passes misspelt scopes,
unused macros and wrong types, and imports whatever a file names; `tlx.config` does that part instead, so
that what was checked is what is built.
"""

import importlib
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gin import config_parser

from tlx.errors import ConfigError, suggest

COMMAND_LINE = "--gin_bindings"


@dataclass(frozen=True)
class Place:
    """Where a statement stands: a file, or "--gin_bindings", and a line counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Reference:
    """`@scope/name()`, or `@scope/name` where `call` is false."""

    scope: str
    name: str
    call: bool

    def __str__(self) -> str:
        return f"@{self.scope}/{self.name}{'()' * self.call}" if self.scope else f"@{self.name}{'()' * self.call}"


@dataclass(frozen=True)
class Macro:
    """`%NAME`."""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Statement:
    """`scope/name.argument = value`, or the macro definition `name = value` where `argument` is empty."""

    scope: str
    name: str
    argument: str
    value: Any
    place: Place

    @property
    def target(self) -> str:
        name = f"{self.scope}/{self.name}" if self.scope else self.name
        return f"{name}.{self.argument}" if self.argument else name


@dataclass(frozen=True)
class Import:
    """An import statement that was allowed, and has been done."""

    text: str
    place: Place


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        scope, _, name = scoped_configurable_name.rpartition("/")
        return Reference(scope, name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


def read(files: Sequence[str | Path], bindings: Sequence[str], allow_imports: bool = False) -> list[Statement | Import]:
    """Return the statements of the files, with their includes, and then those of the bindings, in order.

    Raises:
      ConfigError: a file or include that is missing or cyclic, a syntax error, or an import statement that was
        not allowed. Each names the file and the line.
    """
    statements = []
    for file in files:
        statements += _read_file(Path(file), (), allow_imports, None)
    for binding in bindings:
        statements += _parse(binding, COMMAND_LINE, None, (), allow_imports)
    return statements


def _read_file(
    path: Path, parents: tuple[Path, ...], allow_imports: bool, place: Place | None
) -> list[Statement | Import]:
    where = f"{place}: " if place else ""
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*.gin")] if path.parent.is_dir() else []
        raise ConfigError(f"{where}no gin file at {path}{suggest(path.name, there)}")
    if path.resolve() in parents:
        chain = " -> ".join(p.name for p in (*parents, path))
        raise ConfigError(f"{where}include cycle: {chain}; remove one of these includes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}{path} is not a text file in UTF-8: {error}") from None
    return _parse(text, str(path), path.parent, (*parents, path.resolve()), allow_imports)


def _parse(
    text: str, file: str, folder: Path | None, parents: tuple[Path, ...], allow_imports: bool
) -> list[Statement | Import]:
    statements = []
    for parsed in _parsed(text, file):
        if isinstance(parsed, config_parser.BlockDeclaration):
            continue
        place = Place(file, parsed.location.line_num)
        if isinstance(parsed, config_parser.ImportStatement):
            statements.append(_import(parsed, place, allow_imports))
        elif isinstance(parsed, config_parser.IncludeStatement):
            statements += _read_file(_included(parsed.filename, folder), parents, allow_imports, place)
        else:
            statements.append(Statement(parsed.scope, parsed.selector, parsed.arg_name, parsed.value, place))
    return statements


def _included(name: str, folder: Path | None) -> Path:
    """Return the file that an include names: beside the one that includes it, or else one that tlx brings."""
    beside, ours = (folder or Path()) / name, Path(__file__).parent / name
    # Where there is neither, the folder that exists tells what there is.
    meant = ours.is_file() or (ours.parent.is_dir() and not beside.parent.is_dir())
    return ours if meant and not beside.is_file() else beside


def _parsed(text: str, file: str) -> Iterator[Any]:
    # The parser tells a syntax error's line only inside its message or on the exception itself.
    parser = None
    try:
        parser = config_parser.ConfigParser(text, _Delegate())
        yield from parser
    except SyntaxError as error:
        message = str(error).splitlines()[0].partition(" (line")[0]
        if "malformed node" in message:
            message = "not a value; booleans are True and False, text needs quotes, a macro is %NAME"
        raise _syntax_error(file, error.lineno or 1, text, message) from None
    except tokenize.TokenError as error:
        raise _syntax_error(file, error.args[1][0], text, str(error.args[0])) from None
    except (RecursionError, ValueError, TypeError) as error:
        raise _syntax_error(file, 1, text, f"cannot be parsed ({type(error).__name__})") from None


def _syntax_error(file: str, line: int, text: str, message: str) -> ConfigError:
    lines = text.splitlines()
    shown = lines[line - 1].strip() if line <= len(lines) else "the end of the file"
    return ConfigError(f"{file}:{line}: {message.rstrip('.')}\n    {shown}")


def _import(parsed: config_parser.ImportStatement, place: Place, allowed: bool) -> Import:
    if not allowed or parsed.module.startswith("__gin__"):
        raise ConfigError(
            f"{place}: `{parsed.format()}` would run code; install it as a plugin (entry point group tlx.plugins)"
            " or, if you trust this file, pass --allow_imports"
        )
    try:
        importlib.import_module(parsed.module)
    except Exception as error:  # A stranger's module may fail in any way.
        raise ConfigError(f"{place}: `{parsed.format()}` failed: {type(error).__name__}: {error}") from error
    return Import(parsed.format(), place)


def show(value: Any) -> str:
    """Return `value` as it is written in a gin file; what has a `reference` is written as that."""
    value = getattr(value, "reference", value)
    if isinstance(value, (Reference, Macro)):
        return str(value)
    if isinstance(value, Path):
        return repr(str(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(show, value))}{',' * (len(value) == 1)})"
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    return repr(value)

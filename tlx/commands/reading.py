"""What commands that read data directly, and not through an experiment, have in common."""

from pathlib import Path
from typing import Any

from tlx import ginfile, registry
from tlx.commands.shared import FLAGS
from tlx.data.sniff import recognize
from tlx.errors import ConfigError, suggest
from tlx.registry import Entry
from tlx.typecheck import coerce


def reader_for(path: Path, format: str | None) -> Entry:
    """Return the reader of a format, or the one that recognizes `path` where the format is None or "auto"."""
    return recognize(path) if format in (None, "auto") else registry.find(f"readers.{format}")


def bound(reader: Entry) -> dict[str, Any]:
    """Return the arguments that bindings give the reader, checked."""
    arguments = {}
    for statement in ginfile.read((), FLAGS.gin_bindings):
        if registry.find(statement.name) != reader:
            raise ConfigError(f"{statement.target} has no effect: the data is read by {reader.full_name}")
        if statement.argument not in reader.parameters:
            close = suggest(statement.argument, reader.parameters)
            raise ConfigError(f"{reader.full_name} has no argument {statement.argument!r}{close}")
        try:
            annotation = reader.parameters[statement.argument].annotation
            arguments[statement.argument] = coerce(statement.value, annotation)
        except TypeError as error:
            raise ConfigError(f"{statement.target}: {error}") from error
    return arguments

"""The command that writes a dataset in another format."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.text import Text

from tlx import registry
from tlx.commands.reading import bound, reader_for
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.data.convert import convert
from tlx.data.dataset import Dataset, Finding
from tlx.data.doctor import grouped
from tlx.data.files import existing
from tlx.errors import DataError, TlxError
from tlx.registry import commands
from tlx.report.terminal import Terminal
from tlx.tasks.task import task_of

flags.declare_key_flag("format")
flags.declare_key_flag("gin_bindings")
flags.DEFINE_string("source_format", "auto", "The reader for SOURCE; `tlx list readers` shows them all.")
flags.DEFINE_enum("images", "link", ["link", "copy"], "Whether images become hard links where possible, or copies.")
flags.DEFINE_bool("leave_out_errors", False, "Where SOURCE has errors, go on without the records that have them.")


@commands.register("convert")
def convert_data(arguments: list[str]) -> None:
    """tlx convert SOURCE TARGET: write a dataset in another format, named by --format.

    TARGET becomes a new folder, whole or not at all; nothing is overwritten, and SOURCE stays as it is. Images
    keep their bytes: they are hard links, which take no space, or copies where the disk or --images=copy asks
    for them. A program that changes a linked image in place changes it in both folders. Prints what was read,
    and what the format cannot hold. The reader's arguments are bindings, such as
    --gin_bindings="readers.voc.merge = {'r2-d2': 'r2d2'}".
    """
    registry.discover()
    if len(arguments) != 2 or not FLAGS.format:
        known = "|".join(sorted(registry.writers.entries))
        raise TlxError(f"say what to convert, where to and in which format: tlx convert SOURCE TARGET --format={known}")
    source, target = existing(arguments[0], "auto"), Path(arguments[1]).expanduser()
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{target} is inside of {source}, which stays as it is; name a folder elsewhere")
    reader = reader_for(source, FLAGS.source_format)
    dataset = reader.factory(source, **bound(reader))
    CONSOLE.print(Text(f"{source}: {_account(dataset)}, read as {reader.name}"), soft_wrap=True)
    _print(dataset.findings)
    with Terminal(Console(stderr=True)) as terminal:
        report = partial(terminal.progress, "writing images")
        found = convert(dataset, target, FLAGS.format, FLAGS.images == "link", report, FLAGS.leave_out_errors)
    _print(found)
    CONSOLE.print(Text(f"{target}: written as {FLAGS.format}"), soft_wrap=True)


def _account(dataset: Dataset) -> str:
    """Return how many images, labels, classes and ignore regions a dataset has, in words."""
    task, count = task_of(dataset.task), sum(dataset.counts().values())
    ignored = sum(len(example.objects) for example in dataset.examples) - count
    regions = f", {ignored} ignore regions" if task.sized else ""
    return f"{len(dataset)} images, {count} {task.labels} of {len(dataset.classes)} classes{regions}"


def _print(findings: Sequence[Finding]) -> None:
    """Print what the format cannot hold in full, and of all else the first of each kind and their number."""
    for code, found in grouped(findings).items():
        shown = found if code == "cannot-hold" else found[:1]
        for finding in shown:
            number = f"{len(found)} x " if len(found) > len(shown) else ""
            CONSOLE.print(Text(f"{number}{finding}"), soft_wrap=True)

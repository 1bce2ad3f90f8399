"""The command that says what a dataset holds and what is wrong with it."""

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console
from rich.text import Text

from tlx import config, ownership, registry
from tlx.commands.reading import bound, reader_for
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.config import Experiment
from tlx.data.dataset import Dataset
from tlx.data.files import existing
from tlx.data.place import refuse_taken
from tlx.data.sniff import recognize
from tlx.data.splits.parts import Splits
from tlx.data.survey import watched_by
from tlx.errors import TlxError
from tlx.pipeline import Views, height_width
from tlx.registry import Entry, commands
from tlx.report.terminal import Terminal
from tlx.sizing import choose
from tlx.tiles import Tiles, tiles_of
from tlx.tree import Node, walk

for _name in ("format", "gin_bindings", "allow_imports", "out"):
    flags.declare_key_flag(_name)
flags.DEFINE_bool("json", False, "Print JSON for machines, and nothing else.")
flags.DEFINE_string("fix", None, "Write a repaired copy to this new folder; the original stays as it is.")
flags.DEFINE_integer(
    "image_size", None, "The size in pixels that is trained at; by default 320, or the experiment's.", 1
)

_SIZE = 320


class _Read(NamedTuple):
    """What is to be inspected: the data, its reader's name, the (height, width) that it is trained at, and as what.

    `tile` is the (height, width) of the parts that pictures are cut into first, if they are.
    """

    data: Dataset | Splits
    format: str
    size: tuple[int, int]
    views: Views | None = None
    tile: tuple[int, int] | None = None


@commands.register("inspect")
def inspect_data(arguments: list[str]) -> None:
    """tlx inspect PATH: say what a dataset holds and what is wrong with it.

    PATH is a folder or file of any format, or an experiment's gin file, whose data is then inspected as it is
    divided, at its image size and in its tiles. Prints counts, histograms, the image size and tiles that the boxes ask
    for, and findings, and writes index.html, sheet.png
    (pictures with their boxes) and inspection.json to --out; of an experiment also augmented.png, eight views as it
    would train on them. The exit code is 0 where nothing is worse than a
    note, 1 for warnings, and 2 for errors, or where the data cannot be read at all.

    --fix writes a repaired copy in the same format, or as VOC where that cannot be written: without broken boxes
    and unreadable images, without copies of images that have equal labels, with images upright and in 8-bit RGB,
    and with class names merged that differ in letter case and separators alone.
    """
    try:
        code = _inspect(arguments)
    except (TlxError, OSError) as error:
        findings = getattr(error, "findings", ())
        if FLAGS.json:
            print(json.dumps({"error": str(error), "severity": "error", "findings": [asdict(f) for f in findings]}))
        else:
            from tlx.report.overview import show_findings  # noqa: PLC0415

            show_findings(CONSOLE, findings)
        Console(stderr=True, highlight=False).print(Text(f"tlx inspect: {error}"), soft_wrap=True)
        code = 2
    sys.exit(code)


def _inspect(arguments: list[str]) -> int:
    if len(arguments) != 1:
        raise TlxError("name one folder or file to inspect, such as: tlx inspect data/raccoon")
    # These take a while to import, which other commands need not spend.
    from tlx.data.doctor.patient import whole  # noqa: PLC0415
    from tlx.data.doctor.repair import repair  # noqa: PLC0415
    from tlx.report import overview, page  # noqa: PLC0415
    from tlx.report.inspection import inspect  # noqa: PLC0415

    path = existing(arguments[0], "auto")
    # Before anything that takes long.
    if FLAGS.fix:
        refuse_taken(Path(FLAGS.fix).expanduser())
    if FLAGS.out:
        ownership.check(Path(FLAGS.out), "inspection")
    with Terminal(Console(stderr=True)) as terminal, watched_by(partial(terminal.progress, "looking at pictures")):
        read = _read(path)
        root = path if isinstance(read.data, Dataset) else None
        inspection = inspect(read.data, read.size, path, read.format, root, read.views, read.tile)
    if not FLAGS.json:
        overview.show(CONSOLE, inspection)
    told = inspection.to_json()
    if FLAGS.fix:
        format = read.format if read.format in registry.writers.entries else "voc"
        with Terminal(Console(stderr=True)) as terminal:
            done = repair(whole(read.data), path, Path(FLAGS.fix), format, terminal.progress)
        told["repairs"] = [asdict(deed) for deed in done]
        if not FLAGS.json:
            overview.show_deeds(CONSOLE, FLAGS.fix, format, done)
    out = Path(FLAGS.out or Path("runs") / f"inspect-{inspection.name}")
    content = json.dumps(told, indent=1)
    page.write(inspection, out, content)
    if FLAGS.json:
        print(content)
    else:
        CONSOLE.print(f"\npage: {out / 'index.html'}\nsheet: {out / 'sheet.png'}", soft_wrap=True, markup=False)
        if inspection.views:
            CONSOLE.print(f"augmented: {out / 'augmented.png'}", soft_wrap=True, markup=False)
    return inspection.severity


def _read(path: Path) -> _Read:
    if path.suffix == ".gin":
        return _read_experiment(path)
    registry.discover()
    entry = reader_for(path, FLAGS.format)
    size = FLAGS.image_size or _SIZE
    return _Read(entry.factory(path, **bound(entry)), entry.name, (size, size))


def _read_experiment(path: Path) -> _Read:
    experiment = config.load([path], FLAGS.gin_bindings, FLAGS.allow_imports)
    data = experiment.trees["run"].arguments["data"]
    names = {_reader(node) for node in walk([data]) if node.entry.kind == "readers"}
    format = names.pop() if len(names) == 1 else "several formats"
    divided = config.build(data)
    tiles = tiles_of(config.build_value(experiment.value("run.tiles")))
    size = FLAGS.image_size or experiment.value("run.image_size")
    size = choose(divided.train, tiles).size if size == "auto" else height_width(size)
    return _Read(divided, format, size, _views(experiment, divided, size, tiles), tiles and tiles.height_width)


def _views(experiment: Experiment, data: Any, size: tuple[int, int], tiles: Tiles | None) -> Views:
    """Return the views that an experiment trains on."""
    given = experiment.value("run.augment")
    augment = tuple(
        config.build(one) if isinstance(one, Node) else one for one in (given if isinstance(given, tuple) else (given,))
    )
    resize, seed = experiment.value("run.resize"), experiment.value("run.seed")
    cut = {"windows": tiles, "empty": tiles.empty} if tiles else {}
    return Views(data.train, size, augment, seed=seed, resize=resize, **cut)


def _reader(node: Node) -> str:
    entry: Entry = node.entry
    return recognize(Path(node.arguments["path"])).name if entry.name == "auto" else entry.name

"""What commands about an experiment have in common: its flags, its folder, and how a result is printed."""

import json
import re
from pathlib import Path
from typing import Any

from absl import flags
from rich.text import Text

from tlx import config, ownership
from tlx.commands.shared import CONSOLE, FLAGS
from tlx.devices import cluster
from tlx.errors import ConfigError, TlxError
from tlx.evaluate.choose import evaluator_of
from tlx.evaluate.evaluator import in_words
from tlx.lock import only_process

flags.DEFINE_multi_string("gin_file", [], "A gin file; may be repeated, later ones override earlier ones.")
flags.DEFINE_string("run_dir", None, "Where results go; by default runs/ and the experiment's name.")
flags.DEFINE_bool("overwrite", False, "Remove what tlx wrote to --run_dir, and begin anew.")


def load(arguments: list[str]) -> config.Experiment:
    """Return the experiment of the gin files that the command line names."""
    files = [*arguments, *FLAGS.gin_file]
    if not files:
        raise TlxError("name an experiment: a gin file, such as experiments/quickstart.gin")
    return config.load(files, FLAGS.gin_bindings, FLAGS.allow_imports)


def run_dir(experiment: config.Experiment, kind: ownership.Kind) -> Path:
    """Return the folder for results, which is new, or holds the same experiment, to be gone on with.

    Of what is in it, --overwrite removes what tlx wrote there, and nothing else.
    """
    folder = Path(FLAGS.run_dir or Path("runs") / experiment.name)
    if experiment.value("fit.strategy") == "multi_worker":
        folder = cluster().folder(folder)
    before = folder / "config.gin"
    found = ownership.kind(folder)
    if FLAGS.overwrite and found in ("run", "search"):
        with only_process(folder):
            if left := ownership.clear(folder, kind):
                text = f"{folder}: left as they are, since tlx did not write them: {ownership.shown(left)}"
                CONSOLE.print(Text(text), soft_wrap=True)
    elif {kind, found} == {"run", "search"}:
        raise ConfigError(f"{folder} holds a {'run of tlx train' if found == 'run' else 'search'}; {_ANOTHER}")
    ownership.take(folder, kind)
    if not before.exists():
        return folder
    if _lasting(before.read_text()) != _lasting(experiment.text()):
        raise ConfigError(f"{folder} holds another experiment; {_ANOTHER}")
    if (folder / "result.json").exists():
        does = "goes on only if it may have more trials or time" if kind == "search" else "only judges it again"
        CONSOLE.print(f"{folder} is finished already; this {does} (--overwrite begins anew)", soft_wrap=True)
    return folder


_ANOTHER = "give another --run_dir, or --overwrite to remove what tlx wrote there"
# How far a search goes, and how much of the machine it or a run may take: this may be another each time.
_PASSING = re.compile(r"(# )?(search\.(trials|minutes|workers)|memory\.\w+) = ")


def _lasting(text: str) -> list[str]:
    return [line for line in text.splitlines() if not _PASSING.match(line)]


flags.DEFINE_string(
    "tiles",
    None,
    "How large pictures are cut up: a tile's side in pixels, HEIGHTxWIDTH, or none; by default as the run has it.",
)
flags.register_validator(
    "tiles",
    lambda given: given is None or re.fullmatch(r"none|\d{1,6}(x\d{1,6})?", given),
    "expected a side in pixels, such as 640, HEIGHTxWIDTH, or none",
)


flags.DEFINE_string(
    "fuse", None, 'Ways to look at pictures beside as they are: "mirror", scales of the input such as 1.25, or both.'
)


def fusion() -> Any:
    """Return the `tlx.fusion.Fusion` that --fuse asks for.

    Raises:
      ConfigError: it makes no sense.
    """
    from tlx.fusion import Fusion  # noqa: PLC0415  The commands that only answer need none of this.

    return Fusion.of(FLAGS.fuse, "--fuse") if FLAGS.fuse else Fusion()


def must_cut() -> bool:
    """Return whether --tiles asks for pictures to be cut up."""
    return FLAGS.tiles not in (None, "none")


def _tiles_binding() -> list[str]:
    """Return the binding that --tiles stands for."""
    side, _, width = FLAGS.tiles.partition("x")
    return [f"run.tiles = {f'({side}, {width})' if width else side.capitalize()}"]


def trained(arguments: list[str]) -> tuple[Path, config.Experiment]:
    """Return the folder of a finished run, or of a search's winner, and the experiment that it is."""
    if not arguments:
        raise TlxError("name a run folder, such as runs/quickstart")
    folder = Path(arguments[0])
    if not (folder / "result.json").exists():
        raise TlxError(f"{folder} is no finished run: it has no result.json")
    notice_unlisted(folder)
    best = json.loads((folder / "result.json").read_text()).get("best")
    # Not the winning trial's own configuration: a trial is told to keep away from the test split.
    bindings = [*(best["bindings"] if best else ()), *FLAGS.gin_bindings]
    try:
        experiment = config.load([folder / "config.gin"], bindings, FLAGS.allow_imports)
    except ConfigError as error:
        # It was written by another version of tlx, or with a package that is not here.
        raise ConfigError(f"{error}\n--gin_bindings gives what {folder} was configured with another value") from None
    if FLAGS.tiles is not None:
        try:
            experiment = experiment.with_bindings(_tiles_binding())
        except ConfigError as error:
            raise ConfigError(f"--tiles={FLAGS.tiles}: {error}") from None
    if best and not (folder / best["folder"]).exists():
        raise TlxError(f"the best trial's folder, {folder / best['folder']}, is not here{_on(best)}")
    return folder / best["folder"] if best else folder, experiment


def notice_unlisted(folder: Path) -> None:
    """Say so where a folder was made before tlx kept a list of what it made."""
    if ownership.kind(folder) is None:
        CONSOLE.print(f"{folder} has no {ownership.MARKER}: it is read, and nothing in it is changed", soft_wrap=True)


def _on(best: dict[str, Any]) -> str:
    return f": it is on the host {best['host']}" if best.get("host") else ""


def print_result(
    experiment: config.Experiment, result: dict[str, Any], folder: Path, search_folder: Path | None = None
) -> None:
    """Print the metrics of a run, and where its results are."""
    metrics = result["metrics"]
    CONSOLE.print(evaluator_of(experiment).table(metrics))
    CONSOLE.print(f"{result['split']} {in_words(metrics)}\n")
    places = {
        "search folder": search_folder,
        "run folder": folder,
        "pictures": folder / f"{result['split']}.jpg",
        "TensorBoard": f"tensorboard --logdir {search_folder or folder}",
    }
    for what, where in places.items():
        # Of several workers only the chief has them all.
        if where and (isinstance(where, str) or where.exists()):
            CONSOLE.print(f"{what + ':':<14} {where}", soft_wrap=True)

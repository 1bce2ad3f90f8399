"""Commands that train, search, judge and use detectors."""

import json
import re
from pathlib import Path
from typing import Any

from absl import flags
from rich.text import Text

from tlx import config, ownership
from tlx.commands.shared import CONSOLE, FLAGS, number, server
from tlx.devices import cluster
from tlx.errors import ConfigError, TlxError
from tlx.lock import only_process

flags.DEFINE_multi_string("gin_file", [], "A gin file; may be repeated, later ones override earlier ones.")
flags.declare_key_flag("gin_bindings")
flags.DEFINE_string("run_dir", None, "Where results go; by default runs/ and the experiment's name.")
flags.DEFINE_bool("overwrite", False, "Remove what tlx wrote to --run_dir, and begin anew.")
flags.declare_key_flag("allow_imports")
flags.declare_key_flag("storage")
flags.DEFINE_string(
    "study_name",
    None,
    "search: The study in --storage; by default the experiment's name and a digest of what it says.",
)
flags.DEFINE_float("min_score", 0.3, "predict: draw detections that score at least this.", 0.0, 1.0)


def train(arguments: list[str]) -> None:
    """tlx train EXPERIMENT.gin: train one detector, as the experiment is written.

    Prints the metrics of the test split (validation, where there is no test split). The run folder then
    holds the weights, result.json, pictures and TensorBoard logs. An interrupted run goes on where it was.
    """
    experiment = load(arguments)
    folder = _run_dir(experiment, "run")
    from tlx.report.terminal import Terminal  # noqa: PLC0415  The commands that only answer need none of this.
    from tlx.work.attempts import train as train_run  # noqa: PLC0415

    with only_process(folder), Terminal(CONSOLE) as terminal:
        result = train_run(experiment, folder, terminal)
    _print_result(result, folder)


def search(arguments: list[str]) -> None:
    """tlx search EXPERIMENT.gin: search the best configuration within search.space.

    Trial 0 is the experiment as written. The winner, by validation AP, is judged on the test split, which
    no trial has seen. Interrupted by Ctrl-C or killed, the same command goes on with the search, also with
    other search.trials, search.minutes, search.workers or memory settings.

    With --storage, the same command on many hosts works on one search: a PostgreSQL database keeps the trials,
    search.trials counts those of all hosts, and what a dead host left is taken up by another. Each host has a
    --run_dir of its own, and the one that has the winner judges it. Paths may differ between hosts, the data may
    not. Another experiment is another study; --study_name begins the same one anew. A password is better kept
    from the command line: in the environment variable PGPASSWORD, or in ~/.pgpass.
    """
    experiment = load(arguments)
    settings = config.build(experiment.trees["search"])
    from tlx.report.terminal import Terminal  # noqa: PLC0415
    from tlx.search import space, study  # noqa: PLC0415

    space.check(experiment, settings)
    if FLAGS.storage and FLAGS.overwrite:
        raise ConfigError(
            "--overwrite does not reach what other hosts work on; give --study_name and another --run_dir"
        )
    if FLAGS.study_name and not FLAGS.storage:
        raise ConfigError("--study_name names a study in --storage; give that as well")
    shared = server()
    folder = _run_dir(experiment, "search")
    with Terminal(CONSOLE) as terminal:
        result = study.search(experiment, settings, folder, terminal, shared, FLAGS.study_name)
    _print_best(result, folder)


def _print_best(result: dict[str, Any], folder: Path) -> None:
    best = result["best"]
    finished = sum(row["state"] in ("complete", "pruned") for row in result["trials"])
    _print_result(result, folder / best["folder"], folder)
    if not (folder / best["folder"]).exists():
        where = f"on the host {best['host']}" if best["host"] else f"gone: {folder / best['folder']} was removed"
        CONSOLE.print(f"The run folder and the pictures are {where}.", soft_wrap=True)
    validation = best["validation"]
    CONSOLE.print(
        f"\nThe best of {finished} trials is trial {best['trial']}, with validation AP"
        f" {number(validation['AP'])}, AP50 {number(validation['AP50'])}. Its bindings:",
        soft_wrap=True,
    )
    for binding in best["bindings"]:
        CONSOLE.print(Text(f"    {binding}"))


def evaluate(arguments: list[str]) -> None:
    """tlx evaluate RUN_DIR: judge a trained detector, or a search's best one, on the test split.

    Other data: --gin_bindings="DATA = '/other/folder'".
    """
    folder, experiment = _trained(arguments[:1])
    from tlx.run import evaluate as evaluate_run  # noqa: PLC0415

    _print_result(evaluate_run(config.build(experiment.trees["run"]), folder), folder)


def predict(arguments: list[str]) -> None:
    """tlx predict RUN_DIR IMAGE_OR_FOLDER...: find objects in pictures.

    Writes predictions.json, and every picture with its detections drawn, to --run_dir (by default the
    folder `predictions` in RUN_DIR). Boxes are (x_min, y_min, x_max, y_max) in pixels of the upright picture.
    """
    folder, experiment = _trained(arguments[:1])
    if len(arguments) < 2:
        raise TlxError("predict: name at least one picture or folder of pictures after RUN_DIR")
    from tlx.inference import predict_pictures  # noqa: PLC0415

    target = Path(FLAGS.run_dir or folder / "predictions")
    ownership.take(target, "predictions", within=folder if not FLAGS.run_dir and ownership.kind(folder) else None)
    count, errors = predict_pictures(experiment, folder, [Path(a) for a in arguments[1:]], target, FLAGS.min_score)
    for error in errors:
        CONSOLE.print(Text(f"left out: {error}"), soft_wrap=True)
    CONSOLE.print(f"{count} pictures: {target / 'predictions.json'}, drawn in {target}", soft_wrap=True)


def check(arguments: list[str]) -> None:
    """tlx check EXPERIMENT.gin: check a configuration and print it, macros and defaults included.

    Nothing is trained and no data is opened.
    """
    experiment = load(arguments)
    if any(statement.target.startswith("search.") for statement in experiment.statements):
        from tlx.search import space  # noqa: PLC0415

        space.check(experiment, config.build(experiment.trees["search"]))
    print(experiment.text(), end="")


def load(arguments: list[str]) -> config.Experiment:
    files = [*arguments, *FLAGS.gin_file]
    if not files:
        raise TlxError("name an experiment: a gin file, such as experiments/quickstart.gin")
    return config.load(files, FLAGS.gin_bindings, FLAGS.allow_imports)


def _run_dir(experiment: config.Experiment, kind: ownership.Kind) -> Path:
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


def _trained(arguments: list[str]) -> tuple[Path, config.Experiment]:
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
    experiment = config.load([folder / "config.gin"], bindings, FLAGS.allow_imports)
    if best and not (folder / best["folder"]).exists():
        raise TlxError(f"the best trial's folder, {folder / best['folder']}, is not here{_on(best)}")
    return folder / best["folder"] if best else folder, experiment


def notice_unlisted(folder: Path) -> None:
    """Say so where a folder was made before tlx kept a list of what it made."""
    if ownership.kind(folder) is None:
        CONSOLE.print(f"{folder} has no {ownership.MARKER}: it is read, and nothing in it is changed", soft_wrap=True)


def _on(best: dict[str, Any]) -> str:
    return f": it is on the host {best['host']}" if best.get("host") else ""


def _print_result(result: dict[str, Any], folder: Path, search_folder: Path | None = None) -> None:
    from tlx.evaluate import summary  # noqa: PLC0415

    metrics = result["metrics"]
    CONSOLE.print(summary(metrics))
    CONSOLE.print(f"{result['split']} AP {number(metrics['AP'])}, AP50 {number(metrics['AP50'])}\n")
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

"""A trained detector on pictures that nobody labelled: JSON, and the pictures with what was found."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tlx import checkpoint, config, ownership
from tlx.config import Experiment
from tlx.data.dataset import Dataset, Example
from tlx.data.images import SUFFIXES, open_image
from tlx.data.targets import UNLABELLED
from tlx.engines.auto import Auto
from tlx.errors import DataError
from tlx.fusion import Fusion, fuse, looks
from tlx.pipeline import height_width
from tlx.predict import BATCH
from tlx.run import reopen
from tlx.runfolder import trained_size
from tlx.tasks.task import task_of
from tlx.tiles import tiles_of
from tlx.windows import WholePicture


def predict_pictures(
    experiment: Experiment,
    folder: Path,
    paths: Sequence[Path],
    target: Path,
    min_score: float,
    must_cut: bool = False,
    fusion: Fusion = Fusion(),
    say: Callable[[str], None] = lambda _: None,
) -> tuple[int, list[str]]:
    """Write the predictions for pictures, and for all in folders and the folders within these, to `target`.

    `predictions.json` lists for each picture its size and what the task tells of it; drawn is what scores at
    least `min_score`. The experiment's own dataset is not opened. Returns how many pictures there were, and what
    kept others from being read, which `predictions.json` lists with their "error". `fusion` says in which ways pictures
    are looked at. `say` is told what computes the predictions.

    Raises:
      DataError: a path does not exist, or a folder holds no picture.
      MisfitError: the experiment's tiles `must_cut`, and all pictures are smaller than these.
      TlxError: `target` holds what tlx did not make.
    """
    ownership.take(target, "predictions")
    cut_up = tiles_of(config.build_value(experiment.value("run.tiles")))
    given = experiment.trees["run"].arguments
    size, precision = experiment.value("run.image_size"), experiment.value("run.precision")
    size = trained_size(folder) if size == "auto" else height_width(size)
    backbone, head = config.build(given["backbone"]), config.build(given["head"])
    reopened = lru_cache(1)(lambda size: reopen(backbone, head, size, folder, precision))
    detector, _ = reopened(size)
    refused: list[OSError] = []
    examples, listed = _read(list(dict.fromkeys(picture for path in paths for picture in _pictures(path, refused))))
    listed += [{"image": str(Path(one.filename).absolute()), "error": str(one)} for one in refused]
    pictures = Dataset("pictures", detector.classes, tuple(examples), task=detector.task)
    if cut_up and must_cut and examples:
        cut_up.refuse_larger(pictures, "--tiles", "none")
    windows = cut_up or WholePicture()
    engine = config.build(given["engine"]) if "engine" in given else Auto()
    how = (BATCH, engine, experiment.value("run.resize"), windows, say)
    found = fuse([seen for seen, _ in looks(fusion, reopened, size, pictures, *how)], pictures) if examples else []
    drawings = [target / f"{number:04d}-{example.image.stem}.jpg" for number, example in enumerate(examples)]
    ownership.claim(*drawings)
    errors, task = [row["error"] for row in listed], task_of(detector.task)
    for drawn, example, seen in zip(drawings, examples, found, strict=True):
        picture = task.draw(open_image(example.image), seen, None, detector.classes, min_score)
        picture.save(ownership.fresh(drawn), quality=90)
        size = {"width": example.width, "height": example.height}
        told = task.to_json(seen, detector.classes)
        listed.append({"image": str(example.image), **size, "drawn": drawn.name, **told})
    checkpoint.write(target / "predictions.json", json.dumps(listed, indent=1).encode())
    return len(examples), errors


# Pictures in such folders are tlx's own drawings.
_RESULTS = ("run", "search", "predictions", "inspection")


def _read(pictures: list[Path]) -> tuple[list[Example], list[dict[str, Any]]]:
    """Return the pictures that can be decoded, and a row for each that cannot."""
    readable, damaged = [], []
    for picture in pictures:
        try:
            width, height = open_image(picture).size
        except DataError as error:
            damaged.append({"image": str(picture.absolute()), "error": str(error)})
            continue
        readable.append(Example(picture.absolute(), width, height, UNLABELLED))
    return readable, damaged


def _pictures(path: Path, refused: list[OSError]) -> list[Path]:
    if path.is_dir():
        inside = sorted(_within(path, refused))
        if not inside and not refused:
            found = f"{path} holds no picture ({', '.join(sorted(SUFFIXES))}), nor do the folders within it"
            raise DataError(f"{found}; hidden ones and those of results of tlx are left out")
        return inside
    if not path.exists():
        raise DataError(f"there is no picture or folder {path}")
    return [path]


def _within(folder: Path, refused: list[OSError]) -> Iterator[Path]:
    """Yield the pictures in a folder and below, without what is hidden, tlx's results, and folders that are links."""
    for inside, folders, files in os.walk(folder, onerror=refused.append):
        here = Path(inside)
        made = {name for name in folders if ownership.kind(here / name) in _RESULTS}
        # What stays in the list is walked through next.
        folders[:] = [name for name in folders if name[0] != "." and name not in made]
        yield from (here / name for name in files if name[0] != "." and Path(name).suffix.lower() in SUFFIXES)

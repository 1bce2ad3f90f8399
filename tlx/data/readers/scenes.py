"""Drawn still lifes: labelled pictures for a first experiment, made on the spot."""

import json
from pathlib import Path

from tlx.data.dataset import Dataset
from tlx.data.readers.voc import voc
from tlx.data.scenes import RECORD, write_scenes
from tlx.errors import DataError
from tlx.registry import readers


@readers.register("scenes")
def scenes(path: Path, images: int = 240, seed: int = 0) -> Dataset:
    """Drawn pictures of bottles, mugs and plants; draws them into a Pascal VOC folder if that is not there yet.

    The same arguments give the same pictures. The examples declare splits of 60, 20 and 20 percent.

    Args:
      path: the folder to draw into, or one drawn earlier with the same arguments.
      images: how many pictures, at least 5.
      seed: another seed is another series of pictures.

    Raises:
      DataError: the folder holds something else, or pictures drawn with other arguments.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        write_scenes(path, images, seed)
    drawn, asked = _record(path), {"images": images, "seed": seed}
    if drawn != asked:
        raise DataError(f"{path} was drawn with {drawn}, not {asked}: name another folder, or delete this one")
    return voc(path)


def _record(path: Path) -> object:
    try:
        return json.loads((path / RECORD).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} exists, but is no folder of drawn scenes (its {RECORD} cannot be read): name a new folder, "
            "or read what is there with @readers.voc()"
        ) from error

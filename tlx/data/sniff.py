"""Which reader a folder or file is for."""

from pathlib import Path
from typing import NamedTuple

from tlx.data.files import entries
from tlx.errors import DataError
from tlx.registry import Entry, readers


class Sniff(NamedTuple):
    """Whether a path has a reader's format, and why, in a few words such as "5 XML files in Annotations"."""

    fits: bool
    why: str


def recognize(path: Path) -> Entry:
    """Return the reader whose format `path` has.

    Raises:
      DataError: no reader recognizes it, or several do; the message says what each of them saw.
    """
    seen = {entry: entry.sniff(path) for entry in readers.entries.values() if entry.sniff}
    fitting = [entry for entry, sniff in seen.items() if sniff.fits]
    if len(fitting) == 1:
        return fitting[0]
    told = "".join(f"\n  {entry.name}: {sniff.why}" for entry, sniff in seen.items() if sniff.fits or not fitting)
    problem = "several formats fit" if fitting else "no format fits"
    hint = "" if fitting else _hint(path)
    raise DataError(f"{path}: {problem}{hint}; name the reader that is meant, or mend what it misses:{told}")


def _hint(path: Path) -> str:
    """Return what else a path seems to be, as far as its own names tell."""
    names = {name.lower() for name in entries(path)} if path.is_dir() else {path.name.lower()}
    if "labels" in names and names & {"data.yaml", "dataset.yaml", "classes.txt"}:
        return " (it looks like YOLO, which is not read: export it as COCO or Pascal VOC)"
    if path.is_file() and path.suffix.lower() == ".xml":
        return " (for Pascal VOC, name the folder above)"
    if path.name.lower() in ("annotations", "images", "jpegimages", "label_2", "image_2"):
        return " (name the folder above, which has the images and the labels)"
    return ""

"""Whatever format a folder or file has."""

from pathlib import Path

from tlx.data.dataset import Dataset
from tlx.data.files import existing
from tlx.data.sniff import recognize
from tlx.registry import readers


@readers.register("auto")
def auto(path: Path, classes: tuple[str, ...] | None = None, merge: dict[str, str] | None = None) -> Dataset:
    """Any format that is recognized: the reader is chosen by what the folder or file holds.

    Args:
      path: the folder or file.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.

    Raises:
      DataError: no reader recognizes it, or several do, or as the reader says.
    """
    path = existing(path, "auto")
    return recognize(path).factory(path, classes=classes, merge=merge)

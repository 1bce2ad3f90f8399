"""Whatever format a folder or file has."""

import re
from dataclasses import replace
from pathlib import Path

from tlx.data.dataset import Dataset, Finding
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
    entry = recognize(path)
    dataset = entry.factory(path, classes=classes, merge=merge)
    return replace(dataset, findings=tuple(_readdressed(finding, entry.name) for finding in dataset.findings))


def _readdressed(finding: Finding, name: str) -> Finding:
    """Return a finding whose advice is to set what this reader has, or else to use the other one itself."""
    message = re.sub(rf"readers\.{name}\.(merge|classes)", r"readers.auto.\1", finding.message)
    return replace(finding, message=message.replace(f"readers.{name}.", f"@readers.{name}() with readers.{name}."))

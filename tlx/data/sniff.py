"""Which reader a folder or file is for."""

from pathlib import Path
from typing import NamedTuple

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
    raise DataError(f"{path}: {problem}; name the reader that is meant, or mend what it misses:{told}")

"""Text tables that people bring: CSV and its relatives, row by row, each broken row costing only itself."""

import codecs
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tlx.errors import DataError

MAX_BYTES = 100_000_000
MAX_ROWS = 500_000
_MAX_LINE = 1_000_000
_LINE_END = re.compile(r"\r\n?|\n")
_FALLBACK = "cp1252"


class Text(NamedTuple):
    """A file's text, and the encoding that it was read by where that is a guess."""

    content: str
    guessed: str = ""


class Line(NamedTuple):
    """One row: the number of the line that it begins on, from 1, and its cells, or what is wrong with it."""

    number: int
    cells: list[str]
    problem: str = ""


def read_text(file: Path, limit: int | None = None) -> Text:
    """Return what a text file holds, or its whole lines within the first `limit` bytes.

    UTF-8 and, where a byte order mark says so, UTF-16; what is neither is taken for Windows-1252.

    Raises:
      DataError: it is no file, or has more than `MAX_BYTES` bytes.
    """
    if not file.is_file():
        raise DataError(f"{file}: is no file; name a table")
    if limit is None and file.stat().st_size > MAX_BYTES:
        raise DataError(f"{file}: has more than {MAX_BYTES:,} bytes; split it into several files")
    with file.open("rb") as stream:
        content = stream.read(limit)
    if limit is not None and len(content) == limit:
        content = content[: content.rfind(b"\n") + 1]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Text(content.decode("utf-16", "replace"))
    try:
        return Text(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Text(content.decode(_FALLBACK, "replace"), _FALLBACK)


def rows(text: str, delimiter: str) -> Iterator[Line]:
    """Yield the rows of a table that are not empty; a row that cannot be read has a problem and no cells.

    A quote that is never closed costs its own line, not the rest of the file.
    """
    lines = _Lines(text)
    reader = _reader(lines, delimiter)
    while True:
        start, number = lines.at, lines.number
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            lines.back_to(start, number)
            reader = _reader(lines, delimiter)
            yield Line(number + 1, [], str(error))
        else:
            if any(cells) and not cells[0].startswith("#"):
                yield Line(number + 1, cells)


def _reader(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=delimiter != " ")


class _Lines:
    """Yields a text's lines, and can go back to the one after any of them."""

    def __init__(self, text: str):
        self.at = 0
        self.number = 0
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        start = self.at
        if start >= len(self._text):
            raise StopIteration
        self.back_to(start, self.number)
        if self.at - start > _MAX_LINE:
            raise ValueError(f"the line has more than {_MAX_LINE:,} characters")
        return self._text[start : self.at]

    def back_to(self, start: int, number: int) -> None:
        """Make the line after the one that begins at `start`, with `number` lines before it, the next one."""
        end = _LINE_END.search(self._text, start)
        self.at = end.end() if end else len(self._text)
        self.number = number + 1

"""Manifests: tables whose rows name images, by URL or by path, with or without their labels."""

from pathlib import Path
from typing import NamedTuple

from tlx.data.dataset import Finding
from tlx.data.formats import table
from tlx.data.formats.columns import Layout, delimiter_and_layout, split_of
from tlx.errors import DataError

_SAMPLE = 20
_HEAD = 65_536
# Beyond so many broken rows one more line says how many there are.
_NAMED = 100


class Row(NamedTuple):
    """One row: `names` is what the image may go by, the URL first; `box` is as the table's columns say, or None.

    `split` is "" where the row tells none, `size` the image's (width, height) as the row tells it.
    """

    line: int
    names: tuple[str, ...]
    label: str
    box: tuple[float, ...] | None
    split: str
    size: tuple[float, float] | None

    @property
    def url(self) -> str:
        """What the image can be downloaded from, or ""."""
        return next((name for name in self.names if "://" in name), "")


class Manifest(NamedTuple):
    """A manifest's rows that could be read, and which columns say what."""

    rows: list[Row]
    layout: Layout


def read(file: Path, name: str, findings: list[Finding], rename: dict[str, str] | None = None) -> Manifest:
    """Return what a manifest's rows say; what is wrong with a row is a located finding, and costs only that row.

    Args:
      file: a CSV, its columns separated by commas, semicolons, tabs or bars, or a plain list of URLs.
      name: the file's name for findings.
      findings: broken rows and a guessed encoding are added.
      rename: the file's own column names by the usual ones to take them for, such as {'Foto': 'url'}.

    Raises:
      DataError: no column names images, or the file is too large.
    """
    text = table.read_text(file)
    if text.guessed:
        message = f"is not UTF-8; read as {text.guessed}, which may garble names: save it as UTF-8"
        findings.append(Finding("encoding", "warning", name, "", message))
    if max(text.content.count("\n"), text.content.count("\r")) > table.MAX_ROWS:
        raise DataError(f"{file}: has more than {table.MAX_ROWS:,} lines; split it into several files")
    delimiter, layout = _layout(file, text.content, rename)
    rows: list[Row] = []
    broken: list[tuple[int, str]] = []
    header = layout.header
    for line in table.rows(text.content, delimiter):
        if header and line.cells:
            header = False
            continue
        try:
            rows.append(_row(line, layout))
        except ValueError as error:
            broken.append((line.number, str(error)))
    findings += _broken(name, broken)
    return Manifest(rows, layout)


def head(file: Path) -> Layout:
    """Return which columns of a manifest say what, by its first rows alone.

    Raises:
      DataError: no column names images.
    """
    return _layout(file, table.read_text(file, _HEAD).content, None)[1]


def _layout(file: Path, text: str, rename: dict[str, str] | None) -> tuple[str, Layout]:
    def sample(delimiter: str) -> list[list[str]]:
        first = zip(table.rows(text, delimiter), range(_SAMPLE), strict=False)
        return [line.cells for line, _ in first if line.cells]

    try:
        return delimiter_and_layout(sample, rename or {})
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error


def _row(line: table.Line, layout: Layout) -> Row:
    """Return what a row says; raises ValueError where it cannot be meant so."""
    if line.problem:
        raise ValueError(line.problem)
    cells = line.cells
    if len(cells) < layout.width:
        cells = cells + [""] * (layout.width - len(cells))
    elif any(cells[layout.width :]):
        raise ValueError(f"has {len(cells)} cells where the first row has {layout.width}; quote cells with a separator")
    if any("\0" in cell for cell in cells):
        raise ValueError("has NUL characters; save the file as UTF-8")
    names = tuple(cells[i] for i in layout.images if cells[i])
    if not names:
        raise ValueError("names no image")
    return Row(
        line.number,
        tuple(sorted(names, key=lambda name: "://" not in name)),
        "" if layout.label is None else cells[layout.label],
        _numbers([cells[i] for i in layout.box]),
        "" if layout.split is None else split_of(cells[layout.split]),
        _size([cells[i] for i in layout.size]),
    )


def _numbers(cells: list[str]) -> tuple[float, ...] | None:
    if len(cells) == 1:
        cells = cells[0].strip("[]()").replace(",", " ").split()
    if not any(cells):
        return None
    try:
        x0, y0, x1, y1 = map(float, cells)
    except ValueError as error:
        raise ValueError(f"a box needs four numbers, found {', '.join(cells)[:80]!r}") from error
    return x0, y0, x1, y1


def _size(cells: list[str]) -> tuple[float, float] | None:
    try:
        width, height = map(float, cells)
    except ValueError:
        return None  # A size is only compared with the image's own.
    return width, height


def _broken(name: str, broken: list[tuple[int, str]]) -> list[Finding]:
    found = [
        Finding("broken-annotation", "error", name, f"line {number}", f"{why}; the row is left out: repair it")
        for number, why in broken[:_NAMED]
    ]
    if more := broken[_NAMED:]:
        message = f"{len(more)} more rows from here on cannot be read, the first since it {more[0][1]}; left out"
        found.append(Finding("broken-annotation", "error", name, f"line {more[0][0]}", message))
    return found

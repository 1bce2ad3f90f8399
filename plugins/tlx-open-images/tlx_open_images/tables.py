"""The CSV files of Open Images: which there are, and their rows, one at a time."""

import csv
import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tlx.data.dataset import Finding
from tlx.data.files import listing, subfolders
from tlx.errors import DataError

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_FOLDERS = ("annotations", "csv_folder", "csv", "boxes", "labels", "metadata")
_PLACES = (".", *_FOLDERS, *_SPLITS, *(f"{split}/{folder}" for split in _SPLITS for folder in _FOLDERS))
_SIDES = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = ("ImageID", "LabelName", *_SIDES)
# A line that is longer is no row, and would fill memory.
_LONGEST = 10_000
_MOST_BROKEN = 100
_MOST_CLASSES = 100_000


class Table(NamedTuple):
    """A CSV file of boxes: its columns, and the split that it is of."""

    file: Path
    split: str
    columns: list[str]


class Row(NamedTuple):
    """One box, in fractions of the image's width and height."""

    line: int
    image: str
    label: str
    box: tuple[float, float, float, float]
    group: bool
    depiction: bool


def find_boxes(path: Path, findings: list[Finding]) -> tuple[Path, list[Table]]:
    """Return the dataset's folder, and its files of boxes.

    Raises:
      DataError: there are none.
    """
    root, files = (path.parent, [path]) if path.is_file() else (path, _tables(path, findings))
    tables = [
        Table(file, split_of(file.relative_to(root).as_posix()), columns)
        for file in files
        if set(_COLUMNS) <= set(columns := _header(file))
    ]
    if not tables:
        raise DataError(f"readers.open_images: no CSV in {path} has the columns {', '.join(_COLUMNS)}")
    return root, tables


def class_names(root: Path) -> dict[str, str]:
    """Return the classes' names by their labels, such as /m/011k07.

    Raises:
      DataError: no file tells them, or one that should is damaged.
    """
    names: dict[str, str] = {}
    for file in _tables(root, []):
        if _is_class_list(_header(file)):
            try:
                with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
                    for row in islice(csv.reader(_lines(stream)), _MOST_CLASSES):
                        if len(row) == 2 and row[0].startswith("/"):
                            names.setdefault(row[0].strip(), row[1].strip())
            except csv.Error as error:
                raise DataError(f"readers.open_images: {file} is damaged ({error}); download it again") from error
    if not names:
        want = "class-descriptions-boxable.csv"
        raise DataError(f"readers.open_images: no {want} in {root}; download it from the Open Images site to there")
    return names


def split_of(name: str) -> str:
    """Return the split that the path of a file tells, its last word first, or ""."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")


def rows(
    table: Table,
    images: Collection[str],
    name: str,
    findings: list[Finding],
    left_out: Callable[[str, int, str], None],
) -> Iterator[Row]:
    """Yield the rows that are of one of `images`, reading one line at a time.

    Args:
      table: the file.
      images: the ids of the images that there are.
      name: what findings are to call the file.
      findings: a row that is broken leaves one.
      left_out: is told ("image-not-here", line, id) of every other row.

    Raises:
      DataError: a hundred rows are broken.
    """
    column = table.columns.index("ImageID")
    commas = len(table.columns) - 1
    broken = 0
    with table.file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        lines = _lines(stream)
        next(lines, None)
        for number, line in enumerate(lines, 2):
            try:
                if line.count(",") != commas:
                    if not line.strip():
                        continue
                    raise ValueError(f"it has {line.count(',') + 1} columns where the header has {commas + 1}")
                image = line.split(",", column + 1)[column]
                if image in images:
                    yield _row(number, line, table.columns)
                else:
                    left_out("image-not-here", number, image)
            except ValueError as error:
                broken += 1
                message = f"{error}; left out: repair or remove it"
                findings.append(Finding("broken-annotation", "error", name, f"line {number}", message))
                if broken == _MOST_BROKEN:
                    raise DataError(f"{findings[-1]}; with it, {broken} rows are broken: restore the file") from error


def _row(number: int, line: str, columns: list[str]) -> Row:
    found = dict(zip(columns, line.rstrip("\r\n").split(","), strict=True))
    try:
        x0, y0, x1, y1 = (float(found[side]) for side in _SIDES)
    except ValueError as error:
        raise ValueError(f"{', '.join(_SIDES)} must be numbers ({error})") from error
    group, depiction = found.get("IsGroupOf") == "1", found.get("IsDepiction") == "1"
    return Row(number, found["ImageID"], found["LabelName"], (x0, y0, x1, y1), group, depiction)


def _tables(root: Path, findings: list[Finding]) -> list[Path]:
    found = [file for folder in subfolders(root, *_PLACES) for file in listing(root, folder, ".csv", findings)]
    return list(dict.fromkeys(found))


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        return [name.strip() for name in stream.readline(_LONGEST).split(",")]


def _is_class_list(header: list[str]) -> bool:
    return header == ["LabelName", "DisplayName"] or (len(header) == 2 and header[0].startswith("/"))


def _lines(stream: Iterator[str]) -> Iterator[str]:
    return iter(lambda: stream.readline(_LONGEST), "")

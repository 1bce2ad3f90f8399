"""Which column of a manifest says what, told by the header's names or, without a header, by what the cells hold."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from tlx.data.formats.splitnames import named_split
from tlx.data.images import SUFFIXES
from tlx.errors import suggest

_DELIMITERS = ",;\t|"
# What no text file holds: the whole line is one cell.
_WHOLE_LINE = "\x1f"
_PICTURE = "(image|img|picture|photo|pic|media|original|file|download)"
# In order of precedence.
_IMAGES = (
    rf"{_PICTURE}_?(url|uri|link|src|href)s?|labeled_data|row_data",
    "(url|uri|link|src|href)s?",
    rf"({_PICTURE}|frame)_?(path|name|file|filename|location)s?|paths?|filenames?|filepath|file",
    "image|images|img|picture|photo|external_id",
)
_LAST_RESORT = r"(image|img|picture|photo|file)_id|id|id_code|name"
_LABELS = (
    "(class|label|category|object|tag|species|breed)_?name",
    "label|labels|class|classes|category|categories|tag|tags",
    "object|target|choice|species|breed|type|name",
    "(class|label|category)_?(id|label)",
)
_SPLITS = "(data)?_?(split|set|subset|partition)|phase|usage"
_UNSPLIT = ("", "unassigned", "none", "-")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("left", "top", "right", "bottom"),
    ("minx", "miny", "maxx", "maxy"),
    ("xtl", "ytl", "xbr", "ybr"),
)
_CENTRES = tuple(
    (*centre, *extent)
    for centre in (("cx", "cy"), ("xc", "yc"), ("xcenter", "ycenter"), ("xcentre", "ycentre"))
    for extent in (("w", "h"), ("width", "height"))
)
_EDGES = tuple(
    (*corner, *extent)
    for corner in (("x", "y"), ("left", "top"), ("xmin", "ymin"))
    for extent in (("w", "h"), ("width", "height"))
)
_FORMS = {"corners": _CORNERS, "centre": _CENTRES, "edge": _EDGES}
_SIZES = (("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("imgw", "imgh"), ("width", "height"))


class Layout(NamedTuple):
    """The columns, by position: `images` in order of precedence, the others None or () where there are none.

    `box` is four columns, or one that holds four numbers. Its `form`: "corners" (x_min, y_min, x_max,
    y_max), "edge" (x_min, y_min, width, height) or "centre" (x, y of the centre, width, height). `size` is
    the image's (width, height). `width` is how many columns there are, `header` whether the first row names them.
    """

    images: tuple[int, ...]
    label: int | None
    box: tuple[int, ...]
    form: Literal["corners", "edge", "centre"]
    split: int | None
    size: tuple[int, ...]
    width: int
    header: bool


def split_of(text: str) -> str:
    """Return the split that a cell means; raises ValueError for an unknown word."""
    split = "" if text.lower() in _UNSPLIT else named_split(text)
    if split is None:
        raise ValueError(f"{text[:80]!r} is no split; write train, validation or test")
    return split


def is_image(cell: str) -> bool:
    """Return whether a cell names an image: a URL, or a file name with an image's extension."""
    return bool(re.match(r"[a-zA-Z][\w+.-]*://\S", cell)) or _has_suffix(cell)


def delimiter_and_layout(sample: Callable[[str], list[list[str]]], rename: Mapping[str, str]) -> tuple[str, Layout]:
    """Return how a manifest's columns are separated, and which says what.

    Args:
      sample: returns the first rows, as cells, when they are separated by its argument.
      rename: the file's own column names by the usual ones.

    Raises:
      ValueError: no column can be the images'.
    """
    samples = {delimiter: sample(delimiter) for delimiter in (*_DELIMITERS, _WHOLE_LINE)}
    if not any(samples.values()):
        raise ValueError("holds no row; a manifest has one for each image or box")
    whole = [row[0] for row in samples[_WHOLE_LINE]]
    # The separator that divides the first row most; lines of words last, for a space may be part of a name.
    order = sorted(_DELIMITERS, key=lambda delimiter: -max(map(len, samples[delimiter][:1]), default=0))
    problem = None
    for delimiter in (*order, _WHOLE_LINE, " "):
        rows = samples.get(delimiter) or sample(delimiter)
        if not rows or (delimiter != _WHOLE_LINE and (len(rows[0]) == 1 or _cuts_urls(whole, rows))):
            continue
        try:
            return delimiter, layout(rows, rename)
        except ValueError as error:
            problem = problem or error
    raise problem or ValueError("no separator divides its rows alike")


def layout(rows: Sequence[list[str]], rename: Mapping[str, str]) -> Layout:
    """Return which columns say what, from the first rows; raises ValueError where none can be the images'."""
    first = rows[0]
    if any(map(is_image, first)):
        return _by_content(rows)
    if unknown := [name for name in rename if name not in first]:
        raise ValueError(f"has no column {unknown[0]!r}{suggest(unknown[0], first)} (it has {', '.join(first)[:500]})")
    return _by_name([rename.get(name, name) for name in first], rows[1:])


def _by_name(header: Sequence[str], rows: Sequence[list[str]]) -> Layout:
    words = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in header]
    form, box = _box_columns(words)
    sides = [re.sub(r"_", "", word) for word in words]
    size = next((found for names in _SIZES if (found := _positions(sides, names)) and not {*found} & {*box}), ())
    images = tuple(dict.fromkeys(i for pattern in _IMAGES for i in _matching(words, pattern)))
    images = images or _columns_of_images(rows) or _matching(words, _LAST_RESORT)[:1]
    if not images:
        raise ValueError(
            f"no column is known to name images: it has {', '.join(header)[:300]!r}; "
            "call that column url or path, or rename it by readers.manifest.columns"
        )
    taken = {*images, *box, *size}
    labels = [i for pattern in _LABELS for i in _matching(words, pattern) if i not in taken]
    splits = [i for i in _matching(words, _SPLITS) if i not in taken]
    return Layout(
        images, next(iter(labels), None), box, form, next(iter(splits), None), size, width=len(header), header=True
    )


def _by_content(rows: Sequence[list[str]]) -> Layout:
    width = len(rows[0])
    images = _columns_of_images(rows)[:1]
    if not images:
        raise ValueError("its rows name no image in the same column; add a first row with the columns' names")
    if (images, width) == ((0,), 6) and _mostly(_is_number, _column(rows, 1)):
        # keras-retinanet: path, x1, y1, x2, y2, class, all but the path empty for an image without objects.
        return Layout(images, 5, (1, 2, 3, 4), "corners", None, (), width, header=False)
    columns = {i: cells for i in range(width) if i not in images and (cells := _column(rows, i))}
    split = next((i for i, cells in columns.items() if _mostly(_is_split, cells)), None)
    numbers = [i for i, cells in columns.items() if i != split and _mostly(_is_number, cells)]
    words = [i for i in columns if i not in numbers and i != split]
    box, size, form = (), (), "corners"
    if len(numbers) == 6 and numbers[3] < images[0] < numbers[4]:
        # Make Sense: label, x, y, width, height, image, its width and height.
        box, size, form, numbers = numbers[:4], numbers[4:], "edge", []
    elif len(numbers) >= 4:
        box, numbers = numbers[:4], numbers[4:]
    labels = words or numbers
    if len(labels) > 1:
        raise ValueError(f"has {width} columns and no row that names them; add a first row such as url,label")
    return Layout(images, next(iter(labels), None), tuple(box), form, split, tuple(size), width, header=False)


def _columns_of_images(rows: Sequence[list[str]]) -> tuple[int, ...]:
    width = max(map(len, rows), default=0)
    return tuple(i for i in range(width) if (cells := _column(rows, i)) and _mostly(is_image, cells))


def _column(rows: Sequence[list[str]], i: int) -> list[str]:
    return [row[i] for row in rows if i < len(row) and row[i]]


def _mostly(fits: Callable[[str], bool], cells: Sequence[str]) -> bool:
    # One broken row among the first few should not decide what the columns are.
    return sum(map(fits, cells)) >= 0.7 * len(cells)


def _box_columns(words: Sequence[str]) -> tuple[Literal["corners", "edge", "centre"], tuple[int, ...]]:
    sides = [re.sub(r"^(bbox|box|bounding_box)_|_", "", word) for word in words]
    for form, choices in _FORMS.items():
        for names in choices:
            if found := _positions(sides, names):
                return form, found
    return "edge", _matching(words, "bbox|bounding_box|box")[:1]


def _positions(words: Sequence[str], names: Iterable[str]) -> tuple[int, ...]:
    names = tuple(names)
    return tuple(words.index(name) for name in names) if set(names) <= set(words) else ()


def _matching(words: Sequence[str], pattern: str) -> tuple[int, ...]:
    return tuple(i for i, word in enumerate(words) if re.fullmatch(pattern, word))


def _is_split(cell: str) -> bool:
    return cell.lower() in _UNSPLIT or (cell.isalpha() and named_split(cell) is not None)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _has_suffix(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in SUFFIXES


def _cuts_urls(whole: Sequence[str], rows: Sequence[list[str]]) -> bool:
    """Whether the separator is one inside of the URLs of a plain list, not between columns."""
    listed = whole and all("://" in line and _has_suffix(line) for line in whole)
    return bool(listed) and not any(_has_suffix(row[0]) for row in rows)

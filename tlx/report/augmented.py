"""Augmented views with their boxes: what training would see."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

import numpy as np
from PIL import Image

from tlx.errors import DataError
from tlx.pipeline import Unit, Views
from tlx.report.text import printable


def augmented(views: Views, count: int) -> list[tuple[str, Image.Image]]:
    """Return `count` views with their boxes, and what each is of: of as many pictures, where there are so many.

    Pictures that cannot be opened are left out.
    """
    return list(islice(_drawn(views, count), count))


def _drawn(views: Views, count: int) -> Iterator[tuple[str, Image.Image]]:
    parts = views.parts
    # Spread over the dataset; the rest stands in for pictures that cannot be opened.
    spread = dict.fromkeys(np.linspace(0, len(parts) - 1, min(count, len(parts))).round().astype(int).tolist())
    order = [*spread, *(i for i in range(len(parts)) if i not in spread)]
    names = [printable(name)[:40] for name in views.dataset.classes]
    for number in range(count):
        for part in (parts[i] for i in order):
            with suppress(DataError):
                caption = f"{printable(views.dataset.examples[part[0]].image.name)}, view {number}"
                yield caption, _annotated(views, Unit(*part, number), names)


def _annotated(views: Views, unit: Unit, names: Sequence[str]) -> Image.Image:
    (picture,), targets = views.element(unit)
    return views.task.draw_arrays(Image.fromarray(picture), targets, names)

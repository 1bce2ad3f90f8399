"""Pictures of what a model found against what is there, for TensorBoard, reports and the README."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tlx.data.targets import ANY_CLASS, Boxes
from tlx.report.text import printable

Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

# Okabe and Ito's set, which colour-blind people tell apart (https://jfly.uni-koeln.de/color/), less its black.
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
    (0, 114, 178),
)
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (190, 190, 190)
GREEN, RED = (0, 110, 80), (170, 50, 20)
BACKGROUND = (24, 26, 30)
# Below this longest side, in pixels, a label would cover what it labels, so the picture is enlarged first.
SMALLEST = 480


def colour_of(label: int) -> Colour:
    """Return the colour of class `label`, the same in every picture; colours repeat after `len(PALETTE)` classes."""
    return PALETTE[label % len(PALETTE)]


class Scored(Protocol):
    """Predicted boxes float32 [n, 4] in pixels, with their scores [n] in 0..1 and class positions [n]."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def draw(
    image: Image.Image,
    detections: Scored | None,
    truth: Boxes | None,
    classes: Sequence[str],
    min_score: float = 0.3,
) -> Image.Image:
    """Return a copy of `image` with predicted boxes drawn over true ones.

    Predictions that score at least `min_score` (0..1) are solid, in their class's colour, with name and score
    in percent; where labels would overlap, the lower score goes without. True boxes are dashed and white, and
    solid with their class's colour and name when `detections` is None, which shows a dataset by itself.
    Ignore regions are hatched in grey. `image` is the upright RGB image to whose pixels the boxes refer;
    one whose longest side is below `SMALLEST` is enlarged by a whole factor, to keep labels legible.
    """
    factor = max(1, -(-SMALLEST // max(image.size)))
    picture = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    canvas = _Canvas(picture)
    if truth is not None:
        _draw_truth(canvas, truth, classes, factor, named=detections is None)
    if detections is not None:
        # The best go last, so that they lie on top, and their labels first, so that they find room.
        shown = [i for i in np.argsort(detections.scores, kind="stable") if detections.scores[i] >= min_score]
        boxes = detections.boxes * factor
        for i in shown:
            canvas.solid(boxes[i].tolist(), colour_of(int(detections.labels[i])))
        for i in reversed(shown):
            label = int(detections.labels[i])
            canvas.label(boxes[i].tolist(), f"{classes[label]} {detections.scores[i]:.0%}", colour_of(label))
    return picture


def _draw_truth(canvas: "_Canvas", truth: Boxes, classes: Sequence[str], factor: int, named: bool) -> None:
    for box, label, ignore in zip((truth.boxes * factor).tolist(), truth.labels, truth.ignore, strict=True):
        if ignore or label == ANY_CLASS:
            canvas.hatched(box)
        elif named:
            canvas.solid(box, colour_of(int(label)))
            canvas.label(box, classes[label], colour_of(int(label)))
        else:
            canvas.dashed(box)


def caption(image: Image.Image, text: str, right: bool | None) -> Image.Image:
    """Return a copy of `image` with a line of text beneath: on green where `right`, on red where not, on grey if None.

    An image whose longest side is below `SMALLEST` is enlarged by a whole factor, to keep the text legible.
    """
    factor = max(1, -(-SMALLEST // max(image.size)))
    shown = image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    text, font = printable(text), ImageFont.load_default(size=max(14, shown.width // 18))
    ascent, descent = font.getmetrics()
    colour = GREY if right is None else GREEN if right else RED
    picture = Image.new("RGB", (shown.width, shown.height + 2 * (ascent + descent)), colour)
    picture.paste(shown)
    # What is too long for the line goes on in a second one.
    words = ImageDraw.Draw(picture)
    cut = next((i for i in range(len(text), 0, -1) if words.textlength(text[:i], font) <= shown.width - 8), len(text))
    words.text((4, shown.height), f"{text[:cut]}\n{text[cut:]}", fill=BLACK if right is None else WHITE, font=font)
    return picture


@dataclass
class _Canvas:
    """A picture, drawn on in place with lines and letters that suit its size."""

    picture: Image.Image
    labels: list[Box] = field(default_factory=list)

    def __post_init__(self):
        side = (self.picture.width * self.picture.height) ** 0.5
        self.draw = ImageDraw.Draw(self.picture, "RGBA")
        self.font = ImageFont.load_default(size=max(11, round(side / 36)))
        self.line = max(2, round(side / 220))
        self.thin = max(1, self.line - 1)

    def solid(self, box: Box, colour: Colour) -> None:
        """Draw a box with a faint dark rim, which keeps it visible on a ground of its own colour."""
        self.draw.rectangle(_grown(box, 1), outline=(*BLACK, 120), width=self.line + 2)
        self.draw.rectangle(_grown(box, 0), outline=colour, width=self.line)

    def dashed(self, box: Box) -> None:
        """Draw a box in white dashes over a dark line, visible on any ground."""
        for start, end in _sides(_grown(box, 0)):
            self.draw.line((start, end), fill=(*BLACK, 150), width=self.thin)
            for dash in _dashes(start, end, 4 * self.line):
                self.draw.line(dash, fill=WHITE, width=self.thin)

    def hatched(self, box: Box) -> None:
        """Cover a box with a grey veil and diagonal lines."""
        x_min, y_min, x_max, y_max = (round(edge) for edge in _grown(box, 0))
        veil = Image.new("RGBA", (x_max - x_min + 1, y_max - y_min + 1), (*GREY, 60))
        hatch = ImageDraw.Draw(veil)
        for x in range(-veil.height, veil.width, 5 * self.line):
            hatch.line((x, veil.height, x + veil.height, 0), fill=(*GREY, 170), width=self.thin)
        hatch.rectangle((0, 0, veil.width - 1, veil.height - 1), outline=(*GREY, 230), width=self.thin)
        self.picture.paste(veil, (x_min, y_min), veil)

    def label(self, box: Box, text: str, colour: Colour) -> None:
        """Write `text` on a chip of `colour` beside a box, or not at all where other labels leave no room."""
        pad = max(2, self.line)
        left, _, right, _ = self.font.getbbox(text, anchor="ls")
        # Every chip is as high as the font, not as its own text, so that a row of them lines up.
        ascent, descent = self.font.getmetrics()
        width, height = right - left + 2 * pad, ascent + descent
        places = [self._place(x, y, width, height) for x, y in _places(box, width, height)]
        chip = next((place for place in places if not any(_overlap(place, other) for other in self.labels)), None)
        if chip is None:
            return
        self.labels.append(chip)
        self.draw.rectangle(chip, fill=colour)
        ink = BLACK if _luminance(colour) > 110 else WHITE
        self.draw.text((chip[0] + pad - left, chip[1] + ascent), text, fill=ink, font=self.font, anchor="ls")

    def _place(self, x: float, y: float, width: float, height: float) -> Box:
        x = max(0, min(x, self.picture.width - width))
        y = max(0, min(y, self.picture.height - height))
        return x, y, x + width - 1, y + height - 1


def _grown(box: Box, by: int) -> Box:
    # Pillow's corners are inclusive and ours exclusive; a box narrower than a pixel still gets one.
    x_min, y_min, x_max, y_max = box
    return x_min - by, y_min - by, max(x_min, x_max - 1) + by, max(y_min, y_max - 1) + by


def _sides(box: Box) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    x_min, y_min, x_max, y_max = box
    corners = [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]
    return zip(corners, corners[1:] + corners[:1], strict=True)


def _dashes(start: tuple, end: tuple, length: float) -> Iterator[tuple[tuple, tuple]]:
    begin, stop = np.array(start), np.array(end)
    # An odd number of equal parts starts and ends with a dash, which closes the corners.
    parts = 2 * max(1, round(float(np.abs(stop - begin).sum()) / length / 2)) - 1
    points = [tuple(begin + (stop - begin) * i / parts) for i in range(parts + 1)]
    return zip(points[::2], points[1::2], strict=True)


def _places(box: Box, width: float, height: float) -> list[tuple[float, float]]:
    x_min, y_min, x_max, y_max = box
    above, below = y_min - height, y_max
    return [
        (x_min, above),
        (x_min, below),
        (x_max - width, above),
        (x_max - width, below),
        (x_max, y_min),
        (x_min - width, y_min),
    ]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _luminance(colour: Colour) -> float:
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def contact_sheet(
    pictures: Sequence[Image.Image], columns: int = 4, tile: tuple[int, int] = (360, 270), gap: int = 8
) -> Image.Image:
    """Return one image with all `pictures` in rows of `columns`, each shrunk or enlarged whole into a tile.

    `tile` is (width, height) in pixels and `gap` the pixels between and around tiles. The last row may be
    short; an empty sequence gives one empty tile.
    """
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    width, height = tile
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), BACKGROUND)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        fitted = ImageOps.pad(picture.convert("RGB"), tile, Image.Resampling.LANCZOS, color=BACKGROUND)
        sheet.paste(fitted, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet

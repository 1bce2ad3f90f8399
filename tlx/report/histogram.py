"""Histograms of sizes: counted, drawn as inline SVG and as a line of text."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import numpy as np

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT, _BASE, _TOP = 360, 150, 28, 16
_COLOUR = "#56b4e9"


@dataclass(frozen=True)
class Histogram:
    """How many values lie between each two neighbouring `edges`: the lower one is included, the upper one not."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def text(self) -> str:
        """Return the bars as one line of block letters, with the outermost edges."""
        most = max(self.counts, default=0)
        # Whatever is there at all is seen.
        levels = [-(-count * (len(_BARS) - 1) // most) if most else 0 for count in self.counts]
        return f"{self.edges[0]:g} {''.join(_BARS[level] for level in levels)} {self.edges[-1]:g}"

    def svg(self) -> str:
        """Return the bars as an SVG element that needs nothing from elsewhere."""
        step = _WIDTH / max(1, len(self.counts))
        most = max(self.counts, default=0) or 1
        parts = [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + _BASE}" role="img" aria-label="{escape(self.title)}"',
            ' font-size="11">',
            f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}" stroke="currentColor"/>',
        ]
        for i, count in enumerate(self.counts):
            low, high = self.edges[i], self.edges[i + 1]
            height = (_HEIGHT - _TOP) * count / most
            x, y = i * step, _HEIGHT - height
            box = f'x="{x + 1:.1f}" y="{y:.1f}" width="{max(1.0, step - 2):.1f}" height="{height:.1f}"'
            parts.append(f'<rect {box} fill="{_COLOUR}"><title>{low:g} to {high:g}: {count}</title></rect>')
            if count:
                parts.append(_label(x + step / 2, y - 4, "middle", count))
            parts.append(_label(x, _HEIGHT + 16, "start", low))
        return "".join((*parts, _label(_WIDTH, _HEIGHT + 16, "end", self.edges[-1]), "</svg>"))


def _label(x: float, y: float, anchor: str, number: float) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{number:g}</text>'


def doubling(title: str, values: Iterable[float]) -> Histogram:
    """Return a histogram of positive values whose edges are powers of two, from the least value to the greatest."""
    values = np.array(list(values), np.float64)
    if not len(values):
        return Histogram(title, (1.0, 2.0), (0,))
    powers = np.floor(np.log2(values)).astype(int)
    counts = np.bincount(powers - powers.min())
    edges = (2.0**power for power in range(powers.min(), powers.max() + 2))
    return Histogram(title, tuple(edges), tuple(counts.tolist()))


def counted(title: str, values: Iterable[int]) -> Histogram:
    """Return a histogram of whole numbers from 0: one bar each for few of them, else about twelve equal ranges."""
    values = np.array(list(values), np.int64)
    greatest = int(values.max(initial=0))
    width = -(-(greatest + 1) // 12)
    counts = np.bincount(values // width, minlength=1)
    edges = tuple(float(width * i) for i in range(len(counts) + 1))
    return Histogram(title, edges, tuple(counts.tolist()))

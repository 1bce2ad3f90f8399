"""The best compromises of a search with several objectives: its Pareto front, as a table, a picture and JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from rich.table import Table

from tlx import checkpoint, ownership
from tlx.report.text import amount

_WIDTH, _HEIGHT, _MARGIN, _DOT = 640, 420, 64, 6
_INK, _PALE, _FRONT, _OVER = (40, 40, 40), (170, 170, 170), (0, 114, 178), (213, 94, 0)


def front(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows of finished trials within their limits that no other one beats, the best score first.

    One beats another that is nowhere better and somewhere worse: in score, or in one of the costs that `names` names.
    """
    there = [row for row in rows if row["state"] == "complete" and not row["over"]]
    losses = [(-row["score"], *(row["costs"][name] for name in names)) for row in there]
    unbeaten = (
        row
        for row, mine in zip(there, losses, strict=True)
        if not any(other != mine and all(o <= m for o, m in zip(other, mine, strict=True)) for other in losses)
    )
    return sorted(unbeaten, key=lambda row: row["score"], reverse=True)


def table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str) -> Table:
    """Return the front as a table, the best score first."""
    made = Table(title="the Pareto front: no trial is better in one of these without being worse in another")
    for column in ("trial", metric, *names):
        made.add_column(column, justify="right")
    made.add_column("bindings")
    for row in front(rows, names):
        costs = (amount(row["costs"][name]) for name in names)
        made.add_row(str(row["trial"]), f"{abs(row['score']):.3f}", *costs, "; ".join(row["bindings"]))
    return made


def keep(
    folder: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str], limits: Mapping[str, float], metric: str
) -> None:
    """Write `pareto.json` and `pareto.png`, with all finished trials and which of them are the front."""
    shown = [row for row in rows if row["state"] == "complete"]
    best = [row["trial"] for row in front(rows, names)]
    keys = ("trial", "bindings", "score", "costs", "over")
    content = {
        "objectives": [metric, *names],
        "limits": dict(limits),
        "front": best,
        "trials": [{key: row[key] for key in keys} for row in shown],
    }
    checkpoint.write(folder / "pareto.json", json.dumps(content, indent=1).encode())
    panels = [_panel(shown, best, name, limits.get(name), metric) for name in names]
    picture = Image.new("RGB", (_WIDTH * len(panels), _HEIGHT), "white")
    for number, panel in enumerate(panels):
        picture.paste(panel, (_WIDTH * number, 0))
    picture.save(ownership.fresh(folder / "pareto.png"))


def _panel(
    rows: Sequence[Mapping[str, Any]], best: Sequence[int], name: str, limit: float | None, metric: str
) -> Image.Image:
    """Return the score over one cost: the front in blue, joined by steps, what is over a limit in red."""
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    costs, scores = [row["costs"][name] for row in rows], [row["score"] for row in rows]
    across, up = _Axis(costs, _MARGIN, _WIDTH - _MARGIN), _Axis(scores, _HEIGHT - _MARGIN, _MARGIN // 2)
    draw.line((_MARGIN, _MARGIN // 2, _MARGIN, _HEIGHT - _MARGIN, _WIDTH - _MARGIN, _HEIGHT - _MARGIN), _INK)
    for value in (across.low, across.high):
        draw.text((across(value), _HEIGHT - _MARGIN + 6), amount(value), _INK, font, anchor="mt")
    for value in (up.low, up.high):
        draw.text((_MARGIN - 6, up(value)), f"{abs(value):.3g}", _INK, font, anchor="rm")
    draw.text((_WIDTH // 2, _HEIGHT - _MARGIN // 2), name, _INK, font, anchor="mm")
    draw.text((_MARGIN, 4), f"validation {metric}", _INK, font)
    if limit is not None and across.low <= limit <= across.high:
        draw.line((across(limit), _MARGIN // 2, across(limit), _HEIGHT - _MARGIN), _OVER)
    for row in sorted(rows, key=lambda row: row["trial"] in best):
        x, y = across(row["costs"][name]), up(row["score"])
        colour = _FRONT if row["trial"] in best else _OVER if row["over"] else _PALE
        draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), colour)
        draw.text((x + _DOT + 3, y), str(row["trial"]), colour, font, anchor="lm")
    return picture


class _Axis:
    """Brings values to pixels, the least to `start` and the greatest to `end`."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        self.low, self.high, self.start, self.end = min(values), max(values), start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)

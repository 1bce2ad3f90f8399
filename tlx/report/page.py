"""An inspection as one HTML page that needs nothing from elsewhere, and as a sheet of annotated pictures."""

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from tlx import ownership
from tlx.data.dataset import Example, Finding
from tlx.data.images import open_image
from tlx.data.targets import Boxes
from tlx.errors import DataError
from tlx.pipeline import Views
from tlx.report.augmented import augmented
from tlx.report.inspection import Inspection
from tlx.report.pictures import contact_sheet, draw
from tlx.report.text import printable

# So many pictures show what there is; so many cases of one kind show what it is.
_SHOWN, _CASES, _PICTURED, _VIEWS = 24, 20, 4, 8
_TILE = (440, 330)
# A picture's longest side before boxes are drawn; larger ones would take seconds and be shrunk anyway.
_LONGEST = 1280

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --error: #c62f2f; --warning: #b26a00; --info: #2f6fb2; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; } .scroll { overflow-x: auto; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } tr:last-child td { font-weight: 600; }
.histograms { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-size: .85rem; opacity: .8; overflow-wrap: anywhere; }
svg { width: 100%; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: .8rem; }
.pictures img { width: 100%; border-radius: 4px; }
details { margin: .5rem 0; padding: .4rem .8rem; border-left: 4px solid var(--line); background: #8881; }
.error { border-color: var(--error); } .warning { border-color: var(--warning); } .info { border-color: var(--info); }
summary { cursor: pointer; overflow-wrap: anywhere; } code { font-size: .9em; } li { overflow-wrap: anywhere; }
"""
# Whatever a hostile name might smuggle in, a browser would neither run it nor fetch anything for it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def contact(inspection: Inspection) -> Image.Image:
    """Return a sheet of pictures with their boxes drawn, every class among them where there is room."""
    return contact_sheet([picture for _, picture in _drawn(inspection, chosen(inspection, _SHOWN))])


def chosen(inspection: Inspection, count: int) -> list[int]:
    """Return the indices of up to `count` examples that can be opened: one of each class, then spread over all."""
    patient = inspection.patient
    sound = [i for i, picture in enumerate(patient.pictures) if not picture.error]
    firsts: dict[int, int] = {}
    for i in sound:
        for label in patient.examples[i].targets.labels.tolist():
            firsts.setdefault(label, i)
    some = dict.fromkeys(list(firsts.values())[: count // 2])
    spread = np.linspace(0, len(sound) - 1, count - len(some)).round().astype(int) if sound else []
    return sorted(some | dict.fromkeys(sound[i] for i in spread))


def page(inspection: Inspection) -> str:
    """Return an inspection as an HTML document."""
    title = _text(f"{inspection.name}: {inspection.format}")
    lead = f"{inspection.summary}, in {inspection.path}"
    kinds = "; ".join(f"{n} x {kind}" for kind, n in inspection.image_kinds().items())
    histograms = "".join(
        f"<figure><figcaption>{_text(one.title)}</figcaption>{one.svg()}</figure>" for one in inspection.histograms
    )
    return "".join(
        (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
            f"<h1>{title}</h1><p>{_text(lead)}<br>{_text(kinds)}</p>",
            f"<h2>Findings</h2>{_findings(inspection)}",
            f'<h2>Counts</h2><div class="scroll">{_counts(inspection)}</div>',
            f'<h2>Sizes</h2><div class="histograms">{histograms}</div>{_advice(inspection)}',
            f"<h2>Pictures</h2>{_figures(_drawn(inspection, chosen(inspection, _SHOWN)))}",
            f"<h2>Augmented views</h2>{_figures(_augmented(inspection.views))}" if inspection.views else "",
            "</body></html>\n",
        )
    )


def _advice(inspection: Inspection) -> str:
    lines = str(inspection.advice).splitlines() if inspection.advice else []
    return f"<p>{'<br>'.join(map(_text, lines))}</p>" if lines else ""


def _findings(inspection: Inspection) -> str:
    if not inspection.groups:
        return "<p>Nothing was found.</p>"
    places = {inspection.patient.name(e): i for i, e in enumerate(inspection.patient.examples)}
    places |= {e.record: i for i, e in enumerate(inspection.patient.examples) if e.record}
    return "".join(_group(inspection, code, found, places) for code, found in inspection.groups.items())


def _group(inspection: Inspection, code: str, found: Sequence[Finding], places: dict[str, int]) -> str:
    severity = found[0].severity
    lines = "".join(f"<li>{_text(_line(finding))}</li>" for finding in found[:_CASES])
    more = f"<li>and {len(found) - _CASES} more, in inspection.json</li>" if len(found) > _CASES else ""
    pictures = inspection.patient.pictures
    where = (places.get(f.file, places.get(f"{f.file} ({f.record})")) for f in found)
    concerned = [i for i in dict.fromkeys(where) if i is not None and not pictures[i].error]
    drawn = _figures(_drawn(inspection, concerned[:_PICTURED])) if severity != "info" else ""
    return (
        f'<details class="{severity}"{" open" if severity == "error" else ""}><summary>{len(found)} x <code>'
        f"{_text(code)}</code> ({severity}): {_text(_line(found[0]))}</summary><ul>{lines}{more}</ul>{drawn}</details>"
    )


def _line(finding: Finding) -> str:
    where = ", ".join(filter(None, (finding.file, finding.record)))
    return f"{where}: {finding.message}" if where else finding.message


def _counts(inspection: Inspection) -> str:
    heads, *lines = inspection.table
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _figures(pictures: Sequence[tuple[str, Image.Image]]) -> str:
    figures = (
        f'<figure><img src="{_data_uri(picture)}" alt=""><figcaption>{_text(name)}</figcaption></figure>'
        for name, picture in pictures
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


@lru_cache(maxsize=1)
def _augmented(views: Views) -> list[tuple[str, Image.Image]]:
    """Return views with their labels; kept, since the page and a file of their own show the same ones."""
    return augmented(views, _VIEWS)


def _drawn(inspection: Inspection, indices: Sequence[int]) -> list[tuple[str, Image.Image]]:
    patient = inspection.patient
    drawn = []
    for i in indices:
        # One that has gone or changed since it was looked at has been told of, or will be.
        with suppress(DataError):
            drawn.append((patient.name(patient.examples[i]), _tile(patient.examples[i], patient.classes)))
    return drawn


@lru_cache(maxsize=2 * _SHOWN)
def _tile(example: Example, classes: tuple[str, ...]) -> Image.Image:
    """Return a small picture of an example with its boxes; kept, since the page and the sheet show the same ones."""
    image = open_image(example.image)
    scale = min(1.0, _LONGEST / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    ratio = np.array([width / image.width, height / image.height] * 2)
    objects = example.objects
    boxes = np.clip(objects.boxes * ratio, 0, (width, height) * 2).astype(np.float32)
    kept = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    moved = Boxes(boxes[kept], objects.labels[kept], objects.ignore[kept])
    names = [printable(name)[:40] for name in classes]
    picture = draw(image.resize((width, height), Image.Resampling.LANCZOS), None, moved, names)
    picture.thumbnail(_TILE)
    return picture


def _data_uri(picture: Image.Image) -> str:
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _text(value: object) -> str:
    return escape(printable(str(value)))


def write(inspection: Inspection, folder: Path, content: str) -> None:
    """Write index.html, sheet.png and inspection.json (`content`) to a folder, in place of those of before.

    Of an experiment, also augmented.png: views of what it would train on, with their boxes.

    Raises:
      TlxError: the folder holds what tlx did not make.
    """
    ownership.take(folder, "inspection")
    ownership.fresh(folder / "inspection.json").write_text(content, encoding="utf-8")
    ownership.fresh(folder / "index.html").write_text(page(inspection), encoding="utf-8")
    contact(inspection).save(ownership.fresh(folder / "sheet.png"))
    if inspection.views:
        height, width = inspection.views.size
        tile = (round(_TILE[1] * width / height), _TILE[1])
        sheet = contact_sheet([view for _, view in _augmented(inspection.views)], tile=tile)
        sheet.save(ownership.fresh(folder / "augmented.png"))

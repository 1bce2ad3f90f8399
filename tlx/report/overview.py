"""An inspection on a terminal: counts, histograms and findings."""

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tlx.data.dataset import Finding
from tlx.data.doctor import grouped
from tlx.report.inspection import Inspection
from tlx.report.text import printable

_CLASSES, _CASES = 30, 3
_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
_HEADS = {"error": "Errors: training would be nonsense", "warning": "Warnings: look at these", "info": "Notes"}


def overview(inspection: Inspection) -> RenderableType:
    """Return everything that a person wants to see at first."""
    title = Text.assemble((printable(inspection.name), "bold"), f": {inspection.format}, {inspection.summary}")
    kinds = "; ".join(f"{n} x {kind}" for kind, n in list(inspection.image_kinds().items())[:6])
    parts = [_parts(inspection)] if len(inspection.parts) > 1 else []
    shown = [_counts(inspection), *parts, "", _histograms(inspection)]
    if inspection.advice:
        shown += ["", Text(str(inspection.advice))]
    return Group(title, Text(kinds, style="dim"), "", *shown, *findings_text(inspection.groups))


def findings_text(groups: dict[str, list[Finding]]) -> Iterator[Text]:
    """Yield lines that tell findings by severity and code: how many of each, and the first cases."""
    for severity, head in _HEADS.items():
        chosen = {code: found for code, found in groups.items() if found[0].severity == severity}
        if chosen:
            yield Text(f"\n{head}", style=_STYLES[severity])
        for code, found in chosen.items():
            yield Text.assemble("  ", (f"{len(found)} x {printable(code)}", _STYLES[severity]))
            for finding in found[:_CASES]:
                where = ", ".join(filter(None, (finding.file, finding.record)))
                line = Text("    ").append(printable(f"{where}: " if where else ""), "dim")
                yield line.append(printable(finding.message))
            if len(found) > _CASES:
                yield Text(f"    and {len(found) - _CASES} more", style="dim")


def _counts(inspection: Inspection) -> Table:
    by = ["class", *(["part"] if len(inspection.parts) > 1 else []), *(["size"] if inspection.task.sized else [])]
    named = " and ".join(filter(None, (", ".join(by[:-1]), by[-1])))
    title = f"{inspection.task.labels} by {named}" + (" (COCO's small and large)" if inspection.task.sized else "")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    heads, *lines, total = inspection.table
    for head in heads:
        table.add_column(Text(printable(head)), justify="left" if head is heads[0] else "right")
    lines.sort(key=lambda line: -int(line[2]))
    for line in [*lines[:_CLASSES], total]:
        if line is total and len(lines) > _CLASSES:
            table.add_row(f"and {len(lines) - _CLASSES} more classes", style="dim")
        table.add_row(Text(printable(line[0])), *line[1:], style="bold" if line is total else "")
    return table


def _parts(inspection: Inspection) -> Text:
    told = (
        f"{name}: {part['images']} images, {part['empty']} of them without {inspection.task.labels}"
        for name, part in inspection.parts.items()
    )
    return Text("; ".join(told), style="dim")


def _histograms(inspection: Inspection) -> Group:
    return Group(*(Text.assemble(f"{one.title:<46}", (one.text(), "cyan")) for one in inspection.histograms))


def show(console: Console, inspection: Inspection) -> None:
    """Print an inspection."""
    console.print(overview(inspection), soft_wrap=True)


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings by severity and code."""
    for line in findings_text(grouped(findings)):
        console.print(line, soft_wrap=True)


def show_deeds(console: Console, target: str, format: str, deeds: Sequence[Finding]) -> None:
    """Print what a repair did."""
    console.print(Text(f"\nRepaired copy: {target}, as {format}", style="bold"), soft_wrap=True)
    show_findings(console, deeds)
    if not deeds:
        console.print(Text("  nothing had to be repaired"))

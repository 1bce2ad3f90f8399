"""What is odd about boxes, one by one and all together."""

import math
from collections.abc import Sequence
from dataclasses import replace

from tlx.data.dataset import Finding

# So many boxes that do not fit are no accident, if they are most.
_SEVERAL = 10


def oddity(box: Sequence[float], size: tuple[int, int], kept: bool) -> tuple[str, str]:
    """Return a code and a message for a box that is clipped by more than a pixel, or of which nothing is left."""
    x0, y0, x1, y1 = box
    width, height = size
    text = f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if kept:
        return "clipped-box", f"{text} passes the edge of the {width} x {height} image; clipped"
    if not all(map(math.isfinite, box)):
        return "non-finite-box", f"{text} is not finite; left out"
    if x1 < x0 or y1 < y0:
        return "inverted-box", f"{text} has its minimum beyond its maximum; left out"
    if x0 < x1 and y0 < y1 and (x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height):
        return "box-outside", f"{text} lies outside of the {width} x {height} image; left out"
    return "zero-area-box", f"{text} has no area; left out"


def doubt(count: int, odd: Sequence[Finding], findings: list[Finding]) -> None:
    """Report that most boxes pass the edges of their images, if they do: then it is not single boxes that are wrong."""
    passing = sum(finding.code in ("clipped-box", "box-outside") for finding in odd)
    if passing >= _SEVERAL and passing > count / 2:
        message = (
            f"{passing} of {count} boxes pass the edges of their images, so they are not in pixels of these images: "
            "were the images resized or turned after they were labelled, or are widths where corners should be?"
        )
        findings.append(Finding("boxes-do-not-fit", "error", "", "", message))


def clipped_counted(findings: list[Finding]) -> list[Finding]:
    clipped = [finding for finding in findings if finding.code == "clipped-box"]
    if not clipped:
        return findings
    message = f"{len(clipped)} boxes pass the edge of their image, as this format's may; clipped (first seen here)"
    note = replace(clipped[0], severity="info", message=message)
    return [finding for finding in findings if finding.code != "clipped-box"] + [note]

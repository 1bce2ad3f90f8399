"""The whole examination, and its outcome in short."""

from collections.abc import Callable, Iterable
from pathlib import Path

from tlx.data.dataset import Dataset, Finding
from tlx.data.doctor.classes import check_classes
from tlx.data.doctor.copies import check_copies
from tlx.data.doctor.patient import Patient, admit
from tlx.data.doctor.pictures import check_pictures
from tlx.data.splits.parts import Splits

SEVERITIES = ("error", "warning", "info")
CHECKS = (check_pictures, check_classes, check_copies)
Check = Callable[[Patient], Iterable[Finding]]


def examine(
    data: Dataset | Splits,
    size: tuple[int, int],
    check_labels: Check,
    root: Path | None = None,
    tile: tuple[int, int] | None = None,
) -> tuple[Finding, ...]:
    """Return what is wrong with data beyond what reading and splitting it found.

    `size` is the (height, width) in pixels that it is to be trained at, `tile` that of the parts which pictures are cut
    into first, if they are, and `check_labels` its task's `check`.
    Findings name files relative to `root`, or to the images' common folder. Image files are read once while they
    stay as they are.
    """
    patient = admit(data, size, root, tile)
    return tuple(finding for check in (*CHECKS, check_labels) for finding in check(patient))


def grouped(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Return findings by code, the worst codes first, each code's worst cases first."""
    ranked = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    groups: dict[str, list[Finding]] = {}
    for finding in ranked:
        groups.setdefault(finding.code, []).append(finding)
    return groups


def worst(findings: Iterable[Finding]) -> int:
    """Return 2 if there is an error among the findings, 1 if there is a warning, and 0 otherwise."""
    ranks = [2 - SEVERITIES.index(finding.severity) for finding in findings]
    return max(ranks, default=0)

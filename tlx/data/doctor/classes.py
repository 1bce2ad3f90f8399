"""Checks of the classes over all images: how many examples each has, and in which part."""

from collections.abc import Iterator

import numpy as np

from tlx.data.dataset import Finding
from tlx.data.doctor.patient import Patient

MIN_EXAMPLES = 10
_IMBALANCE = 10.0


def check_classes(patient: Patient) -> Iterator[Finding]:
    """Yield which classes have too few examples to learn, or none where they are needed."""
    learnt = "train" if "train" in patient.parts else None
    counts = patient.counts(learnt)
    where = "the training images have" if learnt else "the data has"
    elsewhere = patient.counts() - counts
    for name, count, others in zip(patient.classes, counts, elsewhere, strict=True):
        if learnt and not count and others:
            message = f"{others} x {name!r} in other parts, and none to learn from in training; divide the data anew"
            yield _of(name, "class-not-in-training", "warning", message)
        elif count < MIN_EXAMPLES:
            message = (
                f"{where} {count} x {name!r} where at least {MIN_EXAMPLES} are needed to learn anything; "
                "label more, merge it with another class, or leave it out of the reader's classes"
            )
            yield _of(name, "few-examples", "warning", message)
    yield from _missing(patient, counts)
    yield from _imbalance(patient, counts)


def _missing(patient: Patient, learnt: np.ndarray) -> Iterator[Finding]:
    for part in patient.parts:
        if part in ("validation", "test"):
            counts = patient.counts(part)
            absent = [name for name, n, here in zip(patient.classes, learnt, counts, strict=True) if n and not here]
            if absent:
                message = f"the {part} images have none of {_listed(absent)}, which therefore cannot be judged there"
                yield _of(absent[0], f"class-not-in-{part}", "info", message)


def _imbalance(patient: Patient, counts: np.ndarray) -> Iterator[Finding]:
    if not counts.any():
        return
    there = np.flatnonzero(counts)
    most, least = there[counts[there].argmax()], there[counts[there].argmin()]
    ratio = counts[most] / counts[least]
    if ratio >= _IMBALANCE:
        names = patient.classes
        message = f"{counts[most]} x {names[most]!r} against {counts[least]} x {names[least]!r}, {ratio:.1f} to 1"
        message += "; fit.oversample shows pictures of rare classes more often"
        yield _of(names[least], "class-imbalance", "info", message)


def _of(name: str, code: str, severity: str, message: str) -> Finding:
    return Finding(code, severity, "", f"class {name}", message)


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

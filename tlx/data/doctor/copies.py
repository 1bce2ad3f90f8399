"""Checks of images that show the same: within a part, across parts, and with other labels."""

from collections import Counter
from collections.abc import Iterator

from tlx.data.dataset import Example, Finding
from tlx.data.doctor.patient import Patient
from tlx.data.similarity import Relation, relations


def check_copies(patient: Patient) -> Iterator[Finding]:
    """Yield which images show the same; what splitting the data has reported already is not said again."""
    told = {finding.code for finding in patient.findings}
    for relation in relations([example.image for example in patient.examples]):
        inside = [j for j in relation.others if patient.part_of[j] == patient.part_of[relation.image]]
        across = [j for j in relation.others if patient.part_of[j] != patient.part_of[relation.image]]
        if inside and relation.code not in told:
            yield _same(patient, relation, inside, relation.code)
        code = f"{relation.code}-across-splits"
        if across and code not in told:
            yield _same(patient, relation, across, code)
        yield from _disagreements(patient, relation)


def _same(patient: Patient, relation: Relation, others: list[int], code: str) -> Finding:
    example = patient.examples[relation.image]
    names = [_placed(patient, j) for j in others[:3]]
    text = f"{relation.verb} {', '.join(names)}" + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    if not code.endswith("-across-splits"):
        return patient.at(example, code, "info", f"{text}; they belong in one part of the data")
    where = patient.part_of[relation.image]
    message = f"{text}, while it is in {where}: results there will look too good; divide the data with @splits.ratio()"
    return patient.at(example, code, "warning", message)


def _disagreements(patient: Patient, relation: Relation) -> Iterator[Finding]:
    example = patient.examples[relation.image]
    for j in relation.others:
        other = patient.examples[j]
        if how := _differ(patient, example, other, relation.exact):
            message = (
                f"{relation.verb} {_placed(patient, j)}, and yet {how}; one of them is wrong, or both are incomplete"
            )
            yield patient.at(example, "contradicting-labels", "warning", message)


def _differ(patient: Patient, one: Example, other: Example, exact: bool) -> str:
    """Return how the labels of two images of the same differ, or "" where they agree."""
    here, there = (_count(patient, example) for example in (one, other))
    if not exact:
        # Another crop or moment may show more or fewer objects, but hardly other ones only.
        apart = here and there and not set(here) & set(there)
        return f"this one shows {_told(here)} and that one {_told(there)}" if apart else ""
    if here != there:
        return f"this one is labelled {_told(here)} and that one {_told(there)}"
    return "" if one.targets.agrees(other.targets) else "their boxes are elsewhere"


def _count(patient: Patient, example: Example) -> Counter[str]:
    return Counter(patient.classes[label] for label in example.targets.counted)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{n} x {name}" for name, n in sorted(counts.items())) or "without objects"


def _placed(patient: Patient, j: int) -> str:
    part = f" ({patient.part_of[j]})" if len(patient.parts) > 1 else ""
    return f"{patient.name(patient.examples[j])}{part}"

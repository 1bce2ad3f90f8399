"""Checks of the boxes within each image."""

from collections.abc import Iterator

import numpy as np

from tlx.data.dataset import Example, Finding
from tlx.data.doctor.patient import Patient
from tlx.data.targets import iou

# At the size that is trained at, in pixels: less than this tells a network next to nothing.
MIN_SIDE = 4.0
SAME_IOU = 0.95
# A box that leaves at most this share of the image's width and of its height free covers everything.
_EDGE = 0.01


def check_boxes(patient: Patient) -> Iterator[Finding]:
    """Yield what is odd about the boxes of each image."""
    for example in patient.examples:
        yield from _covering(patient, example)
        yield from _twins(patient, example)
        yield from _small(patient, example)
    yield from _empty(patient)


def _empty(patient: Patient) -> Iterator[Finding]:
    # Formats whose rows have no other way to say so are reported by their reader, all in one.
    if any(finding.code == "background-row" for finding in patient.findings):
        return
    for example in patient.examples:
        if not len(example.objects.boxes):
            yield patient.at(example, "no-boxes", "info", "has no box; it is taken as background", example.record)


def _covering(patient: Patient, example: Example) -> Iterator[Finding]:
    shape = np.array([example.width, example.height])
    sides = (example.objects.boxes[:, 2:] - example.objects.boxes[:, :2]) / shape
    for i in np.flatnonzero((sides >= 1 - _EDGE).all(axis=1) & ~example.objects.ignore):
        message = (
            f"{_named(patient, example, i)} covers the whole image; is it a placeholder, or the object that large?"
        )
        yield patient.at(example, "box-covers-image", "warning", message, _record(example, i))


def _twins(patient: Patient, example: Example) -> Iterator[Finding]:
    for i, j in twins(example.objects.boxes):
        if example.objects.ignore[i] or example.objects.ignore[j]:
            continue
        first, second = (_named(patient, example, k) for k in (i, j))
        if example.objects.labels[i] == example.objects.labels[j]:
            message = f"{second} is almost the same box as {first}; remove one of them"
            yield patient.at(example, "near-duplicate-box", "warning", message, _record(example, j))
        else:
            message = f"{second} is almost the same box as {first}, with another class; only one can be right"
            yield patient.at(example, "box-of-two-classes", "warning", message, _record(example, j))


def twins(boxes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs (i, j > i) of boxes, float32 [n, 4], whose IoU is above `SAME_IOU`."""
    order = np.argsort(boxes[:, 0], kind="stable")
    sorted_boxes = boxes[order].astype(np.float64)
    left, width = sorted_boxes[:, 0], sorted_boxes[:, 2] - sorted_boxes[:, 0]
    # Boxes that overlap so much begin nearly at the same x, which leaves few to compare with.
    ends = np.searchsorted(left, left + width * (1 / SAME_IOU - 1), side="right")
    for place in np.flatnonzero(ends > np.arange(len(order)) + 1):
        others = sorted_boxes[place + 1 : ends[place]]
        for offset in np.flatnonzero(iou(sorted_boxes[place], others) > SAME_IOU):
            i, j = sorted((int(order[place]), int(order[place + 1 + offset])))
            yield i, j


def _small(patient: Patient, example: Example) -> Iterator[Finding]:
    height, width = patient.size
    sides = (example.objects.boxes[:, 2:] - example.objects.boxes[:, :2]).min(axis=1) * patient.scale(example)
    (small,) = np.nonzero((sides < MIN_SIDE) & ~example.objects.ignore)
    if len(small):
        least = small[sides[small].argmin()]
        what, smaller = ("a tile", "smaller ") if patient.tile else ("the image", "")
        message = (
            f"{len(small)} of {len(example.targets.counted)} boxes are less than {MIN_SIDE:g} px wide or high once "
            f"{what} is {width} x {height} px, such as {_named(patient, example, least)} with {sides[least]:.1f} px; "
            f"train at a larger image_size, or cut the image into {smaller}tiles"
        )
        yield patient.at(example, "tiny-box", "warning", message, _record(example, least))


def _named(patient: Patient, example: Example, i: int) -> str:
    label = example.objects.labels[i]
    name = patient.classes[label] if label >= 0 else "a region"
    return f"{name} ({', '.join(f'{side:g}' for side in example.objects.boxes[i].tolist())})"


def _record(example: Example, i: int) -> str:
    return ", ".join(filter(None, (example.record, f"box {i + 1}")))

"""Objects at the seams of windows: what several windows of one picture show of an object becomes one box."""

import math
from collections.abc import Iterator

import numpy as np

# Boxes of one class that agree by more than this IoU are of one object, where several windows saw them; where a window
# cuts one of them, which networks then place less well, by more than the second.
_ALIKE, _CUT_ALIKE = 0.5, 0.4
# A box that comes so near to the end of its window, in pixels or as a share of its side, goes on beyond it. A network
# that sees only a part of an object does not end it at the very edge.
_EDGE, _NEAR = 1.0, 0.2
# How much a box counts that its window cuts, beside one that is seen whole, where one of them is to stand for both.
_CUT_TRUST = 0.5


def once(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, source: np.ndarray, windows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which boxes stand for the objects that windows saw, best first, and their boxes and scores.

    `windows` [m, 4] are the parts of the picture that were looked at, and `source` [n] says in which of them a box was
    found. That is greedy non-maximum suppression within each class; what is kept has the best score of its group. A box
    that its window cuts gives way to those that are seen whole; it is compared in what that window shows, and what is
    cut off is taken from the others.
    """
    cuts = _cuts(boxes, windows, source)
    trust = np.where(np.isfinite(cuts).any(1), _CUT_TRUST, 1.0)
    first = np.argsort(-scores * trust, kind="stable")
    boxes, scores, source, cuts = boxes[first], scores[first], source[first], cuts[first]
    kept = np.ones(len(boxes), np.bool_)
    for group in _groups(boxes, labels[first], source):
        for i in group:
            # What one window shows was suppressed already, by the head's own rule.
            others = group[(group > i) & (source[group] != source[i])] if kept[i] else group[:0]
            while len(same := _same(boxes, cuts, i, others[kept[others]])):
                # What is completed may agree with what a third window shows.
                boxes[i], cuts[i] = _completed(boxes[i], cuts[i], boxes[same], cuts[same])
                scores[i] = max(scores[i], scores[same].max())
                kept[same] = False
    best = np.flatnonzero(kept)
    best = best[np.argsort(-scores[best], kind="stable")]
    return first[best], boxes[best], scores[best]


def _groups(boxes: np.ndarray, labels: np.ndarray, source: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the boxes that may be of one object, in order: of one class, linked by overlaps between windows."""
    count = len(boxes)
    by_left = np.argsort(boxes[:, 0], kind="stable")
    # Behind each box come those whose left side lies before its right one.
    behind = np.searchsorted(boxes[by_left, 0], boxes[by_left, 2]) - np.arange(count) - 1
    behind = np.maximum(behind, 0)
    a = np.repeat(np.arange(count), behind)
    b = np.arange(len(a)) - np.repeat(np.cumsum(behind) - behind, behind) + a + 1
    a, b = by_left[a], by_left[b]
    meet = (labels[a] == labels[b]) & (source[a] != source[b])
    meet &= (boxes[a, 1] < boxes[b, 3]) & (boxes[b, 1] < boxes[a, 3])
    a, b = a[meet], b[meet]
    group, before = np.arange(count), None
    while not np.array_equal(group, before):
        before, lowest = group.copy(), np.minimum(group[a], group[b])
        np.minimum.at(group, a, lowest)
        np.minimum.at(group, b, lowest)
    by_group = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[by_group])) + 1
    yield from (members for members in np.split(by_group, ends) if len(members) > 1)


def _cuts(boxes: np.ndarray, windows: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return [n, 4] where the window of each box cuts it, and infinity at the sides where it does not.

    `windows` [m, 4] are those of all predictions, and `source` [n] says which one is a box's.
    """
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    near = np.abs(boxes - windows[source]) <= np.maximum(_EDGE, _NEAR * sides)
    # At the ends of the picture nothing goes on.
    inner = windows != np.concatenate([windows[:, :2].min(0), windows[:, 2:].max(0)])
    return np.where(near & inner[source], windows[source], [-math.inf, -math.inf, math.inf, math.inf])


def _same(boxes: np.ndarray, cuts: np.ndarray, one: int, others: np.ndarray) -> np.ndarray:
    """Return which other boxes are of the object of `one`: they agree in what nobody's window cuts off."""
    low, high = np.maximum(cuts[one, :2], cuts[others, :2]), np.minimum(cuts[one, 2:], cuts[others, 2:])
    a, b = (
        np.concatenate([np.maximum(some[:, :2], low), np.minimum(some[:, 2:], high)], 1)
        for some in (boxes[[one]], boxes[others])
    )
    shared = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0).prod(1)
    areas = sum(np.maximum(some[:, 2:] - some[:, :2], 0).prod(1) for some in (a, b))
    cut = np.isfinite(cuts[one]).any() | np.isfinite(cuts[others]).any(1)
    union = np.maximum(areas - shared, np.finfo(np.float32).tiny)
    return others[shared / union > np.where(cut, _CUT_ALIKE, _ALIKE)]


def _completed(box: np.ndarray, cut: np.ndarray, others: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a box that reaches as far as others [n, 4] of its object where it is cut, and where it is cut then."""
    others, cuts = np.vstack([box, others]), np.vstack([cut, cuts])
    farthest = np.array([*others[:, :2].argmin(0), *others[:, 2:].argmax(0)])
    reach, sides = others[farthest, range(4)], np.isfinite(cut)
    return np.where(sides, reach, box), np.where(sides, cuts[farthest, range(4)], cut)

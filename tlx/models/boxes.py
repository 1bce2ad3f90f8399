"""Geometry on tensors of boxes: float32 [..., 4], (x_min, y_min, x_max, y_max) in pixels."""

from typing import Any

from tlx.lazy import tf


def area(boxes: Any) -> Any:
    """Return the areas [...] of boxes [..., 4]; an inverted box has none."""
    sides = tf.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def intersection(a: Any, b: Any) -> Any:
    """Return the shared areas of boxes [..., 4] that broadcast against each other."""
    return area(tf.concat([tf.maximum(a[..., :2], b[..., :2]), tf.minimum(a[..., 2:], b[..., 2:])], -1))


def iou(a: Any, b: Any) -> Any:
    """Return intersection over union, in 0..1, of boxes that broadcast against each other; 0 where both are empty."""
    shared = intersection(a, b)
    return tf.math.divide_no_nan(shared, area(a) + area(b) - shared)


def giou(a: Any, b: Any) -> Any:
    """Return the generalized IoU, in -1..1, of boxes that broadcast against each other.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    hull = area(tf.concat([tf.minimum(a[..., :2], b[..., :2]), tf.maximum(a[..., 2:], b[..., 2:])], -1))
    return tf.math.divide_no_nan(shared, union) - tf.math.divide_no_nan(hull - union, hull)


def from_distances(centres: Any, distances: Any) -> Any:
    """Return boxes [..., 4] from points [..., 2] and their distances [..., 4] to the left, top, right and bottom."""
    return tf.concat([centres - distances[..., :2], centres + distances[..., 2:]], -1)


def suppress(boxes: Any, labels: Any, threshold: float) -> Any:
    """Return which boxes survive greedy non-maximum suppression within each class: bool [b, n].

    `boxes` [b, n, 4] and `labels` [b, n] come sorted by falling score. A box survives unless a surviving
    box before it, of the same class, overlaps it by more than `threshold` IoU. All boxes are judged at
    once, again and again until nothing changes, which is after at most n rounds and mostly after three.
    """
    n = tf.shape(boxes)[1]
    overlaps = iou(boxes[:, :, None], boxes[:, None, :]) > threshold
    same = labels[:, :, None] == labels[:, None, :]
    before = tf.range(n)[:, None] > tf.range(n)[None, :]
    beats = overlaps & same & before

    def judge(kept: Any, _: Any) -> tuple[Any, Any]:
        judged = ~tf.reduce_any(beats & kept[:, None, :], -1)
        return judged, tf.reduce_any(judged != kept)

    start = tf.ones(tf.shape(labels), tf.bool)
    return tf.while_loop(lambda _, changed: changed, judge, (start, tf.constant(True)))[0]

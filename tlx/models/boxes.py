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


def pairwise_iou(a: Any, b: Any) -> Any:
    """Return the IoU [..., n, m], in 0..1, of each of boxes `a` [..., n, 4] with each of `b` [..., m, 4].

    It takes a third of the time of `iou` on boxes that broadcast: no tensor has a last axis of 4.
    """
    ax0, ay0, ax1, ay1 = (side[..., :, None] for side in tf.unstack(a, axis=-1))
    bx0, by0, bx1, by1 = (side[..., None, :] for side in tf.unstack(b, axis=-1))
    width = tf.maximum(tf.minimum(ax1, bx1) - tf.maximum(ax0, bx0), 0.0)
    shared = width * tf.maximum(tf.minimum(ay1, by1) - tf.maximum(ay0, by0), 0.0)
    return tf.math.divide_no_nan(shared, area(a)[..., :, None] + area(b)[..., None, :] - shared)


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
    overlaps = pairwise_iou(boxes, boxes) > threshold
    same = labels[:, :, None] == labels[:, None, :]
    before = tf.range(n)[:, None] > tf.range(n)[None, :]
    beats = overlaps & same & before

    def judge(kept: Any, _: Any) -> tuple[Any, Any]:
        judged = ~tf.reduce_any(beats & kept[:, None, :], -1)
        return judged, tf.reduce_any(judged != kept)

    start = tf.ones(tf.shape(labels), tf.bool)
    return tf.while_loop(lambda _, changed: changed, judge, (start, tf.constant(True)))[0]


def vote(kept: Any, kept_labels: Any, boxes: Any, labels: Any, scores: Any, threshold: float) -> Any:
    """Return each kept box [b, k, 4] as the mean of those boxes [b, n, 4] of its class that agree with it.

    Those are the ones that overlap it by more than `threshold` IoU. They weigh by their `scores` [b, n] and by
    exp(-(1 - IoU) ** 2 / 0.025).

    Source: Kim and Lee, Probabilistic Anchor Assignment with IoU Prediction, ECCV 2020.
    """
    overlap = pairwise_iou(kept, boxes)
    agrees = (overlap > threshold) & (kept_labels[:, :, None] == labels[:, None, :])
    weights = tf.where(agrees, scores[:, None] * tf.exp(-((1 - overlap) ** 2) / 0.025), 0.0)
    total = tf.reduce_sum(weights, -1, keepdims=True)
    # What has no score, such as a place that holds no detection, stays as it is.
    return tf.where(total > 0, tf.math.divide_no_nan(weights @ boxes, total), kept)

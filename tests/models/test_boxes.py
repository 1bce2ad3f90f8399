"""Box geometry against plain references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlx.models.boxes import area, from_distances, giou, intersection, iou, pairwise_iou, suppress

coordinate = st.integers(-20, 60).map(float)
box = st.tuples(coordinate, coordinate, st.integers(1, 50), st.integers(1, 50)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
lists = st.lists(box, min_size=1, max_size=12).map(lambda boxes: np.array(boxes, np.float32))
some = settings(max_examples=60)


def reference(a, b):
    """IoU and generalized IoU of two boxes, in plain numbers."""
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return w * h / union, w * h / union - (hull - union) / hull


@some
@given(lists, lists)
def test_iou_and_giou_equal_the_references(a, b):
    ious, gious = iou(a[:, None], b[None]).numpy(), giou(a[:, None], b[None]).numpy()
    wanted = np.array([[reference(p, q) for q in b.tolist()] for p in a.tolist()])
    np.testing.assert_allclose(ious, wanted[..., 0], atol=1e-6)
    np.testing.assert_allclose(gious, wanted[..., 1], atol=1e-6)


@some
@given(lists, lists)
def test_iou_is_symmetric_and_within_its_range(a, b):
    ious = iou(a[:, None], b[None]).numpy()
    assert ((ious >= 0) & (ious <= 1)).all()
    np.testing.assert_array_equal(ious, iou(b[:, None], a[None]).numpy().T)
    np.testing.assert_allclose(iou(a, a).numpy(), 1, atol=1e-6)
    gious = giou(a[:, None], b[None]).numpy()
    assert ((gious > -1) & (gious <= ious + 1e-6)).all()


def test_empty_and_inverted_boxes_are_finite():
    boxes = np.array([[5, 5, 5, 5], [9, 9, 3, 3], [0, 0, 10, 10]], np.float32)
    assert area(boxes).numpy().tolist() == [0, 0, 100]
    assert iou(boxes[:, None], boxes[None]).numpy()[:2].max() == 0
    assert np.isfinite(giou(boxes[:, None], boxes[None]).numpy()).all()
    assert intersection(boxes[2], boxes[2]).numpy() == 100


@some
@given(lists, st.tuples(coordinate, coordinate))
def test_boxes_lie_at_their_distances_from_a_point(boxes, point):
    centres = np.broadcast_to(np.array(point, np.float32), (len(boxes), 2))
    distances = np.concatenate([centres - boxes[:, :2], boxes[:, 2:] - centres], axis=1)
    np.testing.assert_allclose(from_distances(centres, distances).numpy(), boxes, atol=1e-4)


def greedy(boxes, labels, threshold):
    kept = []
    for i, candidate in enumerate(boxes):
        rivals = (j for j in kept if labels[j] == labels[i])
        if not any(np.float32(reference(candidate, boxes[j])[0]) > threshold for j in rivals):
            kept.append(i)
    return [i in kept for i in range(len(boxes))]


clusters = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 6), st.integers(10, 16), st.integers(10, 16)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=120)
@given(clusters, clusters, st.sampled_from([0.33, 0.51, 0.62, 0.77]))
def test_suppress_is_greedy_suppression_within_each_class(one, other, threshold):
    size = max(len(one), len(other))
    padded = [[*rows, *[(9, 900 + 50 * i, 0, 10, 10) for i in range(size - len(rows))]] for rows in (one, other)]
    table = np.array(padded, np.float32)
    labels = table[..., 0].astype(np.int32)
    boxes = np.concatenate([table[..., 1:3], table[..., 1:3] + table[..., 3:]], -1)
    kept = suppress(boxes, labels, threshold).numpy().tolist()
    assert kept == [greedy(boxes[i].tolist(), labels[i].tolist(), threshold) for i in range(2)]


@pytest.mark.parametrize("n", [1, 40])
def test_a_chain_that_needs_a_round_for_every_box(n):
    # Each box overlaps only its neighbours, so every second one survives.
    boxes = np.array([[[4.0 * i, 0, 4.0 * i + 10, 10] for i in range(n)]], np.float32)
    kept = suppress(boxes, np.zeros((1, n), np.int32), 0.3).numpy()
    assert kept.tolist() == [[i % 2 == 0 for i in range(n)]]


def test_overlap_of_exactly_the_threshold_survives():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 5]]], np.float32)
    assert suppress(boxes, np.zeros((1, 2), np.int32), 0.5).numpy().all()


@some
@given(lists, lists)
def test_pairwise_iou_is_that_of_each_pair(a, b):
    np.testing.assert_array_equal(pairwise_iou(a, b).numpy(), iou(a[:, None], b[None]).numpy())

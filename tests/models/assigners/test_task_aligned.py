"""Task-aligned assignment: who learns an object, and how well it is to score."""

import numpy as np
import pytest

from tlx.data.targets import ANY_CLASS
from tlx.errors import ConfigError
from tlx.lazy import tf
from tlx.models.assigners.task_aligned import TaskAligned
from tlx.models.boxes import iou
from tlx.models.head import TapShape
from tlx.models.pyramid import locations

PLACES = locations([TapShape(8, 8, 1, 8), TapShape(4, 4, 1, 16)], (64, 64))
N = len(PLACES.strides)


def assigned(rows, boxes, scores, **settings):
    """The assignment of one picture's (box, label, ignore) to predictions [n, 4] and [n, classes], in NumPy."""
    targets = {
        "boxes": tf.constant([[row[0] for row in rows] or [(0, 0, 0, 0)]], tf.float32),
        "labels": tf.constant([[row[1] for row in rows] or [-2]], tf.int32),
        "ignore": tf.constant([[row[2] for row in rows] or [False]]),
    }
    predictions = {"boxes": tf.constant(boxes[None], tf.float32), "scores": tf.constant(scores[None], tf.float32)}
    found = TaskAligned(**settings)(PLACES, targets, scores.shape[-1], predictions)
    return [np.asarray(part)[0] for part in found]


def around(side=12.0):
    """Each location predicts a square around itself."""
    return np.concatenate([PLACES.centres - side / 2, PLACES.centres + side / 2], 1)


def inside(box):
    x, y = PLACES.centres.T
    return (x > box[0]) & (y > box[1]) & (x < box[2]) & (y < box[3])


def test_the_best_by_score_and_box_together_learn_an_object():
    box, scores = (8.0, 8.0, 56.0, 56.0), np.random.default_rng(0).uniform(0.1, 0.9, (N, 2))
    boxes = around(30)
    chosen, positive, _, quality = assigned([(box, 1, False)], boxes, scores, candidates=4)
    overlap = iou(boxes.astype(np.float32), np.array(box, np.float32)).numpy()
    worth = np.where(inside(box), scores[:, 1] ** 0.5 * overlap**6, -1)
    best = np.argsort(-worth)[:4]
    assert sorted(np.flatnonzero(positive)) == sorted(best)
    assert (chosen[best] == 0).all()
    # The best aligned is to score what the best box overlaps.
    np.testing.assert_allclose(quality[best], worth[best] / worth.max() * overlap[best].max(), rtol=1e-4)
    assert (quality[~positive] == 0).all()


def test_what_two_objects_want_goes_to_the_one_that_it_overlaps_most():
    large, small = (0.0, 0.0, 64.0, 64.0), (16.0, 16.0, 40.0, 40.0)
    boxes = np.tile(np.array(small), (N, 1))
    chosen, positive, *_ = assigned([(large, 0, False), (small, 0, False)], boxes, np.full((N, 1), 0.5), candidates=N)
    assert (chosen[inside(small)] == 1).all()
    assert (chosen[~inside(small)] == 0).all()
    assert positive.all()


def test_an_object_between_all_locations_is_learnt_by_the_nearest():
    chosen, positive, *_ = assigned([((9.0, 9.0, 11.0, 11.0), 0, False)], around(), np.full((N, 1), 0.5))
    assert PLACES.centres[np.flatnonzero(positive)].tolist() == [[12.0, 12.0]]
    assert chosen[positive].tolist() == [0]


@pytest.mark.parametrize("rows", [[], [((0.0, 0.0, 64.0, 64.0), ANY_CLASS, True)]])
def test_no_object_means_nothing_to_learn(rows):
    _, positive, counted, quality = assigned(rows, around(), np.full((N, 2), 0.5))
    assert not positive.any()
    assert (quality == 0).all()
    assert (counted == (0 if rows else 1)).all()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match=r"assigners.task_aligned.candidates"):
        TaskAligned(candidates=0)

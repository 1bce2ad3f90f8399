"""A throw-away head that starts from anchor boxes, as SSD does: the contract of heads carries it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from tlx.lazy import keras, tf
from tlx.models import boxes as geometry
from tlx.models.assign import Assigner, Assignment, Locations, counted
from tlx.models.backbone import choose_taps
from tlx.models.head import BuiltHead, Head
from tlx.models.postprocess import Suppression
from tlx.models.pyramid import locations

# Width and height of each location's anchors, in strides.
SHAPES = np.array([(3, 3), (4, 2), (2, 4)], np.float32)
VARIANCE = [0.1, 0.1, 0.2, 0.2]


def encode(anchors, boxes):
    coding = keras.utils.bounding_boxes.encode_box_to_deltas
    return coding(anchors, boxes, "xyxy", "xyxy", variance=VARIANCE)


def decode(anchors, offsets):
    coding = keras.utils.bounding_boxes.decode_deltas_to_boxes
    return coding(anchors, offsets, "xyxy", "xyxy", variance=VARIANCE)


def with_anchors(taps, size):
    cells = locations(taps, size)
    centres, strides = np.repeat(cells.centres, len(SHAPES), 0), np.repeat(cells.strides, len(SHAPES))
    half = np.tile(SHAPES, (len(cells.strides), 1)) * strides[:, None] / 2
    return Locations(centres, strides, np.concatenate([centres - half, centres + half], 1))


@dataclass(frozen=True)
class ByOverlap(Assigner):
    """An object is learnt by the anchors that overlap it by at least `iou`, and by the one that does most."""

    iou: float

    def __call__(self, locations, targets, classes, predictions=None):
        boxes, labels, ignore = targets["boxes"], targets["labels"], targets["ignore"]
        real = ((labels >= 0) & ~ignore)[:, None]
        overlaps = tf.where(real, geometry.iou(locations.anchors[None, :, None], boxes[:, None]), -1.0)
        best = tf.one_hot(tf.argmax(overlaps, 1), len(locations.anchors), True, False, axis=1, dtype=tf.bool)
        positive = tf.reduce_any((overlaps >= self.iou) | (best & real), -1)
        x, y = locations.centres[:, :1], locations.centres[:, 1:]
        x0, y0, x1, y1 = (side[:, None] for side in tf.unstack(boxes, axis=-1))
        inside = (x > x0) & (y > y0) & (x < x1) & (y < y1)
        chosen = tf.argmax(overlaps, -1, tf.int32)
        return Assignment(chosen, positive, counted(inside, positive, labels, ignore, classes))


def smooth_l1(errors):
    size = tf.abs(errors)
    return tf.where(size < 1, size**2 / 2, size - 0.5)


@dataclass(frozen=True)
class AnchorHead(Head):
    """Softmax classes with the hardest negatives, and offsets from three anchors at each location."""

    strides: tuple[int, ...] = (8, 16, 32)

    def select(self, backbone):
        return choose_taps(backbone.taps, self.strides, "anchors.strides")

    def build(self, taps, classes, size):
        inputs = [keras.Input(shape[:3]) for shape in taps]
        found = []
        for tap, (h, w, _, stride) in zip(inputs, taps, strict=True):
            x = keras.layers.GroupNormalization(4, name=f"norm_{stride}")(tap)
            x = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name=f"conv_{stride}")(x)
            x = keras.layers.Conv2D(3 * (classes + 5), 3, padding="same", dtype="float32", name=f"out_{stride}")(x)
            found.append(keras.ops.reshape(x, (-1, h * w * 3, classes + 5)))
        network = keras.Model(inputs, keras.ops.concatenate(found, 1), name="anchors")
        return BuiltAnchorHead(network, with_anchors(taps, size))


@dataclass(frozen=True, eq=False)
class BuiltAnchorHead(BuiltHead):
    network: Any
    locations: Locations

    loss_groups: ClassVar = (("classes", "offsets"),)

    @property
    def parts(self):
        return (self.network,)

    def forward(self, taps, targets=None, training=False, seeds=None):
        found = self.network(list(taps), training=training)
        return {"offsets": found[..., :4], "logits": found[..., 4:]}

    def losses(self, outputs, targets):
        logits, anchors = outputs["logits"], self.locations.anchors
        found = ByOverlap(0.5)(self.locations, targets, logits.shape[-1] - 1)
        labels = tf.where(found.positive, tf.gather(targets["labels"], found.chosen, batch_dims=1) + 1, 0)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        learnt = tf.cast(found.positive | hardest(losses, found), tf.float32)
        true = tf.gather(targets["boxes"], found.chosen, batch_dims=1)
        wanted = encode(anchors, tf.where(found.positive[..., None], true, anchors))
        off = tf.reduce_sum(smooth_l1(outputs["offsets"] - wanted), -1) * tf.cast(found.positive, tf.float32)
        positives = tf.reduce_sum(tf.cast(found.positive, tf.float32), 1)
        return {
            "classes": (tf.reduce_sum(losses * learnt, 1), positives),
            "offsets": (tf.reduce_sum(off, 1), positives),
        }

    def predict(self, outputs):
        boxes = decode(self.locations.anchors, outputs["offsets"])
        return {"boxes": boxes[:, :, None], "scores": tf.nn.softmax(outputs["logits"])[..., 1:]}

    def postprocess(self, dense):
        return Suppression(20, 0.01, 0.5)(dense)


def hardest(losses, found):
    """Return bool [b, n]: of each picture three times as many negatives as positives, those with the greatest loss."""
    negative = ~found.positive & (tf.reduce_min(found.counted, -1) > 0)
    hardness = tf.where(negative, tf.stop_gradient(losses), -1.0)
    rank = tf.argsort(tf.argsort(hardness, direction="DESCENDING", stable=True), stable=True)
    return negative & (rank < 3 * tf.reduce_sum(tf.cast(found.positive, tf.int32), 1, keepdims=True))


HEAD = AnchorHead()


def test_it_learns_to_find_what_is_drawn_and_comes_back(taught, assert_found, assert_comes_back):
    made, dataset = taught(HEAD, updates=60)
    assert_found(made, dataset)
    assert_comes_back(made, HEAD, dataset)


def test_micro_batches_give_the_same_update(assert_same_in_parts):
    assert_same_in_parts(HEAD)


def test_negatives_are_mined_in_each_picture_by_itself():
    """The second picture's losses are all greater; each has its own share all the same."""
    positive = tf.constant([[True] + [False] * 8, [True, True] + [False] * 7])
    losses = tf.constant([np.arange(9), 100 + np.arange(9)], tf.float32)
    # In the first, the hardest but one lies in an ignore region.
    matters = np.ones((2, 9, 2), np.float32)
    matters[0, 7, 1] = 0
    found = hardest(losses, Assignment(None, positive, tf.constant(matters))).numpy()
    assert [np.flatnonzero(row).tolist() for row in found] == [[5, 6, 8], [3, 4, 5, 6, 7, 8]]


def test_a_picture_without_objects_teaches_it_nothing_and_stays_finite():
    head = HEAD.build([(8, 8, 8, 8), (4, 4, 8, 16)], 2, (64, 64))
    outputs = {"logits": tf.zeros((1, 240, 3)), "offsets": tf.zeros((1, 240, 4))}
    none = {"boxes": tf.zeros((1, 2, 4)), "labels": tf.fill((1, 2), -2), "ignore": tf.zeros((1, 2), tf.bool)}
    for total, weight in head.losses(outputs, none).values():
        assert (total.numpy().tolist(), weight.numpy().tolist()) == ([0], [0])


@pytest.mark.parametrize("box", [(8, 8, 40, 40), (0, 20, 64, 30)])
def test_offsets_give_the_boxes_back(box):
    anchors = with_anchors([(8, 8, 8, 8)], (64, 64)).anchors
    boxes = np.tile(np.array(box, np.float32), (1, len(anchors), 1))
    np.testing.assert_allclose(decode(anchors, encode(anchors, boxes)), boxes, atol=1e-3)

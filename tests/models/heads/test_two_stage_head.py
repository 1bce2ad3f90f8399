"""A throw-away head of two stages, as Faster R-CNN is: the contract of heads carries it, and the rest of a backbone."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from tlx import freeze, policies
from tlx.errors import MisfitError, ModelError
from tlx.fit import Fit
from tlx.lazy import keras, tf
from tlx.learner import losses as losses_of
from tlx.models import boxes as geometry
from tlx.models.assign import Assigner, Assignment, Locations
from tlx.models.backbone import choose_taps
from tlx.models.detector import build
from tlx.models.graph import weight_layers
from tlx.models.head import BuiltHead, Head
from tlx.models.postprocess import Suppression
from tlx.models.pyramid import locations
from tlx.pipeline import Unit

# Width and height of each location's anchors, in strides.
SHAPES = np.array([(3, 3), (4, 2), (2, 4)], np.float32)
VARIANCE = [0.1, 0.1, 0.2, 0.2]
CROP = 8


def encode(anchors, boxes):
    return keras.utils.bounding_boxes.encode_box_to_deltas(anchors, boxes, "xyxy", "xyxy", variance=VARIANCE)


def decode(anchors, offsets):
    return keras.utils.bounding_boxes.decode_deltas_to_boxes(anchors, offsets, "xyxy", "xyxy", variance=VARIANCE)


def smooth_l1(errors):
    size = tf.abs(errors)
    return tf.reduce_sum(tf.where(size < 1, size**2 / 2, size - 0.5), -1)


@dataclass(frozen=True)
class ByOverlap(Assigner):
    """An object is learnt by what overlaps it by half, or most: the anchors, or the boxes that are predicted."""

    def __call__(self, locations, targets, classes, predictions=None):
        starts = predictions["boxes"] if predictions else locations.anchors[None]
        real = ((targets["labels"] >= 0) & ~targets["ignore"])[:, None]
        overlaps = tf.where(real, geometry.iou(starts[:, :, None], targets["boxes"][:, None]), -1.0)
        best = tf.one_hot(tf.argmax(overlaps, 1), tf.shape(overlaps)[1], True, False, axis=1, dtype=tf.bool)
        positive = tf.reduce_any((overlaps >= 0.5) | (best & real & (overlaps > 0)), -1)
        return Assignment(tf.argmax(overlaps, -1, tf.int32), positive, None)


def sample(seeds, positive, eligible, count):
    """Return bool [b, n]: `count` places of each picture drawn from its own seed, at most half of them positives."""
    n = positive.shape[1]
    noise = tf.map_fn(lambda seed: tf.random.stateless_uniform([n], seed), seeds, fn_output_signature=tf.float32)

    def first(mask, most):
        rank = tf.argsort(tf.argsort(tf.where(mask, noise, 2.0), stable=True), stable=True)
        return mask & (rank < most)

    chosen = first(positive & eligible, count // 2)
    left = count - tf.reduce_sum(tf.cast(chosen, tf.int32), 1, keepdims=True)
    return chosen | first(~positive & eligible, left)


@dataclass(frozen=True)
class TwoStages(Head):
    """Proposals at one stride; for each, its class and a box for every class from what is cut out there.

    Where it `takes_rest`, what is cut out goes through the rest of the backbone first (the C4 form).
    """

    takes_rest: bool = False
    proposals: int = 16
    anchors_sampled: int = 24
    proposals_sampled: int = 12

    def select(self, backbone):
        return choose_taps(backbone.taps, (8,), "two_stages")

    def build(self, taps, classes, size, rest=None):
        (height, width, channels, stride), image = taps[0], keras.Input(taps[0][:3])
        x = keras.layers.GroupNormalization(4, name="norm")(image)
        x = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="conv")(x)
        x = keras.layers.Conv2D(3 * 5, 1, dtype="float32", name="proposals")(x)
        first = keras.Model(image, keras.ops.reshape(x, (-1, height * width * 3, 5)), name="first_stage")
        crop = (CROP, CROP, channels)
        cut_out = keras.Input(rest.compute_output_shape((None, *crop))[1:] if rest else crop)
        x = keras.layers.GroupNormalization(4, name="norm")(cut_out)
        x = keras.layers.Dense(48, activation="relu", name="dense")(keras.layers.Flatten()(x))
        x = keras.layers.Dense(classes + 1 + 4 * classes, dtype="float32", name="out")(x)
        second = keras.Model(cut_out, x, name="second_stage")
        cells = locations(taps, size)
        centres = np.repeat(cells.centres, len(SHAPES), 0)
        half = np.tile(SHAPES, (height * width, 1)) * stride / 2
        starts = Locations(
            centres, np.repeat(cells.strides, len(SHAPES)), np.concatenate([centres - half, centres + half], 1)
        )
        return BuiltTwoStages(self, first, second, rest, starts, size, classes)


@dataclass(frozen=True, eq=False)
class BuiltTwoStages(BuiltHead):
    settings: TwoStages
    first: Any
    second: Any
    rest: Any
    locations: Locations
    size: tuple[int, int]
    classes: int

    loss_groups: ClassVar = (("objectness", "proposals"), ("classes", "boxes"))

    @property
    def parts(self):
        return (self.first, self.second)

    def forward(self, taps, targets=None, training=False, seeds=None):
        found = self.first(taps[0], training=training)
        outputs = {"offsets": found[..., :4], "objectness": found[..., 4]}
        proposals = self.propose(outputs)
        if training:
            outputs["anchors_sampled"], proposals, outputs["counts"] = self.draw(proposals, targets, seeds)
        outputs["starts"] = proposals
        return outputs | self.look_closer(taps[0], proposals, training)

    def propose(self, outputs):
        height, width = self.size
        boxes = decode(self.locations.anchors, tf.clip_by_value(outputs["offsets"], -6.0, 6.0))
        boxes = tf.clip_by_value(boxes, 0.0, [width, height, width, height])
        scores, best = tf.math.top_k(outputs["objectness"], 3 * self.settings.proposals)
        boxes = tf.gather(boxes, best, batch_dims=1)
        kept = geometry.suppress(boxes, tf.zeros_like(best), 0.7)
        _, best = tf.math.top_k(tf.where(kept, scores, scores - 1e6), self.settings.proposals)
        return tf.stop_gradient(tf.gather(boxes, best, batch_dims=1))

    def draw(self, proposals, targets, seeds):
        """Return which anchors learn, and the proposals that do, true boxes among them, each with whether it counts."""
        found = ByOverlap()(self.locations, targets, self.classes)
        everywhere = tf.ones_like(found.positive)
        anchors = sample(seeds, found.positive, everywhere, self.settings.anchors_sampled)
        candidates = tf.concat([targets["boxes"], proposals], 1)
        found = ByOverlap()(self.locations, targets, self.classes, {"boxes": candidates})
        count = self.settings.proposals_sampled
        counts = sample(seeds + tf.constant([[0, 7919]]), found.positive, geometry.area(candidates) > 1, count)
        # Those that count come first.
        counts, best = tf.math.top_k(tf.cast(counts, tf.float32), count)
        return anchors, tf.gather(candidates, best, batch_dims=1), counts

    def look_closer(self, features, proposals, training):
        count, (height, width) = proposals.shape[1], self.size
        pictures = tf.repeat(tf.range(tf.shape(proposals)[0]), count)
        corners = tf.reshape(proposals, [-1, 4]) / [width, height, width, height]
        cut_out = tf.image.crop_and_resize(
            tf.cast(features, tf.float32), tf.gather(corners, [1, 0, 3, 2], axis=1), pictures, (CROP, CROP)
        )
        if self.rest:
            cut_out = self.rest(cut_out, training=training)
        found = self.second(cut_out, training=training)
        logits = tf.reshape(found[:, : self.classes + 1], [-1, count, self.classes + 1])
        return {
            "logits": logits,
            "class_offsets": tf.reshape(found[:, self.classes + 1 :], [-1, count, self.classes, 4]),
        }

    def losses(self, outputs, targets):
        found = ByOverlap()(self.locations, targets, self.classes)
        learnt = tf.cast(outputs.get("anchors_sampled", tf.ones_like(found.positive)), tf.float32)
        positive = tf.cast(found.positive, tf.float32)
        objectness = tf.nn.sigmoid_cross_entropy_with_logits(positive, outputs["objectness"])
        wanted = self.wanted(self.locations.anchors, found, targets)
        offsets = smooth_l1(outputs["offsets"] - wanted) * positive
        first = tf.reduce_sum(learnt, 1)

        starts = outputs["starts"]
        found = ByOverlap()(self.locations, targets, self.classes, {"boxes": starts})
        counts = outputs.get("counts", tf.ones(tf.shape(starts)[:2]))
        labels = tf.where(found.positive, tf.gather(targets["labels"], found.chosen, batch_dims=1) + 1, 0)
        classes = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs["logits"])
        own = tf.gather(outputs["class_offsets"], tf.maximum(labels - 1, 0), batch_dims=2)
        boxes = smooth_l1(own - self.wanted(starts, found, targets)) * tf.cast(found.positive, tf.float32)
        second = tf.reduce_sum(counts, 1)
        return {
            "objectness": (tf.reduce_sum(objectness * learnt, 1), first),
            "proposals": (tf.reduce_sum(offsets * learnt, 1), first),
            "classes": (tf.reduce_sum(classes * counts, 1), second),
            "boxes": (tf.reduce_sum(boxes * counts, 1), second),
        }

    def wanted(self, starts, found, targets):
        true = tf.gather(targets["boxes"], found.chosen, batch_dims=1)
        starts = tf.broadcast_to(starts, tf.shape(true))
        # Whatever has no size has no logarithm.
        sound = found.positive[..., None] & (geometry.area(starts) > 1)[..., None]
        anywhere = tf.constant([0.0, 0.0, 1.0, 1.0])
        return tf.where(sound, encode(tf.where(sound, starts, anywhere), tf.where(sound, true, anywhere)), 0.0)

    def predict(self, outputs):
        starts, offsets = outputs["starts"], outputs["class_offsets"]
        repeated = tf.repeat(starts, self.classes, axis=1)
        boxes = decode(repeated, tf.reshape(offsets, tf.shape(repeated)))
        return {
            "boxes": tf.reshape(boxes, tf.shape(offsets)),
            "scores": tf.nn.softmax(outputs["logits"])[..., 1:],
        }

    def postprocess(self, dense):
        return Suppression(20, 0.01, 0.5)(dense)


HEADS = [TwoStages(), TwoStages(takes_rest=True)]
C4 = HEADS[1]


@pytest.mark.parametrize("head", HEADS, ids=["own layers", "rest of the backbone"])
def test_it_learns_to_find_what_is_drawn_and_comes_back(head, taught, assert_found, assert_comes_back):
    made, dataset = taught(head)
    assert_found(made, dataset)
    assert_comes_back(made, head, dataset)


# The tiny backbone's last layer has no BatchNorm, whose statistics would be a micro-batch's.
@pytest.mark.parametrize(
    ("head", "policy"), [(HEADS[0], policies.backbone()), (C4, policies.last_layers(1))], ids=["own", "rest"]
)
def test_micro_batches_give_the_same_update(head, policy, assert_same_in_parts):
    assert_same_in_parts(head, policy)


def test_samples_come_from_the_seeds(updated):
    head = HEADS[0]
    one, again, other = (updated(head, 6, policies.backbone(), shift)[0] for shift in (0, 0, 1000))
    assert one == again
    assert one["loss/objectness"] != other["loss/objectness"]


def test_half_of_a_sample_are_positives_where_there_are_as_many():
    positive = tf.constant([[True] * 2 + [False] * 18, [True] * 15 + [False] * 5])
    eligible = tf.constant([[True] * 20, [True] * 18 + [False] * 2])
    drawn = sample(tf.constant([[1, 0], [1, 1]]), positive, eligible, 8)
    assert np.sum(positive & drawn, 1).tolist() == [2, 4]
    assert np.sum(drawn, 1).tolist() == [8, 7]
    assert not tf.reduce_any(drawn & ~eligible)


def test_evaluation_needs_no_seeds_and_gives_the_boxes_of_every_class(draw, assemble, part):
    made = assemble(draw(2), policies.backbone(), head=HEADS[0])
    inputs, targets, _ = part(next(iter(made.source.batches([Unit(0), Unit(1)], 2))))
    outputs, found = losses_of(made.detector, made.cut, made.source.encode(inputs), targets, training=False)
    assert outputs["starts"].shape == (2, 16, 4)
    assert found["classes"][1].numpy().tolist() == [16, 16]
    assert all(np.isfinite(total.numpy()).all() for total, _ in found.values())
    dense = made.detector.head.predict(outputs)
    assert (dense["boxes"].shape, dense["scores"].shape) == ((2, 16, 2, 4), (2, 16, 2))


def detector_of(head, backbone):
    keras.utils.set_random_seed(0)
    return build(backbone, head, ("a", "b"), (64, 64))


def test_a_freeze_policy_counts_the_rest_of_the_backbone(tiny):
    without, full = (detector_of(head, tiny()) for head in HEADS)
    counts = [[ly.name for ly in weight_layers(one.backbone, one.blocks)] for one in (without, full)]
    assert counts[0] == ["stem_conv", "block1_a", "block1_b", "block2_a", "block2_b"]
    assert counts[1] == [*counts[0], "block3_left", "block3_right", "block4_a", "block4_b"]
    names = [ly.name for ly in full.network.layers]
    assert "block2_add" in names
    assert "block3_left" not in names


def test_the_rest_is_frozen_or_trains_as_the_policy_says(draw, assemble, part, arrays):
    made = assemble(draw(2), policies.last_layers(1), Fit(backbone_rate=1.0, weight_decay=0.0), head=C4)
    # All of what comes before the crops is frozen, so that it is computed once.
    assert (made.source.cached, made.cut.suffix) == (True, None)
    head = {id(v) for v in made.detector.head_variables}
    trains = [v for v in made.learner.variables if id(v) not in head]
    last = made.detector.backbone.get_layer("block4_b")
    assert {id(v) for v in trains} == {id(v) for v in last.weights}
    before = arrays(last.weights)
    made.learner.update([part(next(iter(made.source.batches([Unit(0), Unit(1)], 2))))], 1e-2)
    assert all((a != b).any() for a, b in zip(before, arrays(last.weights), strict=True))
    made.frozen.verify()
    # What is proven to be frozen includes what the head took over.
    made.detector.backbone.get_layer("block3_left").kernel.assign_add(1e-3 + 0 * before[0][:1, :1, :1, :1])
    with pytest.raises(ModelError, match="frozen weights changed"):
        made.frozen.verify()


def test_a_policy_for_more_layers_than_there_are_counts_the_rest(tiny):
    full = detector_of(C4, tiny())
    layers = weight_layers(full.backbone, full.blocks)
    freeze.apply(policies.last_layers(9), full.backbone, layers)
    with pytest.raises(MisfitError, match="the backbone has 9 weight layers"):
        freeze.apply(policies.last_layers(10), full.backbone, layers)


def test_the_rest_keeps_its_pretrained_weights(tiny):
    backbone = tiny()
    keras.utils.set_random_seed(3)
    base, _ = backbone.build((64, 64))
    full = build(replace(backbone, build=lambda size, pretrained=True: (base, None)), C4, ("a", "b"), (64, 64))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    rest = full.head.rest
    np.testing.assert_array_equal(rest(full.network(pictures)).numpy(), base(pictures).numpy())
    assert {id(v) for v in rest.variables} <= {id(v) for v in full.model.variables}


def test_a_backbone_that_cannot_be_split_there_is_refused(tiny):
    backbone = tiny()
    inner = replace(backbone.taps[0], layer="block2_b_relu")
    with pytest.raises(ModelError, match="cannot be split after block2_b_relu"):
        detector_of(C4, replace(backbone, taps=(inner, *backbone.taps[1:])))

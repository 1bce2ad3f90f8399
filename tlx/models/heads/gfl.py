"""A detector head whose boxes are distributions, learnt by the locations that predict them best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tlx.errors import MisfitError, refuse_values
from tlx.lazy import keras, tf
from tlx.models import boxes as geometry
from tlx.models.assign import Assigner, Assignment, Locations
from tlx.models.assigners.task_aligned import TaskAligned
from tlx.models.backbone import Backbone, Form, Tap, choose_taps
from tlx.models.head import BuiltHead, Head, Losses, Size, TapShape, Tensors
from tlx.models.postprocess import Suppression
from tlx.models.pyramid import locations, output, pyramid, score_bias, tower
from tlx.registry import heads


@heads.register("gfl")
@dataclass(frozen=True)
class Gfl(Head):
    """Generalized focal loss: each side of a box is a distribution, and a score says how well its box fits.

    `channels` is the width of pyramid and tower, a multiple of 8, `depth` the number of convolutions in the tower, and
    `strides` the backbone taps that are used, finest first. `taps` is their form: "ends" of blocks, which are narrow
    and quick, or "expanded", the widest activations, whose features take several times the room where the two differ;
    without it, the backbone's own. A side is the mean of a softmax over 0, 1, ... `bins` strides; twice as many of the
    coarsest strides must be as long as the input.

    `assigner` says which locations learn an object. `box_weight` weighs the GIoU loss of boxes, and
    `distribution_weight` the distribution focal loss, beside the quality focal loss of scores. Detections are at most
    `max_detections` of a picture, none scored under `min_score`, and none of a class overlapping a better one by more
    than `nms` IoU. The box of each is the mean, by score and overlap, of those of its class that overlap it by more
    than `voting` IoU; `voting = 1` leaves boxes as they are.

    Sources: Li et al., Generalized Focal Loss, NeurIPS 2020; Feng et al., TOOD, ICCV 2021; Kim and Lee, Probabilistic
    Anchor Assignment, ECCV 2020, for the voting; Lin et al., Feature Pyramid Networks, CVPR 2017.
    """

    channels: int = 128
    depth: int = 3
    strides: tuple[int, ...] = (8, 16, 32)
    taps: Form | None = None
    bins: int = 16
    assigner: Assigner = TaskAligned()
    box_weight: float = 2.0
    distribution_weight: float = 0.5
    max_detections: int = 100
    min_score: float = 0.01
    nms: float = 0.55
    voting: float = 0.6

    def __post_init__(self):
        sound = {
            "channels": self.channels >= 8 and self.channels % 8 == 0,
            "depth": self.depth >= 0,
            "strides": len(self.strides) > 0 and list(self.strides) == sorted(set(self.strides)),
            "bins": self.bins >= 4,
            "box_weight": self.box_weight > 0,
            "distribution_weight": self.distribution_weight >= 0,
            "max_detections": self.max_detections >= 1,
            "min_score": 0 <= self.min_score < 1,
            "nms": 0 < self.nms <= 1,
            "voting": 0 < self.voting <= 1,
        }
        refuse_values("heads.gfl", self, sound)

    def select(self, backbone: Backbone) -> tuple[Tap, ...]:
        return choose_taps(backbone.taps, self.strides, "heads.gfl.strides", self.taps)

    def refuse_size(self, size: Size) -> None:
        if max(size) > (longest := 2 * self.bins * self.strides[-1]):
            least = -(-max(size) // (2 * self.strides[-1]))
            raise MisfitError(
                f"heads.gfl.bins = {self.bins} makes boxes of up to {longest} pixels, and the input has {max(size)}:"
                f" give at least heads.gfl.bins = {least}"
            )

    def build(self, taps: Sequence[TapShape], classes: int, size: Size) -> "BuiltGfl":
        return BuiltGfl(self, self._network(taps, classes), locations(taps, size))

    def _network(self, shapes: Sequence[TapShape], classes: int) -> Any:
        """Return a `keras.Model` from taps [b, h, w, c] to (logits [b, n, classes], sides [b, n, 4 * (bins + 1)]).

        The n locations are those of all taps, finest first, row by row.
        """
        taps = [keras.Input(shape[:3]) for shape in shapes]
        # Scores and boxes share their tower.
        inputs = keras.Input((None, None, self.channels))
        x = tower(inputs, self.depth, self.channels)
        places = np.arange(self.bins + 1)
        # Every side begins as a bell around three strides.
        sides = output(x, "boxes", 4 * len(places), np.tile(-((places - 3.0) ** 2) / 8, 4))
        towers = keras.Model(inputs, [output(x, "scores", classes, score_bias()), sides])
        levels = [towers(level) for level in pyramid(taps, self.strides, self.channels)]
        flat = [[keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3])) for x in level] for level in levels]
        return keras.Model(
            taps, [keras.ops.concatenate(parts, axis=1) for parts in zip(*flat, strict=True)], name="gfl"
        )


@dataclass(frozen=True, eq=False)
class BuiltGfl(BuiltHead):
    """A `Gfl` with its network, a `keras.Model`, and the locations of all its levels, finest first."""

    settings: Gfl
    network: Any
    locations: Locations

    loss_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("scores", "boxes", "distribution"),)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.network,)

    def forward(
        self, taps: Sequence[Any], targets: Tensors | None = None, training: bool = False, seeds: Any = None
    ) -> Tensors:
        """Return logits [b, n, classes] and those of the sides' places [b, n, 4, bins + 1]."""
        logits, sides = self.network(list(taps), training=training)
        return {"logits": logits, "sides": tf.reshape(sides, [-1, sides.shape[1], 4, self.settings.bins + 1])}

    def _boxes(self, sides: Any, centres: Any, strides: Any) -> Any:
        """Return boxes [..., 4] in input pixels of the sides' logits [..., 4, bins + 1] at locations [..., 2]."""
        places = np.arange(self.settings.bins + 1, dtype=np.float32)
        return geometry.from_distances(centres, tf.linalg.matvec(tf.nn.softmax(sides), places) * strides[..., None])

    def losses(self, outputs: Tensors, targets: Tensors) -> Losses:
        logits, sides, settings = outputs["logits"], outputs["sides"], self.settings
        centres, strides, classes = self.locations.centres, self.locations.strides, logits.shape[-1]
        present = {
            "boxes": self._boxes(tf.stop_gradient(sides), centres, strides),
            "scores": tf.stop_gradient(tf.sigmoid(logits)),
        }
        found = settings.assigner(self.locations, targets, classes, present)
        true_boxes = tf.gather(targets["boxes"], found.chosen, batch_dims=1)
        quality, weight = _worth(found, present["boxes"], true_boxes)
        labels = tf.where(found.positive, tf.gather(targets["labels"], found.chosen, batch_dims=1), -1)
        wanted = tf.one_hot(labels, classes) * quality[..., None]
        loss = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits) * tf.abs(wanted - tf.sigmoid(logits)) ** 2
        # One location in a hundred learns a box: all others are left out, which takes a third off an update.
        at = tf.where(found.positive)
        which, place = at[:, 0], at[:, 1]
        sides, true_boxes, own = (tf.gather_nd(array, at) for array in (sides, true_boxes, weight))
        centres, strides = tf.gather(centres, place), tf.gather(strides, place)
        apart = 1 - geometry.giou(self._boxes(sides, centres, strides), true_boxes)
        spread = self._distribution(sides, true_boxes, centres, strides)

        def each(values: Any, factor: float) -> Any:
            return tf.math.unsorted_segment_sum(values * own * factor, which, tf.shape(logits)[0])

        total = tf.reduce_sum(weight, 1)
        return {
            "scores": (tf.reduce_sum(loss * found.counted, [1, 2]), total),
            "boxes": (each(apart, settings.box_weight), total),
            "distribution": (each(spread, settings.distribution_weight), total),
        }

    def _distribution(self, sides: Any, true_boxes: Any, centres: Any, strides: Any) -> Any:
        """Return the distribution focal loss [k]: the mean over sides, each between the two places next to it."""
        true = tf.concat([centres - true_boxes[..., :2], true_boxes[..., 2:] - centres], -1) / strides[:, None]
        true = tf.clip_by_value(true, 0.0, self.settings.bins - 1e-3)
        left = tf.floor(true)
        share, place = true - left, tf.cast(left, tf.int32)
        lower = tf.nn.sparse_softmax_cross_entropy_with_logits(place, sides)
        upper = tf.nn.sparse_softmax_cross_entropy_with_logits(place + 1, sides)
        return tf.reduce_mean((1 - share) * lower + share * upper, -1)

    def predict(self, outputs: Tensors) -> Tensors:
        """Return boxes [b, n, 1, 4] in input pixels and scores [b, n, classes] in 0..1."""
        boxes = self._boxes(outputs["sides"], self.locations.centres, self.locations.strides)
        return {"boxes": boxes[:, :, None], "scores": tf.sigmoid(outputs["logits"])}

    def postprocess(self, dense: Tensors) -> Tensors:
        settings = self.settings
        return Suppression(settings.max_detections, settings.min_score, settings.nms, settings.voting)(dense)


def _worth(found: Assignment, boxes: Any, true_boxes: Any) -> tuple[Any, Any]:
    """Return the score that each location is to learn and the weight of its box, [b, n] each."""
    positive = tf.cast(found.positive, tf.float32)
    if found.quality is not None:
        return found.quality, found.quality
    return geometry.iou(boxes, true_boxes) * positive, positive

"""An anchor-free detector head: a feature pyramid and, at every location, class scores and a box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tlx.errors import refuse_values
from tlx.lazy import keras, tf
from tlx.models import boxes as geometry
from tlx.models.assign import Locations
from tlx.models.assigners.centre_sampling import CentreSampling
from tlx.models.backbone import Backbone, Form, Tap, choose_taps
from tlx.models.head import BuiltHead, Head, Losses, Size, TapShape, Tensors
from tlx.models.postprocess import Suppression
from tlx.models.pyramid import locations, output, pyramid, score_bias, tower
from tlx.registry import heads


@heads.register("fcos")
@dataclass(frozen=True)
class Fcos(Head):
    """FCOS with a quality focal loss for scores and a GIoU loss for boxes, over a feature pyramid.

    `channels` is the width of pyramid and tower, a multiple of 8, `depth` the number of convolutions in the tower, and
    `strides` the backbone taps that are used, finest first. `taps` is their form: "ends" of blocks, which are narrow
    and quick, or "expanded", the widest activations, whose features take several times the room where the two differ;
    without it, the backbone's own. `radius` is how far from an object's centre, in strides, a
    location may be and still learn it. Detections are at most `max_detections` for each image, none
    scored under `min_score`, and none of a class overlapping another by more than `nms` IoU.

    Sources: Tian et al., FCOS, ICCV 2019; Li et al., Generalized Focal Loss, NeurIPS 2020; Lin et al.,
    Feature Pyramid Networks, CVPR 2017.
    """

    channels: int = 64
    depth: int = 1
    strides: tuple[int, ...] = (8, 16, 32)
    taps: Form | None = None
    radius: float = 1.5
    box_weight: float = 2.0
    max_detections: int = 100
    min_score: float = 0.01
    nms: float = 0.5

    def __post_init__(self):
        sound = {
            "channels": self.channels >= 8 and self.channels % 8 == 0,
            "depth": self.depth >= 0,
            "strides": len(self.strides) > 0 and list(self.strides) == sorted(set(self.strides)),
            "radius": self.radius > 0,
            "box_weight": self.box_weight > 0,
            "max_detections": self.max_detections >= 1,
            "min_score": 0 <= self.min_score < 1,
            "nms": 0 < self.nms <= 1,
        }
        refuse_values("heads.fcos", self, sound)

    def select(self, backbone: Backbone) -> tuple[Tap, ...]:
        return choose_taps(backbone.taps, self.strides, "heads.fcos.strides", self.taps)

    def build(self, taps: Sequence[TapShape], classes: int, size: Size) -> "BuiltFcos":
        return BuiltFcos(self, self._network(taps, classes), locations(taps, size))

    def _network(self, shapes: Sequence[TapShape], classes: int) -> Any:
        """Return a `keras.Model` from taps [b, h, w, c] to (logits [b, n, classes], distances [b, n, 4]).

        The n locations are those of all taps, finest first, row by row; distances are in pixels.
        """
        taps = [keras.Input(shape[:3]) for shape in shapes]
        towers = self._tower(classes)
        logits, distances = [], []
        for level, stride in zip(pyramid(taps, self.strides, self.channels), self.strides, strict=True):
            h, w = level.shape[1:3]
            scores, sides = towers(level)
            logits.append(keras.ops.reshape(scores, (-1, h * w, classes)))
            # An object starts as three strides to each side; the bounds keep a first bad step from overflowing.
            sides = 3.0 * stride * keras.ops.exp(keras.ops.clip(sides, -5, 5))
            distances.append(keras.ops.reshape(sides, (-1, h * w, 4)))
        outputs = [keras.ops.concatenate(logits, axis=1), keras.ops.concatenate(distances, axis=1)]
        return keras.Model(taps, outputs, name="fcos")

    def _tower(self, classes: int) -> Any:
        # Scores and boxes share their tower: two would cost a third more time and gain nothing measurable.
        inputs = keras.Input((None, None, self.channels))
        x = tower(inputs, self.depth, self.channels)
        return keras.Model(inputs, [output(x, "scores", classes, score_bias()), output(x, "boxes", 4, 0.0)])


@dataclass(frozen=True, eq=False)
class BuiltFcos(BuiltHead):
    """An `Fcos` with its network, a `keras.Model`, and the locations of all its levels, finest first."""

    settings: Fcos
    network: Any
    locations: Locations

    loss_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("scores", "boxes"),)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.network,)

    def forward(
        self, taps: Sequence[Any], targets: Tensors | None = None, training: bool = False, seeds: Any = None
    ) -> Tensors:
        logits, distances = self.network(list(taps), training=training)
        return {"logits": logits, "distances": distances}

    def losses(self, outputs: Tensors, targets: Tensors) -> Losses:
        logits, classes = outputs["logits"], outputs["logits"].shape[-1]
        chosen, positive, counted, _ = CentreSampling(self.settings.radius)(self.locations, targets, classes)
        true_boxes = tf.gather(targets["boxes"], chosen, batch_dims=1)
        true_labels = tf.where(positive, tf.gather(targets["labels"], chosen, batch_dims=1), -1)
        predicted = geometry.from_distances(self.locations.centres, outputs["distances"])
        weight = tf.cast(positive, tf.float32)
        quality = tf.stop_gradient(geometry.iou(predicted, true_boxes)) * weight
        wanted = tf.one_hot(true_labels, classes) * quality[..., None]
        loss = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits) * tf.abs(wanted - tf.sigmoid(logits)) ** 2
        scores = tf.reduce_sum(loss * counted, [1, 2])
        box = tf.reduce_sum((1 - geometry.giou(predicted, true_boxes)) * weight, 1) * self.settings.box_weight
        positives = tf.reduce_sum(weight, 1)
        return {"scores": (scores, positives), "boxes": (box, positives)}

    def predict(self, outputs: Tensors) -> Tensors:
        """Return boxes [b, n, 1, 4] in input pixels and scores [b, n, classes] in 0..1."""
        boxes = geometry.from_distances(self.locations.centres, outputs["distances"])
        return {"boxes": boxes[:, :, None], "scores": tf.sigmoid(outputs["logits"])}

    def postprocess(self, dense: Tensors) -> Tensors:
        return Suppression(self.settings.max_detections, self.settings.min_score, self.settings.nms)(dense)

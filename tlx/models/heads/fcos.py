"""An anchor-free detector head: a feature pyramid and, at every location, class scores and a box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from tlx.errors import refuse_values
from tlx.lazy import keras, tf
from tlx.models import boxes as geometry
from tlx.models.assign import CentreSampling, Locations
from tlx.models.backbone import Backbone, Form, Tap, choose_taps
from tlx.models.head import BuiltHead, Head, Losses, Size, TapShape, Tensors
from tlx.models.postprocess import Suppression
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
        tower = self._tower(classes)
        logits, distances = [], []
        for level, stride in zip(self._pyramid(taps), self.strides, strict=True):
            h, w = level.shape[1:3]
            scores, sides = tower(level)
            logits.append(keras.ops.reshape(scores, (-1, h * w, classes)))
            # An object starts as three strides to each side; the bounds keep a first bad step from overflowing.
            sides = 3.0 * stride * keras.ops.exp(keras.ops.clip(sides, -5, 5))
            distances.append(keras.ops.reshape(sides, (-1, h * w, 4)))
        outputs = [keras.ops.concatenate(logits, axis=1), keras.ops.concatenate(distances, axis=1)]
        return keras.Model(taps, outputs, name="fcos")

    def _pyramid(self, taps: Sequence[Any]) -> list[Any]:
        merged: list[Any] = []
        for tap, stride in reversed(list(zip(taps, self.strides, strict=True))):
            level = keras.layers.Conv2D(self.channels, 1, name=f"lateral_{stride}")(tap)
            # Backbones differ a hundredfold in the size of their activations; here that ends.
            level = keras.layers.GroupNormalization(self.channels // 8, name=f"lateral_{stride}_norm")(level)
            if merged:
                level = level + keras.ops.image.resize(merged[0], level.shape[1:3], interpolation="nearest")
            merged.insert(0, level)
        return [self._convolved(level, f"smooth_{s}") for level, s in zip(merged, self.strides, strict=True)]

    def _tower(self, classes: int) -> Any:
        # Scores and boxes share their tower: two would cost a third more time and gain nothing measurable.
        x = inputs = keras.Input((None, None, self.channels))
        for i in range(self.depth):
            x = self._convolved(x, f"tower_{i}")
        # One location in a hundred is an object before anything is learnt (Lin et al., Focal Loss, 2017).
        return keras.Model(
            inputs, [self._output(x, "scores", classes, -np.log(99.0)), self._output(x, "boxes", 4, 0.0)]
        )

    def _output(self, x: Any, name: str, channels: int, bias: float) -> Any:
        weak = keras.initializers.RandomNormal(stddev=0.01)
        # In half precision a distance of 100 pixels would be off by a half.
        return _separable(x, name, channels, weak, keras.initializers.Constant(bias), dtype="float32")

    def _convolved(self, x: Any, name: str) -> Any:
        return keras.ops.relu(_separable(x, name, self.channels, "he_normal", "zeros"))


def locations(taps: Sequence[TapShape], size: Size) -> Locations:
    """Return the places that a head looks from: one at the centre of each cell of each tap, in input pixels."""
    centres, strides = [], []
    for h, w, _, stride in taps:
        x, y = (np.arange(w) + 0.5) * size[1] / w, (np.arange(h) + 0.5) * size[0] / h
        centres.append(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
        strides.append(np.full(h * w, stride))
    return Locations(np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32))


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
        chosen, positive, counted = CentreSampling(self.settings.radius)(self.locations, targets, classes)
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


def _separable(x: Any, name: str, channels: int, pointwise: Any, bias: Any, dtype: str | None = None) -> Any:
    """Return a 3x3 convolution of `x`; a separable one takes a third of a dense one's time on a CPU."""
    layer = keras.layers.SeparableConv2D(
        channels,
        3,
        padding="same",
        # Keras counts all channels as a depthwise kernel's inputs, so its default would shrink what passes eightfold.
        depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / 3),
        pointwise_initializer=pointwise,
        bias_initializer=bias,
        dtype=dtype,
        name=name,
    )
    return layer(x)

"""An anchor-free detector head: a feature pyramid and, at every location, class scores and a box."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlx.data.dataset import ANY_CLASS
from tlx.errors import refuse_values
from tlx.lazy import keras, tf
from tlx.models import boxes as geometry
from tlx.models.head import Grid, Head, Size
from tlx.registry import heads


@heads.register("fcos")
@dataclass(frozen=True)
class Fcos(Head):
    """FCOS with a quality focal loss for scores and a GIoU loss for boxes, over a feature pyramid.

    `channels` is the width of pyramid and tower, a multiple of 8, `depth` the number of convolutions in the tower, and
    `strides` the backbone taps that are used, finest first. `radius` is how far from an object's centre, in strides, a
    location may be and still learn it. Detections are at most `max_detections` for each image, none
    scored under `min_score`, and none of a class overlapping another by more than `nms` IoU.

    Sources: Tian et al., FCOS, ICCV 2019; Li et al., Generalized Focal Loss, NeurIPS 2020; Lin et al.,
    Feature Pyramid Networks, CVPR 2017.
    """

    channels: int = 64
    depth: int = 1
    strides: tuple[int, ...] = (8, 16, 32)
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

    def build(self, shapes: Sequence[tuple[int, int, int]], classes: int) -> Any:
        """Return a `keras.Model` from taps [b, h, w, c] to (logits [b, n, classes], distances [b, n, 4]).

        The n locations are those of all taps, finest first, row by row; distances are in pixels.
        """
        taps = [keras.Input(shape) for shape in shapes]
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

    def grid(self, shapes: Sequence[tuple[int, int, int]], size: Size) -> Grid:
        centres, strides = [], []
        for (h, w, _), stride in zip(shapes, self.strides, strict=True):
            x, y = (np.arange(w) + 0.5) * size[1] / w, (np.arange(h) + 0.5) * size[0] / h
            centres.append(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
            strides.append(np.full(h * w, stride))
        return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)

    def losses(self, outputs: Any, targets: Any, grid: Grid) -> tuple[Any, Any, Any]:
        (logits, distances), (boxes, labels, ignore) = outputs, targets
        chosen, positive, inside = self._assign(boxes, labels, ignore, grid)
        true_boxes = tf.gather(boxes, chosen, batch_dims=1)
        true_labels = tf.where(positive, tf.gather(labels, chosen, batch_dims=1), -1)
        predicted = geometry.from_distances(grid[0], distances)
        weight = tf.cast(positive, tf.float32)
        quality = tf.stop_gradient(geometry.iou(predicted, true_boxes)) * weight
        wanted = tf.one_hot(true_labels, logits.shape[-1]) * quality[..., None]
        loss = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits) * tf.abs(wanted - tf.sigmoid(logits)) ** 2
        counted = self._counted(true_labels, labels, ignore, inside, logits.shape[-1])
        scores = tf.reduce_sum(loss * counted, [1, 2])
        box = tf.reduce_sum((1 - geometry.giou(predicted, true_boxes)) * weight, 1) * self.box_weight
        return scores, box, tf.reduce_sum(weight, 1)

    def _assign(self, boxes: Any, labels: Any, ignore: Any, grid: Grid) -> tuple[Any, Any, Any]:
        """Give each location the smallest object that it may learn.

        Returns its index [b, n], whether there is one [b, n], and which boxes each location is inside of [b, n, m].
        """
        centres, strides = grid
        # Side by side instead of as one tensor [b, n, m, 4], whose reductions would take half the loss's time.
        x_min, y_min, x_max, y_max = (side[:, None] for side in tf.unstack(boxes, axis=-1))
        left, right = centres[:, :1] - x_min, x_max - centres[:, :1]
        top, bottom = centres[:, 1:] - y_min, y_max - centres[:, 1:]
        inner = tf.minimum(tf.minimum(left, right), tf.minimum(top, bottom))
        reach = tf.maximum(tf.maximum(left, right), tf.maximum(top, bottom)) / strides[:, None]
        off = tf.maximum(tf.abs(left - right), tf.abs(top - bottom)) / 2
        finest, coarsest = strides == min(self.strides), strides == max(self.strides)
        large_enough = (reach > 4) | finest[:, None]
        small_enough = (reach <= 8) | coarsest[:, None]
        real = ((labels >= 0) & ~ignore)[:, None]
        near = off < self.radius * strides[:, None]
        fits = (inner > 0) & near & large_enough & small_enough & real
        # An object that slips between all locations is learnt by the nearest one, or it would count as background.
        nearest = tf.one_hot(tf.argmin(off, 1), len(strides), True, False, axis=1, dtype=tf.bool)
        fits |= nearest & real & ~tf.reduce_any(fits, 1, keepdims=True)
        cost = tf.where(fits, geometry.area(boxes)[:, None], np.inf)
        return tf.argmin(cost, -1, tf.int32), tf.reduce_any(fits, -1), inner > 0

    def _counted(self, true_labels: Any, labels: Any, ignore: Any, inside: Any, classes: int) -> Any:
        """Return 0 where a class's score at a location lies in an ignore region, and 1 elsewhere: [b, n, classes]."""
        spared = tf.one_hot(labels, classes) + tf.cast(labels == ANY_CLASS, tf.float32)[..., None]
        spared *= tf.cast(ignore, tf.float32)[..., None]
        hidden = tf.cast(inside, tf.float32) @ spared > 0
        return tf.cast(~hidden | (true_labels >= 0)[..., None], tf.float32)

    def decode(self, outputs: Any, grid: Grid) -> tuple[Any, Any, Any]:
        logits, distances = outputs
        locations, classes = logits.shape[1:]
        # In a crowd each object is found from several places; none of them may push another object out.
        candidates = min(6 * self.max_detections, locations * classes)
        scores, index = tf.math.top_k(tf.reshape(tf.sigmoid(logits), [-1, locations * classes]), candidates)
        boxes = tf.gather(geometry.from_distances(grid[0], distances), index // classes, batch_dims=1)
        labels = index % classes
        kept = geometry.suppress(boxes, labels, self.nms) & (scores >= self.min_score)
        scores, best = tf.math.top_k(tf.where(kept, scores, 0.0), min(self.max_detections, candidates))
        return tf.gather(boxes, best, batch_dims=1), scores, tf.gather(labels, best, batch_dims=1)


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

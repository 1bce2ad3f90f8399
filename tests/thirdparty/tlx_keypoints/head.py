"""A head that finds objects and their points from every location."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tlx.errors import ModelError, refuse_values
from tlx.lazy import keras, tf
from tlx.models import boxes as geometry
from tlx.models.assign import Locations
from tlx.models.assigners.centre_sampling import CentreSampling
from tlx.models.backbone import choose_taps
from tlx.models.head import BuiltHead, Head
from tlx.models.postprocess import Suppression
from tlx.models.pyramid import locations
from tlx.registry import heads


@heads.register("keypoints")
@dataclass(frozen=True)
class KeypointHead(Head):
    """Class scores, a box and `points` points at every location of one tap of the backbone, at `stride`."""

    task: ClassVar[str] = "keypoints"

    points: int = 3
    stride: int = 8
    channels: int = 32

    def __post_init__(self):
        refuse_values("heads.keypoints", self, {"points": self.points >= 1, "channels": self.channels >= 8})

    def select(self, backbone):
        return choose_taps(backbone.taps, (self.stride,), "heads.keypoints.stride")

    def build(self, taps: Sequence[Any], classes: int, size: tuple[int, int]) -> "BuiltKeypointHead":
        height, width, channels, _ = taps[0]
        image = keras.Input((height, width, channels))
        x = keras.layers.GroupNormalization(8, name="norm")(
            keras.layers.Conv2D(self.channels, 3, padding="same", name="conv")(image)
        )
        out = keras.layers.Conv2D(classes + 4 + 2 * self.points, 3, padding="same", dtype="float32", name="out")
        flat = keras.ops.reshape(out(keras.ops.relu(x)), (-1, height * width, classes + 4 + 2 * self.points))
        return BuiltKeypointHead(self, keras.Model(image, flat, name="keypoints"), locations(taps, size), classes)


@dataclass(frozen=True, eq=False)
class BuiltKeypointHead(BuiltHead):
    """A `KeypointHead` with its network."""

    settings: KeypointHead
    network: Any
    locations: Locations
    classes: int

    loss_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("scores", "boxes"), ("points",))

    @property
    def parts(self):
        return (self.network,)

    def forward(self, taps, targets=None, training=False, seeds=None):
        found, classes = self.network(taps[0], training=training), self.classes
        stride = float(self.settings.stride)
        sides = 2 * stride * tf.exp(tf.clip_by_value(found[..., classes : classes + 4], -4.0, 4.0))
        offsets = tf.reshape(found[..., classes + 4 :], [-1, found.shape[1], self.settings.points, 2])
        return {
            # One location in fifty is an object before anything is learnt.
            "logits": found[..., :classes] - 4.0,
            "boxes": geometry.from_distances(self.locations.centres, sides),
            "points": self.locations.centres[:, None] + 2 * stride * offsets,
        }

    def losses(self, outputs, targets):
        if targets["points"].shape[2] != self.settings.points:
            has = targets["points"].shape[2]
            raise ModelError(f"heads.keypoints.points = {self.settings.points}: the data's objects have {has} points")
        # The assigner is that of detectors, to which no object is to be ignored.
        boxes = {**targets, "ignore": tf.zeros_like(targets["labels"], tf.bool)}
        chosen, positive, *_ = CentreSampling(1.5)(self.locations, boxes, self.classes)
        true = {name: tf.gather(array, chosen, batch_dims=1) for name, array in targets.items()}
        weight = tf.cast(positive, tf.float32)
        wanted = tf.one_hot(tf.where(positive, true["labels"], -1), self.classes)
        logits = outputs["logits"]
        scores = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits) * tf.abs(wanted - tf.sigmoid(logits))
        off = tf.reduce_sum(tf.abs(outputs["points"] - true["points"]), -1) / self.settings.stride
        seen = tf.cast(true["visible"], tf.float32) * weight[..., None]
        positives = tf.reduce_sum(weight, 1)
        overlap = (1 - geometry.giou(outputs["boxes"], true["boxes"])) * weight
        return {
            "scores": (tf.reduce_sum(scores, [1, 2]), positives),
            "boxes": (tf.reduce_sum(overlap, 1), positives),
            "points": (tf.reduce_sum(off * seen, [1, 2]), tf.reduce_sum(seen, [1, 2])),
        }

    def predict(self, outputs):
        return {
            "boxes": outputs["boxes"][:, :, None],
            "scores": tf.sigmoid(outputs["logits"]),
            "points": outputs["points"],
        }

    def postprocess(self, dense):
        return Suppression(10, 0.001, 0.5)(dense)

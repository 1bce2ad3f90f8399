"""An anchor-free detector head whose boxes are distances, learnt near the centres of objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tlx.errors import Bounds, above
from tlx.lazy import tf
from tlx.models import boxes as geometry
from tlx.models.assigners.centre_sampling import CentreSampling
from tlx.models.head import Losses, Size, TapShape, Tensors
from tlx.models.pyramid import BuiltPyramidHead, PyramidHead, level_shapes, locations, quality_focal, score_bias
from tlx.registry import heads


@heads.register("fcos")
@dataclass(frozen=True)
class Fcos(PyramidHead):
    """FCOS with a quality focal loss for scores and a GIoU loss for boxes: small and quick.

    `radius` is how far from an object's centre, in strides, a location may be and still learn it; `tlx list heads.gfl`
    says what the others are.

    Source: Tian et al., FCOS, ICCV 2019.
    """

    name: ClassVar[str] = "fcos"

    radius: float = 1.5

    @property
    def sound(self) -> dict[str, Bounds | bool | str]:
        return {**super().sound, "radius": above(0)}

    def build(self, taps: Sequence[TapShape], classes: int, size: Size) -> "BuiltFcos":
        network = self.network(taps, {"scores": (classes, score_bias()), "boxes": (4, 0.0)})
        return BuiltFcos(self, network, locations(level_shapes(taps, self.strides), size))


@dataclass(frozen=True, eq=False)
class BuiltFcos(BuiltPyramidHead):
    """An `Fcos` whose network gives logits [b, n, classes] and, of distances in strides, logarithms [b, n, 4]."""

    loss_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("scores", "boxes"),)

    def forward(
        self, taps: Sequence[Any], targets: Tensors | None = None, training: bool = False, seeds: Any = None
    ) -> Tensors:
        """Return logits [b, n, classes] and the distances of a box's sides [b, n, 4], in pixels."""
        logits, sides = self.network(list(taps), training=training)
        # An object starts as three strides to each side; the bounds keep a first bad step from overflowing.
        return {
            "logits": logits,
            "distances": 3 * self.locations.strides[:, None] * tf.exp(tf.clip_by_value(sides, -5, 5)),
        }

    def boxes(self, outputs: Tensors) -> Any:
        return geometry.from_distances(self.locations.centres, outputs["distances"])

    def losses(self, outputs: Tensors, targets: Tensors) -> Losses:
        logits, classes = outputs["logits"], outputs["logits"].shape[-1]
        found = CentreSampling(self.settings.radius)(self.locations, targets, classes)
        true_boxes = tf.gather(targets["boxes"], found.chosen, batch_dims=1)
        labels = tf.where(found.positive, tf.gather(targets["labels"], found.chosen, batch_dims=1), -1)
        predicted, weight = self.boxes(outputs), tf.cast(found.positive, tf.float32)
        quality = tf.stop_gradient(geometry.iou(predicted, true_boxes)) * weight
        wanted = tf.one_hot(labels, classes) * quality[..., None]
        scores = tf.reduce_sum(quality_focal(logits, wanted) * found.counted, [1, 2])
        box = tf.reduce_sum((1 - geometry.giou(predicted, true_boxes)) * weight, 1) * self.settings.box_weight
        positives = tf.reduce_sum(weight, 1)
        return {"scores": (scores, positives), "boxes": (box, positives)}

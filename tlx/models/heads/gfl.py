"""A detector head whose boxes are distributions, learnt by the locations that predict them best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tlx.errors import Bounds, MisfitError, above, at_least
from tlx.lazy import tf
from tlx.models import boxes as geometry
from tlx.models.assign import Assigner, Assignment
from tlx.models.assigners.task_aligned import TaskAligned
from tlx.models.head import Losses, Size, TapShape, Tensors
from tlx.models.postprocess import Suppression
from tlx.models.pyramid import BuiltPyramidHead, PyramidHead, level_shapes, locations, quality_focal, score_bias
from tlx.registry import heads


@heads.register("gfl")
@dataclass(frozen=True)
class Gfl(PyramidHead):
    """Generalized focal loss: each side of a box is a distribution, and a score says how well its box fits.

    `channels` is the width of pyramid and tower, a multiple of 8, `depth` the number of convolutions in the tower, and
    `strides` are the levels, finest first: backbone taps, and beyond the coarsest what the head makes of it, each twice
    the stride before, for objects as large as the input. `taps` is the form of the taps: "ends" of blocks, which are
    narrow and quick, or "expanded", the widest activations, whose features take several times the room where the two
    differ; without it, the backbone's own. A side is the mean of a softmax over 0, 1, ... `bins` strides, at least 4;
    twice as many of the coarsest strides must be as long as the input.

    `assigner` says which locations learn an object. `box_weight` weighs the GIoU loss of boxes, and
    `distribution_weight` the distribution focal loss, beside the quality focal loss of scores. Detections are at most
    `max_detections` of a picture, none scored under `min_score`, and none of a class overlapping a better one by more
    than `nms` IoU. The box of each is the mean, by score and overlap, of those of its class that overlap it by more
    than `voting` IoU; `voting = 1` leaves boxes as they are.

    Sources: Li et al., Generalized Focal Loss, NeurIPS 2020; Feng et al., TOOD, ICCV 2021; Kim and Lee, Probabilistic
    Anchor Assignment, ECCV 2020, for the voting; Lin et al., Feature Pyramid Networks, CVPR 2017.
    """

    name: ClassVar[str] = "gfl"

    channels: int = 128
    depth: int = 3
    nms: float = 0.55
    bins: int = 16
    assigner: Assigner = TaskAligned()
    distribution_weight: float = 0.5
    voting: float = 0.6

    @property
    def sound(self) -> dict[str, Bounds | bool | str]:
        more = {"bins": at_least(4), "distribution_weight": at_least(0)}
        return {**super().sound, **more, "voting": above(0, most=1)}

    @property
    def suppression(self) -> Suppression:
        return replace(super().suppression, voting=self.voting)

    def refuse_size(self, size: Size) -> None:
        if max(size) > (longest := 2 * self.bins * self.strides[-1]):
            least = -(-max(size) // (2 * self.strides[-1]))
            raise MisfitError(
                f"heads.gfl.bins = {self.bins} makes boxes of up to {longest} pixels, and the input has {max(size)}:"
                f" give at least heads.gfl.bins = {least}"
            )

    def build(self, taps: Sequence[TapShape], classes: int, size: Size) -> "BuiltGfl":
        places = np.arange(self.bins + 1)
        # Every side begins as a bell around three strides.
        sides = (4 * len(places), np.tile(-((places - 3.0) ** 2) / 8, 4))
        network = self.network(taps, {"scores": (classes, score_bias()), "boxes": sides})
        return BuiltGfl(self, network, locations(level_shapes(taps, self.strides), size))


@dataclass(frozen=True, eq=False)
class BuiltGfl(BuiltPyramidHead):
    """A `Gfl` whose network gives logits of scores [b, n, classes] and of sides' places [b, n, 4 * (bins + 1)]."""

    loss_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("scores", "boxes", "distribution"),)

    def forward(
        self, taps: Sequence[Any], targets: Tensors | None = None, training: bool = False, seeds: Any = None
    ) -> Tensors:
        """Return logits [b, n, classes] and those of the sides' places [b, n, 4, bins + 1]."""
        logits, sides = self.network(list(taps), training=training)
        return {"logits": logits, "sides": tf.reshape(sides, [-1, sides.shape[1], 4, self.settings.bins + 1])}

    def boxes(self, outputs: Tensors) -> Any:
        return self._boxes(outputs["sides"], self.locations.centres, self.locations.strides)

    def _boxes(self, sides: Any, centres: Any, strides: Any) -> Any:
        """Return boxes [..., 4] in input pixels of the sides' logits [..., 4, bins + 1] at locations [..., 2]."""
        places = np.arange(self.settings.bins + 1, dtype=np.float32)
        return geometry.from_distances(centres, tf.linalg.matvec(tf.nn.softmax(sides), places) * strides[..., None])

    def losses(self, outputs: Tensors, targets: Tensors) -> Losses:
        logits, sides, settings = outputs["logits"], outputs["sides"], self.settings
        centres, strides, classes = self.locations.centres, self.locations.strides, logits.shape[-1]
        present = {
            "boxes": tf.stop_gradient(self.boxes(outputs)),
            "scores": tf.stop_gradient(tf.sigmoid(logits)),
        }
        found = settings.assigner(self.locations, targets, classes, present)
        true_boxes = tf.gather(targets["boxes"], found.chosen, batch_dims=1)
        quality, weight = _worth(found, present["boxes"], true_boxes)
        labels = tf.where(found.positive, tf.gather(targets["labels"], found.chosen, batch_dims=1), -1)
        wanted = tf.one_hot(labels, classes) * quality[..., None]
        scores = tf.reduce_sum(quality_focal(logits, wanted) * found.counted, [1, 2])
        # Few locations learn a box: the time that the others would take is saved.
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
            "scores": (scores, total),
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


def _worth(found: Assignment, boxes: Any, true_boxes: Any) -> tuple[Any, Any]:
    """Return the score that each location is to learn and the weight of its box, [b, n] each."""
    positive = tf.cast(found.positive, tf.float32)
    if found.quality is not None:
        return found.quality, found.quality
    return geometry.iou(boxes, true_boxes) * positive, positive

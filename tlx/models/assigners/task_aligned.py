"""Objects go to the locations whose present predictions serve them best."""

from dataclasses import dataclass

from tlx.errors import at_least, refuse_values
from tlx.lazy import tf
from tlx.models import boxes as geometry
from tlx.models.assign import Assigner, Assignment, Locations, counted, with_nearest, within
from tlx.models.head import Tensors
from tlx.registry import assigners


@assigners.register("task_aligned")
@dataclass(frozen=True)
class TaskAligned(Assigner):
    """Each object goes to those locations inside of it that predict it best, by score and by box together.

    A location's alignment with an object is score ** `alpha` times IoU ** `beta`; the `candidates` best, with all
    that equal the last of them, learn the object, and a location that several objects want goes to the one that it
    overlaps most. The score that a location is to learn is its alignment over the object's largest, times the
    object's largest IoU.

    Source: Feng et al., TOOD: Task-aligned One-stage Object Detection, ICCV 2021.
    """

    candidates: int = 10
    alpha: float = 0.5
    beta: float = 6.0

    def __post_init__(self):
        sound = {"candidates": at_least(1), "alpha": at_least(0), "beta": at_least(0)}
        refuse_values("assigners.task_aligned", self, sound)

    def __call__(
        self, locations: Locations, targets: Tensors, classes: int, predictions: Tensors | None = None
    ) -> Assignment:
        boxes, labels, ignore = targets["boxes"], targets["labels"], targets["ignore"]
        inner, off = within(locations, boxes)
        real = ((labels >= 0) & ~ignore)[:, None]
        possible = with_nearest((inner > 0) & real, off, real)
        overlap = geometry.pairwise_iou(predictions["boxes"], boxes)
        scores = tf.gather(predictions["scores"], tf.maximum(labels, 0), axis=-1, batch_dims=1)
        # Where nothing overlaps yet, what is possible still comes before what is not.
        aligned = tf.where(possible, tf.maximum(scores**self.alpha * overlap**self.beta, 1e-30), 0.0)
        best = tf.math.top_k(tf.transpose(aligned, [0, 2, 1]), min(self.candidates, len(locations.strides)))[0]
        fits = possible & (aligned >= best[..., -1][:, None])
        chosen = tf.argmax(tf.where(fits, overlap, -1.0), -1, tf.int32)
        positive = tf.reduce_any(fits, -1)
        own = tf.cast(fits, tf.float32) * tf.one_hot(chosen, tf.shape(boxes)[1])
        most = tf.reduce_max(own * overlap, 1), tf.reduce_max(own * aligned, 1)
        scale = tf.math.divide_no_nan(*most)[:, None]
        quality = tf.reduce_sum(own * aligned * scale, -1)
        return Assignment(chosen, positive, counted(inner > 0, positive, labels, ignore, classes), quality)

"""Dense predictions become detections: thresholded, suppressed, best first."""

from dataclasses import dataclass
from typing import Any

from tlx.lazy import tf
from tlx.models import boxes as geometry
from tlx.models.head import Tensors


@dataclass(frozen=True)
class Suppression:
    """What is kept of a detector's dense predictions.

    At most `max_detections` of a picture, none scored under `min_score`, and none of a class overlapping a
    better one by more than `iou`. With `voting` under 1, the box of each is the mean of those of its class that overlap
    it by more than `voting`, itself among them.
    """

    max_detections: int
    min_score: float
    iou: float
    voting: float = 1.0

    def __call__(self, dense: Tensors) -> dict[str, Any]:
        """Return boxes [b, k, 4], scores [b, k], labels int32 [b, k] and every further array gathered alike.

        `dense` holds "boxes" [b, n, 1 or classes, 4] in input pixels, "scores" [b, n, classes] in 0..1, and
        further arrays [b, n, ...]. Best come first; places that hold no detection have score 0.
        """
        locations, classes = dense["scores"].shape[1:]
        # In a crowd each object is found from several places; none of them may push another object out.
        candidates = min(6 * self.max_detections, locations * classes)
        scores, index = tf.math.top_k(tf.reshape(dense["scores"], [-1, locations * classes]), candidates)
        place, labels = index // classes, index % classes
        # One box for all classes, or one for each.
        shared = dense["boxes"].shape[2] == 1
        flat = tf.reshape(dense["boxes"], [-1, locations * (1 if shared else classes), 4])
        boxes = tf.gather(flat, place if shared else index, batch_dims=1)
        kept = geometry.suppress(boxes, labels, self.iou) & (scores >= self.min_score)
        top, best = tf.math.top_k(tf.where(kept, scores, 0.0), min(self.max_detections, candidates))
        found = {
            "boxes": tf.gather(boxes, best, batch_dims=1),
            "scores": top,
            "labels": tf.gather(labels, best, batch_dims=1),
        }
        if self.voting < 1:
            found["boxes"] = geometry.vote(found["boxes"], found["labels"], boxes, labels, scores, self.voting)
        at = tf.gather(place, best, batch_dims=1)
        more = {name: tf.gather(array, at, batch_dims=1) for name, array in dense.items() if name not in found}
        return found | more

"""A detector's predictions for whole datasets, in pixels of the pictures themselves."""

from typing import Any

import numpy as np

from tlx.augment import Resize, restore
from tlx.data.dataset import Dataset
from tlx.evaluate import Detections
from tlx.features import Source, encoder
from tlx.lazy import tf
from tlx.models.detector import Detector
from tlx.models.graph import Cut
from tlx.pipeline import Views

# More pictures at once are no faster, and take more memory.
BATCH = 16


class Predictor:
    """Runs a detector, from features or from pictures, and returns what it sees."""

    def __init__(self, detector: Detector, cut: Cut, source: Source, batch: int = BATCH):
        self.detector, self.cut, self.source, self.batch = detector, cut, source, batch
        self.run = tf.function(self._graph, reduce_retracing=True)

    def __call__(self) -> tuple[list[Detections], dict[str, float]]:
        """Return the detections for every picture of the source, and the mean losses by name."""
        views, found, totals = self.source.views, [], np.zeros(3)
        for units, *arrays in self.source.batches(views.units, self.batch):
            *raw, sums = self.run(self._padded(arrays))
            boxes, scores, labels = (r.numpy() for r in raw)
            totals += sums.numpy()[:, : len(units)].sum(1)
            for (index, number), b, s, lb in zip(units.tolist(), boxes, scores, labels, strict=False):
                found.append(_detections(views, index, number, (b, s, lb)))
        positives = max(totals[2], 1.0)
        return found, {"loss/scores": totals[0] / positives, "loss/boxes": totals[1] / positives}

    def _padded(self, arrays: list[Any]) -> list[Any]:
        """Fill a short batch with copies of its first row, so that one graph serves all batches."""
        short = self.batch - len(arrays[0])
        return [tf.concat([a, tf.repeat(a[:1], short, 0)], 0) for a in arrays] if short else arrays

    def _graph(self, arrays: list[Any]) -> Any:
        *features, boxes, labels, ignore = arrays
        taps = self.cut.finish(self.source.encode(features), training=False)
        outputs = self.detector.top(taps, training=False)
        sums = tf.stack(self.detector.head.losses(outputs, (boxes, labels, ignore), self.detector.grid))
        return *self.detector.head.decode(outputs, self.detector.grid), sums


def _detections(views: Views, index: int, number: int, raw: tuple[np.ndarray, ...]) -> Detections:
    boxes, scores, labels = raw
    placed = restore(boxes, views.view(index, number))
    real = (scores > 0) & (placed[:, 2:] > placed[:, :2]).all(1)
    return Detections(placed[real], scores[real], labels[real].astype(np.int32))


def predict(
    detector: Detector, cut: Cut, dataset: Dataset, batch: int = BATCH, resize: Resize = "letterbox"
) -> list[Detections]:
    """Return the detections for every picture of a dataset, straight from its pixels, `batch` of them at once."""
    views = Views(dataset, detector.size, resize=resize)
    source = Source(views, views.element, encoder(cut, False), False, "")
    return Predictor(detector, cut, source, batch)()[0]

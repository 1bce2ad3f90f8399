"""A model's predictions for whole datasets, in terms of the pictures themselves."""

from typing import Any

from tlx.augment import Augmentation, Resize
from tlx.data.dataset import Dataset
from tlx.engines.engine import Compiled, Engine
from tlx.engines.tensorflow import TensorFlow
from tlx.features import Source, encoder, settle
from tlx.lazy import tf
from tlx.learner import losses
from tlx.models.detector import Detector
from tlx.models.graph import Cut
from tlx.pipeline import Unit, Views
from tlx.windows import WholePicture, Windows

# More pictures at once are no faster, and take more memory.
BATCH = 16


class Predictor:
    """Runs a model and returns what it sees; `forward`, if given, computes the boundary of the pictures of a source."""

    def __init__(
        self, detector: Detector, cut: Cut, source: Source, batch: int = BATCH, forward: Compiled | None = None
    ):
        self.detector, self.cut, self.source, self.batch, self.forward = detector, cut, source, batch, forward
        self.run = tf.function(self._graph, reduce_retracing=True)

    def __call__(self, source: Source | None = None) -> tuple[list[Any], dict[str, float]]:
        """Return the task's prediction for every picture of the source, and the mean losses by name.

        What is seen in a picture's windows and views is joined by the task.
        Another `source` than its own must give inputs of the same form.
        """
        source = source or self.source
        views, totals = source.views, {}
        found: dict[int, list[Any]] = {}
        for units, inputs, targets in source.batches(views.units, self.batch):
            arrays, sums = self.run(*self._padded(self._boundary(inputs), targets))
            arrays = {name: array.numpy() for name, array in arrays.items()}
            for name, pair in sums.items():
                totals[name] = totals.get(name, 0.0) + pair.numpy()[:, : len(units)].sum(1)
            for row, unit in enumerate(map(Unit._make, units.tolist())):
                one = {name: array[row] for name, array in arrays.items()}
                seen = views.task.prediction(one, views.view(unit), views.dataset.examples[unit.picture])
                found.setdefault(unit.picture, []).append(seen)
        joined = [views.task.join(seen) if len(seen) > 1 else seen[0] for seen in found.values()]
        return joined, {f"loss/{name}": float(loss / max(weight, 1.0)) for name, (loss, weight) in totals.items()}

    def _boundary(self, inputs: tuple) -> tuple:
        if self.forward is None:
            return inputs
        return tuple(map(tf.convert_to_tensor, self.forward(inputs[0].numpy())))

    def _padded(self, *arrays: Any) -> Any:
        """Fill a short batch with copies of its first row, so that one graph serves all batches."""
        short = self.batch - len(tf.nest.flatten(arrays)[0])
        if not short:
            return arrays
        return tf.nest.map_structure(lambda a: tf.concat([a, tf.repeat(a[:1], short, 0)], 0), arrays)

    def _graph(self, inputs: tuple, targets: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        head, features = self.detector.head, self.source.encode(inputs)
        outputs, found = losses(self.detector, self.cut, features, targets, training=False)
        return head.postprocess(head.predict(outputs)), {name: tf.stack(pair) for name, pair in found.items()}


def predict(
    detector: Detector,
    cut: Cut,
    dataset: Dataset,
    batch: int = BATCH,
    engine: Engine = TensorFlow(),
    resize: Resize = "letterbox",
    windows: Windows = WholePicture(),
    augment: Augmentation | None = None,
) -> list[Any]:
    """Return the task's predictions for every picture of a dataset, straight from its pixels, `batch` at once.

    They are of one view of each window that `augment` gives, if not as it is.
    """
    views = Views(dataset, detector.size, augment, resize=resize, windows=windows)
    source = Source(views, views.element, encoder(cut, True), False, "")
    return Predictor(detector, cut, source, batch, settle(engine, cut, views).compile(cut.prefix))()[0]

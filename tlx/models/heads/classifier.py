"""A classification head: features of the whole picture, normalized or not, dropout, and one dense layer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from tlx.errors import at_least, refuse_values
from tlx.lazy import keras, tf
from tlx.models.backbone import Backbone, Tap, choose_taps
from tlx.models.head import BuiltHead, Head, Losses, Size, TapShape, Tensors
from tlx.registry import heads

_STEEPEST = 1e-3


@heads.register("classifier")
@dataclass(frozen=True)
class Classifier(Head):
    """The class of a whole picture, from what is behind the backbone's last layer, or from several of its taps.

    `taps` names the places that are read; what they give is put side by side. Earlier ones help where pictures are
    unlike those that the backbone has learnt from. `pooling` is how a map becomes one vector; as it has no weights, it
    is computed once with the frozen layers.
    `normalize` brings all numbers of the vector to one scale, which taps that are put side by side need: of each the
    root of its amount is taken, with its sign (Perronnin et al., Improving the Fisher Kernel, ECCV 2010), and then a
    BatchNorm without weights of its own gives it mean 0 and variance 1, in training over a micro-batch.
    `dropout` is the share of the vector's numbers that an update does not see, 0 to below 1.
    `label_smoothing` is the share of a label that is spread over all classes (Szegedy et al., Rethinking the
    Inception Architecture, CVPR 2016).
    """

    task: ClassVar[str] = "classification"

    taps: tuple[str, ...] = ("final",)
    pooling: Literal["avg", "max"] = "avg"
    normalize: bool = False
    dropout: float = 0.2
    label_smoothing: float = 0.0

    def __post_init__(self):
        sound = {
            "taps": len(set(self.taps)) == len(self.taps) > 0 or "names of taps, each once",
            "dropout": at_least(0, below=1),
            "label_smoothing": at_least(0, below=1),
        }
        refuse_values("heads.classifier", self, sound)

    def select(self, backbone: Backbone) -> tuple[Tap, ...]:
        chosen = choose_taps((*backbone.taps, backbone.final), self.taps, "heads.classifier.taps")
        return tuple(replace(tap, pool=self.pooling) for tap in chosen)

    def build(self, taps: Sequence[TapShape], classes: int, size: Size) -> "BuiltClassifier":
        vector = keras.Input((sum(tap.channels for tap in taps),))
        logits = keras.layers.Dense(classes, kernel_initializer="zeros", dtype="float32", name="scores")(vector)
        network = keras.Model(vector, logits, name="classifier")
        return BuiltClassifier(self, network, _normalization(vector) if self.normalize else None)


@dataclass(frozen=True, eq=False)
class BuiltClassifier(BuiltHead):
    """A `Classifier` with its dense layer and what normalizes before it, if anything: each a `keras.Model`."""

    settings: Classifier
    network: Any
    normalization: Any = None

    loss_groups: ClassVar[tuple[tuple[str, ...], ...]] = (("scores",),)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.network,) if self.normalization is None else (self.normalization, self.network)

    def forward(
        self, taps: Sequence[Any], targets: Tensors | None = None, training: bool = False, seeds: Any = None
    ) -> Tensors:
        vector = tf.concat([tf.cast(tap, tf.float32) for tap in taps], 1)
        if self.normalization is not None:
            # A root alone is infinitely steep at 0, where many activations are.
            rooted = vector / tf.sqrt(tf.abs(vector) + _STEEPEST)
            vector = self.normalization(rooted, training=training)
        if training and self.settings.dropout:
            vector = _dropped(vector, self.settings.dropout, seeds)
        return {"logits": self.network(vector, training=training)}

    def losses(self, outputs: Tensors, targets: Tensors) -> Losses:
        logits, smoothing = outputs["logits"], self.settings.label_smoothing
        classes = logits.shape[-1]
        wanted = tf.one_hot(targets["label"], classes) * (1 - smoothing) + smoothing / classes
        loss = tf.nn.softmax_cross_entropy_with_logits(wanted, logits)
        return {"scores": (loss, tf.ones_like(loss))}

    def predict(self, outputs: Tensors) -> Tensors:
        """Return scores [b, classes] that add up to 1."""
        return {"scores": tf.nn.softmax(outputs["logits"])}


def _normalization(vector: Any) -> Any:
    # Training may be a few hundred updates, which its statistics have to keep up with.
    layer = keras.layers.BatchNormalization(
        momentum=0.9, center=False, scale=False, dtype="float32", name="normalization"
    )
    return keras.Model(vector, layer(vector), name="normalized")


def _dropped(vectors: Any, rate: float, seeds: Any) -> Any:
    """Return vectors [b, c] with a share `rate` of each set to 0, drawn from its own seed, and the rest scaled up."""

    def draw(seed: Any) -> Any:
        return tf.random.stateless_uniform([vectors.shape[1]], seed)

    kept = tf.map_fn(draw, seeds, fn_output_signature=tf.float32) >= rate
    return tf.where(kept, vectors / (1 - rate), 0.0)

"""The part of a model that trains, and one update of it by a batch in parts that fit in memory."""

import contextlib
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from tlx.devices import Devices
from tlx.errors import ModelError
from tlx.features import Source
from tlx.freeze import Rates
from tlx.lazy import tf
from tlx.models.detector import Detector
from tlx.models.graph import Cut
from tlx.models.head import Losses, Tensors
from tlx.models.products import in_bfloat16, prepare
from tlx.scale import LossScale


class Learner:
    """A model's trainable part with its optimizers, one for each group of weights with a rate of its own.

    Each of an update's losses is the sum over all examples, divided by the sum of the examples' weights. Both add
    up in parts, as do gradients as long as they are kept apart for each weight, so a batch gives the same update
    whether it is taken at once, in micro-batches or by several replicas, but for BatchNorm layers that train: those
    see the statistics of one replica's piece of a micro-batch. `rates` are those of the freeze policy's phase, and
    `changing` the variables that any of its phases changes.
    """

    def __init__(
        self,
        detector: Detector,
        cut: Cut,
        train: Source,
        settings: Any,
        devices: Devices | None = None,
        rates: Rates | None = None,
        changing: Sequence[Any] = (),
    ):
        self.detector, self.cut, self.train_source, self.settings = detector, cut, train, settings
        self.devices = devices or Devices()
        self.variables = detector.model.trainable_variables
        if settings.matmul == "bfloat16":
            prepare(detector.model)
        self.loss_groups = detector.head.loss_groups
        self.loss_names = [name for group in self.loss_groups for name in group]
        self._groups = self._by_rate(rates or Rates())
        with self.devices.scope():
            self.optimizers = [self._optimizer(members) for *_, members in self._groups]
            # One sum of gradients for each weight that losses are divided by.
            self._sums = [[self._sum(v.shape) for v in self.variables] for _ in self.loss_groups]
            self._totals = [self._sum([len(self.loss_names)]), self._sum([len(self.loss_groups)])]
            self.averages = [tf.Variable(v, trainable=False) for v in self.variables] if settings.ema else []
            self.scale = LossScale(detector.model)
        trains = {id(v) for v in self.variables}
        self._by_the_way = [v for v in self._changed() if id(v) not in trains]
        self._changing = changing
        add, apply, clear, sound = map(
            self.devices.everywhere, (self._add_graph, self._apply_graph, self._clear_graph, self._sound_graph)
        )
        self._add, self._apply, self._clear, self._sound = map(tf.function, (add, apply, clear, sound))

    def _by_rate(self, rates: Rates) -> list[tuple[str, float, list[int]]]:
        """Return the groups of weights: a name, a factor of the learning rate, and which of `variables` have it."""
        head = {id(v) for v in self.detector.head_variables}
        members: dict[tuple[str, float], list[int]] = {("head", rates.head): []}
        for i, variable in enumerate(self.variables):
            pattern, factor = rates.groups.get(id(variable), ("", self.settings.backbone_rate))
            of_backbone = (f"backbone/{pattern}" if pattern else "backbone", factor)
            members.setdefault(("head", rates.head) if id(variable) in head else of_backbone, []).append(i)
        return [(*group, found) for group, found in members.items() if found]

    def rates(self, rate: float) -> dict[str, float]:
        """Return the learning rate of each group of weights, by its name, where the head's is `rate` times its own."""
        return {name: rate * factor for name, factor, _ in self._groups}

    def _optimizer(self, members: list[int]) -> Any:
        optimizer = self.settings.optimizer.build(self.settings.weight_decay)
        # Biases and normalization scales are not pulled to zero.
        optimizer.exclude_from_weight_decay([self.variables[i] for i in members if len(self.variables[i].shape) < 2])
        optimizer.build([self.variables[i] for i in members])
        return optimizer

    @staticmethod
    def _sum(shape: Sequence[int]) -> Any:
        # Every replica adds to one of its own.
        how = {"synchronization": tf.VariableSynchronization.ON_READ, "aggregation": tf.VariableAggregation.SUM}
        return tf.Variable(tf.zeros(shape), trainable=False, **how)

    @property
    def model_state(self) -> list[Any]:
        """Every variable of the detector that training changes, in this phase or another one, in a fixed order."""
        return self._changed({id(v) for v in self._changing})

    def _changed(self, also: Container[int] = ()) -> list[Any]:
        """Return the variables that this phase changes, and those with one of these ids."""
        # Not all their variables: a frozen layer's weights stay, but the random state of a dropout does not.
        frozen = {id(v) for layer in self.detector.backbone.layers if not layer.trainable for v in layer.weights}
        return [v for v in self.detector.model.variables if id(v) not in frozen or id(v) in also]

    @property
    def state(self) -> list[Any]:
        """Every variable that an exact resume needs, in a fixed order."""
        optimizers = (v for o in self.optimizers for v in o.variables)
        return [*self.model_state, *optimizers, *self.averages, *self.scale.variables]

    def losses(self, features: Sequence[Any], targets: Tensors, training: bool, seeds: Any = None) -> Losses:
        """Return the head's losses of examples given as the boundary's features."""
        return losses(self.detector, self.cut, features, targets, training, seeds)[1]

    def update(self, parts: Iterable[tuple], rate: float) -> dict[str, float]:
        """Do one update by a batch that comes in parts of (inputs, targets, seeds), and return what is known of it.

        That is "loss", NaN where a gradient is not finite, "gradient_norm", and "loss/NAME" for each loss.

        Raises:
          tf.errors.ResourceExhaustedError: a part does not fit in memory; nothing has been changed.
          OverflowError: the loss was scaled too far for float16; it is scaled less now, and nothing else has
            been changed: give the same parts again.
        """
        try:
            for part in parts:
                self._add(self.devices.split(part))
        except tf.errors.ResourceExhaustedError:
            self._clear()
            raise
        if self.scale.used:
            sound = bool(self._sound())
            if self.scale.learn(sound):
                self._clear()
                raise OverflowError("the gradients of the scaled loss are too large for float16")
        for optimizer, own in zip(self.optimizers, self.rates(rate).values(), strict=True):
            optimizer.learning_rate.assign(own)
        names = ("loss", "gradient_norm", *(f"loss/{name}" for name in self.loss_names))
        return dict(zip(names, self._apply().numpy().tolist(), strict=True))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Hold the moving averages in place of the weights, if there are any."""
        kept = [v.numpy() for v in self.variables] if self.averages else []
        for variable, average in zip(self.variables, self.averages, strict=False):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(self.variables, kept, strict=False):
                variable.assign(value)

    def _clear_graph(self) -> None:
        for total in (*chain(*self._sums), *self._totals):
            total.assign(tf.zeros(total.shape))

    def _add_graph(self, part: tuple) -> None:
        inputs, targets, seeds = part
        if inputs[0].shape[0] == 0:
            return  # A replica's piece of a short part.
        features = self.train_source.encode(inputs)
        # Models that were not prepared know nothing of it.
        with in_bfloat16(), tf.GradientTape(persistent=len(self.loss_groups) > 1) as tape:
            found = self.losses(features, targets, training=True, seeds=seeds)
            sums = {name: tf.reduce_sum(found[name][0]) for name in self.loss_names}
            scaled = [self.scale.up(sum(sums[name] for name in group)) for group in self.loss_groups]
        for totals, loss in zip(self._sums, scaled, strict=True):
            for total, gradient in zip(totals, tape.gradient(loss, self._raw()), strict=True):
                if gradient is not None:
                    total.assign_add(self.scale.down(gradient))
        self._totals[0].assign_add([sums[name] for name in self.loss_names])
        self._totals[1].assign_add([tf.reduce_sum(found[group[0]][1]) for group in self.loss_groups])

    def _sound_graph(self) -> Any:
        """Return whether what the parts added up to is finite on every replica."""
        bad = [tf.reduce_any(~tf.math.is_finite(total)) for total in chain(*self._sums)]
        return self.devices.total([tf.cast(tf.reduce_any(bad), tf.float32)])[0] == 0

    def _apply_graph(self) -> Any:
        *flat, sums, weights = self.devices.total([*chain(*self._sums), *self._totals])
        weights = tf.unstack(tf.maximum(weights, 1.0))
        count = len(self.variables)
        by_group = [flat[i * count : (i + 1) * count] for i in range(len(self.loss_groups))]
        shares = [[total / weight for total in totals] for totals, weight in zip(by_group, weights, strict=True)]
        gradients = [sum(parts) for parts in zip(*shares, strict=True)]
        gradients, norm = tf.clip_by_global_norm(gradients, self.settings.clip)
        # Keras adds up what the replicas give it.
        gradients = self.devices.part(gradients)
        for optimizer, (*_, members) in zip(self.optimizers, self._groups, strict=True):
            optimizer.apply([gradients[i] for i in members], [self.variables[i] for i in members])
        for variable, average in zip(self.variables, self.averages, strict=False):
            average.assign(self.settings.ema * average + (1 - self.settings.ema) * variable)
        self.devices.level(self._by_the_way)
        each = dict(zip(self.loss_names, tf.unstack(sums), strict=True))
        groups = list(zip(self.loss_groups, weights, strict=True))
        loss = sum(sum(each[name] for name in group) / weight for group, weight in groups)
        means = [each[name] / weight for group, weight in groups for name in group]
        self._clear_graph()
        return tf.stack([tf.where(tf.math.is_finite(norm), loss, float("nan")), norm, *means])

    def _raw(self) -> list[Any]:
        return [v.value for v in self.variables]


def losses(
    detector: Detector, cut: Cut, features: Sequence[Any], targets: Tensors, training: bool, seeds: Any = None
) -> tuple[Tensors, Losses]:
    """Return a head's outputs and losses for examples given as the boundary's features; none without targets.

    Raises:
      ModelError: the losses are not those that the head declares.
    """
    head, taps = detector.head, cut.finish(features, training)
    if not targets:
        return head.forward(taps), {}
    outputs = head.forward(taps, targets, training, seeds)
    found = head.losses(outputs, targets)
    declared = sorted(name for group in head.loss_groups for name in group)
    if sorted(found) != declared:
        raise ModelError(f"{type(head).__name__}: gives the losses {sorted(found)}, and declares {declared}")
    return outputs, found

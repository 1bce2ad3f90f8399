"""What a freeze policy decides: which weight layers of the backbone train, and when; set, logged and proven."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Literal

from tlx.errors import ModelError
from tlx.models.graph import WeightLayer

# A BatchNorm's running statistics follow its batches over so many updates as 1 / (1 - momentum). The usual 0.99
# to 0.999 suit a million pictures; here training is over before they have caught up with changed weights.
_BATCH_NORM_MOMENTUM = 0.9

_HEAD = "head"
# As the fields of `tlx.models.backbone.Depth`.
Counted = Literal["weight_layers", "blocks"]
BatchNorm = Literal["train", "frozen"]


@dataclass(frozen=True)
class Phase:
    """A part of a run: its share of all updates, what trains meanwhile, and how fast.

    `choose` says for each weight layer of the backbone, in order, whether it trains. `rates` are (regular expression,
    factor of `fit.learning_rate`): the first one that is found in a weight layer's name decides; for others it is
    `fit.backbone_rate`. The word "head" alone stands for the head, whose factor is 1 otherwise. Where `batch_norm` is
    "frozen", BatchNorm keeps its restored weights and statistics in layers that train, too.
    """

    share: float
    choose: Callable[[Sequence[WeightLayer]], list[bool]]
    rates: tuple[tuple[str, float], ...] = ()
    batch_norm: BatchNorm = "train"

    def parts(self, unit: WeightLayer) -> list[Any]:
        """Return what trains of a weight layer that trains: its Keras layers, BatchNorm among them or not."""
        return [part for part in unit.layers if self.batch_norm == "train" or not hasattr(part, "moving_mean")]


@dataclass(frozen=True)
class Span:
    """Which updates are a phase's: phase `number`, counted from 0, has updates `start` to `stop` of all `of`."""

    number: int
    start: int
    stop: int
    of: int

    def __str__(self) -> str:
        return f"phase {self.number + 1}, updates {self.start + 1} to {self.stop} of {self.of}"


@dataclass(frozen=True)
class Freeze:
    """A named policy: the phases of a run, whose shares add up to 1.

    `unfrozen` is how many it unfreezes of what it `counts`, so that too many are refused before the network is built.

    Raises:
      ModelError: there are no phases, or their shares or rates make no sense.
    """

    name: str
    phases: tuple[Phase, ...]
    unfrozen: int = 0
    counts: Counted = "weight_layers"

    def __post_init__(self):
        shares = [phase.share for phase in self.phases]
        if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ModelError(f"freeze policy {self.name}: its phases' shares are {shares}; they must add up to 1")
        for pattern, factor in (rate for phase in self.phases for rate in phase.rates):
            if not 0 <= factor < math.inf:
                raise ModelError(f"freeze policy {self.name}: the rate of {pattern!r} is {factor}; give 0 or more")

    @classmethod
    def always(
        cls,
        name: str,
        choose: Callable[[Sequence[WeightLayer]], list[bool]],
        unfrozen: int = 0,
        counts: Counted = "weight_layers",
        batch_norm: BatchNorm = "train",
    ) -> "Freeze":
        """Return a policy of one phase, in which `choose` says for each weight layer whether it trains."""
        return cls(name, (Phase(1.0, choose, batch_norm=batch_norm),), unfrozen, counts)

    def spans(self, updates: int) -> tuple[Span, ...]:
        """Return which of so many updates are each phase's; of few updates a phase may have none."""
        stops = [round(updates * share) for share in accumulate(phase.share for phase in self.phases)]
        bounds = pairwise((0, *stops[:-1], updates))
        return tuple(Span(number, start, stop, updates) for number, (start, stop) in enumerate(bounds))


def _found(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise ModelError(f"freeze policy: {pattern!r} is no regular expression: {error}") from None


@dataclass(frozen=True)
class Rates:
    """Factors of `fit.learning_rate`: the head's, and by `id(variable)` the (name, factor) of the backbone's groups."""

    head: float = 1.0
    groups: Mapping[int, tuple[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    """What a phase decided for a network: the layers that train, how fast, and all variables that must not change."""

    layers: tuple[WeightLayer, ...]
    trains: tuple[bool, ...]
    frozen_variables: tuple[Any, ...]
    fingerprint: str
    rates: Rates = Rates()

    def summary(self) -> str:
        """Return one line on what trains, block by block."""
        unfrozen = [layer for layer, trains in zip(self.layers, self.trains, strict=True) if trains]
        if not unfrozen:
            return f"the backbone is frozen: all {len(self.layers)} weight layers; the head trains"
        blocks = ", ".join(dict.fromkeys(layer.block for layer in unfrozen))
        return f"{len(unfrozen)} of the backbone's {len(self.layers)} weight layers train, in {blocks}; the head trains"

    def table(self) -> str:
        """Return a Markdown table of the weight layers: block, layer, number of weights, and whether it trains."""
        rows = ["| block | layer | weights | trains |", "|---|---|---:|---|"]
        for layer, trains in zip(self.layers, self.trains, strict=True):
            count = sum(part.count_params() for part in layer.layers)
            rows.append(f"| {layer.block} | {layer.name} | {count:,} | {'yes' if trains else ''} |")
        return "\n".join(rows)

    def verify(self) -> None:
        """Check that every frozen variable, BatchNorm statistics included, is bit for bit what it was.

        Raises:
          ModelError: one of them changed; that is a defect of tlx or of a plugin's layer.
        """
        if _digest(self.frozen_variables) != self.fingerprint:
            raise ModelError("frozen weights changed during training; please report this with your gin file")


def apply(freeze: Freeze, network: Any, layers: Sequence[WeightLayer], phase: int = 0) -> Frozen:
    """Set what trains in a built network in a phase of a policy, and return an account of it.

    Raises:
      MisfitError: the policy does not fit the network, such as more unfrozen layers than there are.
    """
    one = freeze.phases[phase]
    trains = one.choose(layers)
    unfrozen = [unit for unit, train in zip(layers, trains, strict=True) if train]
    rates = _rates(freeze, one, unfrozen)
    for layer in network.layers:
        layer.trainable = False
    for layer in (part for unit in unfrozen for part in one.parts(unit)):
        layer.trainable = True
        if hasattr(layer, "momentum"):
            layer.momentum = min(layer.momentum, _BATCH_NORM_MOMENTUM)
    changing = {id(v) for unit in unfrozen for v in _weights(one, unit)}
    frozen = tuple(v for v in network.weights if id(v) not in changing)
    return Frozen(tuple(layers), tuple(trains), frozen, _digest(frozen), rates)


def changing(freeze: Freeze, model: Any, network: Any, layers: Sequence[WeightLayer]) -> list[Any]:
    """Return the variables of `model` that some phase of a policy may change in `network` or outside of it, in order.

    Raises:
      ModelError: a phase does not fit the network.
    """
    unfrozen = {
        id(v)
        for phase in freeze.phases
        for unit, train in zip(layers, phase.choose(layers), strict=True)
        if train
        for v in _weights(phase, unit)
    }
    frozen = {id(v) for v in network.weights} - unfrozen
    return [v for v in model.variables if id(v) not in frozen]


def _weights(phase: Phase, unit: WeightLayer) -> list[Any]:
    return [variable for part in phase.parts(unit) for variable in part.weights]


def _rates(freeze: Freeze, phase: Phase, unfrozen: Sequence[WeightLayer]) -> Rates:
    groups: dict[int, tuple[str, float]] = {}
    patterns = [rate for rate in phase.rates if rate[0] != _HEAD]
    used = set()
    for unit in unfrozen:
        rate = next(((pattern, factor) for pattern, factor in patterns if _found(pattern, unit.name)), None)
        if rate is not None:
            used.add(rate[0])
            groups.update((id(v), rate) for v in _weights(phase, unit))
    if unused := [pattern for pattern, _ in patterns if pattern not in used]:
        names = ", ".join(unit.name for unit in unfrozen) or "none"
        raise ModelError(
            f"freeze policy {freeze.name}: the rate of {unused[0]!r} is for no layer that trains; these are {names}"
        )
    return Rates(dict(phase.rates).get(_HEAD, 1.0), groups)


def _digest(variables: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()

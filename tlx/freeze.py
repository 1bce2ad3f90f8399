"""Freeze policies: which weight layers of the backbone train; checked, logged and proven."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tlx.errors import ConfigError, MisfitError, ModelError
from tlx.models.graph import WeightLayer
from tlx.registry import freezes

# A BatchNorm's running statistics follow its batches over so many updates as 1 / (1 - momentum). The usual 0.99
# to 0.999 suit a million pictures; here training is over before they have caught up with changed weights.
_BATCH_NORM_MOMENTUM = 0.9


@dataclass(frozen=True)
class Freeze:
    """A named rule that says for each weight layer, in order, whether it trains."""

    name: str
    choose: Callable[[Sequence[WeightLayer]], list[bool]]


_ONLY_THE_HEAD = (["run.freeze = @freezes.backbone()"], [])


@freezes.register("none", smaller=lambda: [_ONLY_THE_HEAD])
def none() -> Freeze:
    """Everything trains."""
    return Freeze("none", lambda layers: [True] * len(layers))


@freezes.register("backbone")
def backbone() -> Freeze:
    """Nothing of the backbone trains, only the head."""
    return Freeze("backbone", lambda layers: [False] * len(layers))


def _check_unfrozen(policy: str, unfrozen: int) -> None:
    if unfrozen < 0:
        raise ConfigError(f"freezes.{policy}.unfrozen = {unfrozen} makes no sense: give 0 or more")


def _fewer(policy: str, unfrozen: int) -> Iterator[tuple[list[str], list[str]]]:
    if unfrozen:
        yield [f"freezes.{policy}.unfrozen = 0"], []


def _counted(policy: str) -> dict[str, Any]:
    """Return what is to be said of a policy that counts what it unfreezes from the end."""
    return {
        "check": partial(_check_unfrozen, policy),
        "smaller": partial(_fewer, policy),
        "grows": "unfrozen",
    }


@freezes.register("last_layers", **_counted("last_layers"))
def last_layers(unfrozen: int) -> Freeze:
    """Only the last `unfrozen` weight layers of the backbone train, each with its BatchNorm, and the head."""

    def choose(layers: Sequence[WeightLayer]) -> list[bool]:
        first = _first_unfrozen("last_layers", unfrozen, len(layers), "weight layers")
        return [i >= first for i in range(len(layers))]

    return Freeze(f"last_layers({unfrozen})", choose)


@freezes.register("last_blocks", **_counted("last_blocks"))
def last_blocks(unfrozen: int) -> Freeze:
    """Only the last `unfrozen` blocks of the backbone train, and the head."""

    def choose(layers: Sequence[WeightLayer]) -> list[bool]:
        blocks = list(dict.fromkeys(layer.block for layer in layers))
        first = _first_unfrozen("last_blocks", unfrozen, len(blocks), f"blocks ({', '.join(blocks)})")
        return [blocks.index(layer.block) >= first for layer in layers]

    return Freeze(f"last_blocks({unfrozen})", choose)


def _check_rules(rules: tuple[tuple[str, str], ...]) -> None:
    for pattern, _ in rules:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"freezes.patterns.rules: {pattern!r} is no regular expression: {error}") from None


@freezes.register("patterns", check=_check_rules, smaller=lambda: [_ONLY_THE_HEAD])
def patterns(rules: tuple[tuple[str, Literal["train", "freeze"]], ...]) -> Freeze:
    """The first rule whose regular expression is found in a weight layer's name decides for it.

    Every rule must decide for at least one layer, and every layer must be decided for: end with
    `('', 'freeze')` for all the rest. An example: `(('block7', 'train'), ('', 'freeze'))`.
    """
    _check_rules(rules)

    def choose(layers: Sequence[WeightLayer]) -> list[bool]:
        used: set[str] = set()
        chosen = []
        for layer in layers:
            rule = next(((p, action) for p, action in rules if re.search(p, layer.name)), None)
            if rule is None:
                raise MisfitError(f"freezes.patterns: no rule is for {layer.name}; end with ('', 'freeze')")
            used.add(rule[0])
            chosen.append(rule[1] == "train")
        for pattern, _ in rules:
            if pattern not in used:
                names = ", ".join(layer.name for layer in layers)
                raise MisfitError(f"freezes.patterns: {pattern!r} decides for no layer; the layers are {names}")
        return chosen

    return Freeze("patterns", choose)


def _first_unfrozen(policy: str, unfrozen: int, count: int, what: str) -> int:
    if not 0 <= unfrozen <= count:
        raise MisfitError(f"freezes.{policy}.unfrozen = {unfrozen}: the backbone has {count} {what}; give 0 to {count}")
    return count - unfrozen


@dataclass(frozen=True)
class Frozen:
    """What a policy decided for a network: the layers that train, and all those that must not change."""

    layers: tuple[WeightLayer, ...]
    trains: tuple[bool, ...]
    frozen_variables: tuple[Any, ...]
    fingerprint: str

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


def apply(freeze: Freeze, network: Any, layers: Sequence[WeightLayer]) -> Frozen:
    """Set what trains in a built network and return an account of it.

    Raises:
      MisfitError: the policy does not fit the network, such as more unfrozen layers than there are.
    """
    trains = freeze.choose(layers)
    for layer in network.layers:
        layer.trainable = False
    for layer in (ly for unit, train in zip(layers, trains, strict=True) if train for ly in unit.layers):
        layer.trainable = True
        if hasattr(layer, "momentum"):
            layer.momentum = min(layer.momentum, _BATCH_NORM_MOMENTUM)
    changing = {
        id(v) for unit, train in zip(layers, trains, strict=True) if train for ly in unit.layers for v in ly.weights
    }
    frozen = tuple(v for v in network.weights if id(v) not in changing)
    return Frozen(tuple(layers), tuple(trains), frozen, _digest(frozen))


def _digest(variables: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    for variable in variables:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()

"""The freeze policies that tlx brings, each a factory of `tlx.freeze.Freeze`."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from tlx.errors import ConfigError, MisfitError
from tlx.freeze import BatchNorm, Freeze, Phase
from tlx.models.graph import WeightLayer
from tlx.registry import freezes

_ONLY_THE_HEAD = (["run.freeze = @freezes.backbone()"], [])


@freezes.register("none", smaller=lambda: [_ONLY_THE_HEAD])
def none() -> Freeze:
    """Everything trains."""
    return Freeze.always("none", lambda layers: [True] * len(layers))


@freezes.register("backbone")
def backbone() -> Freeze:
    """Nothing of the backbone trains, only the head."""
    return Freeze.always("backbone", _nothing)


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
def last_layers(unfrozen: int, batch_norm: BatchNorm = "train") -> Freeze:
    """Only the last `unfrozen` weight layers of the backbone train, each with its BatchNorm, and the head.

    Where `batch_norm` is "frozen", they keep the BatchNorm that they were restored with, statistics included, so that
    an update is the same in any micro-batch.
    """
    name = f"last_layers({unfrozen}{_norms(batch_norm)})"
    return Freeze.always(name, _last("last_layers", unfrozen), unfrozen, batch_norm=batch_norm)


def _norms(batch_norm: BatchNorm) -> str:
    return f", batch_norm={batch_norm!r}" if batch_norm == "frozen" else ""


def _check_share(head_share: float) -> None:
    if not 0 < head_share < 1:
        raise ConfigError(
            f"freezes.head_then_last_layers.head_share = {head_share} makes no sense: give a share of all updates"
            " between 0 and 1; freezes.backbone is the head alone, and freezes.last_layers has no such phase"
        )


def _check_two(unfrozen: int, head_share: float) -> None:
    _check_unfrozen("head_then_last_layers", unfrozen)
    _check_share(head_share)


@freezes.register("head_then_last_layers", **(_counted("head_then_last_layers") | {"check": _check_two}))
def head_then_last_layers(unfrozen: int, head_share: float = 0.3, batch_norm: BatchNorm = "train") -> Freeze:
    """First the head trains alone, on cached features, then the last `unfrozen` weight layers too, as in `last_layers`.

    `head_share`, between 0 and 1, is the first phase's share of all updates. A head that has learnt already does not
    pull the backbone's features out of shape. Source: Kumar et al., "Fine-Tuning can Distort Pretrained Features and
    Underperform Out-of-Distribution", 2022 ("linear probing, then fine-tuning").
    """
    _check_share(head_share)
    later = Phase(1 - head_share, _last("head_then_last_layers", unfrozen), batch_norm=batch_norm)
    name = f"head_then_last_layers({unfrozen}, {head_share}{_norms(batch_norm)})"
    return Freeze(name, (Phase(head_share, _nothing), later), unfrozen)


def _nothing(layers: Sequence[WeightLayer]) -> list[bool]:
    return [False] * len(layers)


def _last(policy: str, unfrozen: int) -> Callable[[Sequence[WeightLayer]], list[bool]]:
    def choose(layers: Sequence[WeightLayer]) -> list[bool]:
        first = _first_unfrozen(policy, unfrozen, len(layers), "weight layers")
        return [i >= first for i in range(len(layers))]

    return choose


@freezes.register("last_blocks", **_counted("last_blocks"))
def last_blocks(unfrozen: int, batch_norm: BatchNorm = "train") -> Freeze:
    """Only the last `unfrozen` blocks of the backbone train, and the head; `batch_norm` is as in `last_layers`."""

    def choose(layers: Sequence[WeightLayer]) -> list[bool]:
        blocks = list(dict.fromkeys(layer.block for layer in layers))
        first = _first_unfrozen("last_blocks", unfrozen, len(blocks), f"blocks ({', '.join(blocks)})")
        return [blocks.index(layer.block) >= first for layer in layers]

    name = f"last_blocks({unfrozen}{_norms(batch_norm)})"
    return Freeze.always(name, choose, unfrozen, "blocks", batch_norm)


def _check_rules(rules: tuple[tuple[str, str], ...], rates: tuple[tuple[str, float], ...]) -> None:
    for argument, pattern in (*(("rules", p) for p, _ in rules), *(("rates", p) for p, _ in rates)):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"freezes.patterns.{argument}: {pattern!r} is no regular expression: {error}") from None
    for pattern, factor in rates:
        if factor < 0:
            raise ConfigError(f"freezes.patterns.rates: the rate of {pattern!r} is {factor}; give 0 or more")


@freezes.register("patterns", check=_check_rules, smaller=lambda: [_ONLY_THE_HEAD])
def patterns(
    rules: tuple[tuple[str, Literal["train", "freeze"]], ...], rates: tuple[tuple[str, float], ...] = ()
) -> Freeze:
    """The first rule whose regular expression is found in a weight layer's name decides for it.

    Every rule must decide for at least one layer, and every layer must be decided for: end with
    `('', 'freeze')` for all the rest. An example: `(('block7', 'train'), ('', 'freeze'))`. `rates` name learning
    rates, relative to `fit.learning_rate`, in the same way, and take the place of `fit.backbone_rate`; 'head' alone
    stands for the head. An example: `(('block7', 0.5), ('head', 2.0))`.
    """
    _check_rules(rules, rates)

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

    return Freeze("patterns", (Phase(1.0, choose, rates),))


def _first_unfrozen(policy: str, unfrozen: int, count: int, what: str) -> int:
    if not 0 <= unfrozen <= count:
        raise MisfitError(f"freezes.{policy}.unfrozen = {unfrozen}: the backbone has {count} {what}; give 0 to {count}")
    return count - unfrozen

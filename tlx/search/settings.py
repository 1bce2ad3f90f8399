"""The settings of a search."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tlx.costs import COSTS
from tlx.errors import ConfigError, above, at_least, refuse_values, suggest
from tlx.registry import rooms
from tlx.tree import Node


@rooms.register("search", root=True)
@dataclass(frozen=True)
class Search:
    """How the best configuration is searched for: with Optuna, for the best value of a metric on validation.

    `space` names bindings and their ranges: `('float', low, high)`, `('log', low, high)` for a float drawn
    log-uniformly, `('int', low, high)`, `('power_of_two', low, high)` and `('choice', a, b, ...)`; bounds
    are inclusive. Alternatives may be factories, `('choice', @backbones.a(), @backbones.b())`, whose own
    arguments may be varied, too: `backbones.a.alpha` is asked for only where a is chosen. `metric` is the
    name of what is maximized; by default the evaluator's primary metric. `trials` is how many are to be
    finished, the experiment as written being the first, and `minutes` after how long no more are begun; what
    is running then is finished. `workers` is how many run at once. `sampler` proposes: `tpe` learns from
    earlier trials, `grid` takes five values of each range, and `cmaes` needs the extra of that name. `pruner`
    cuts trials that do worse than others at the same look, from the share `pruner_warmup` of their looks on:
    `median` those below the median of the trials that train at least as much of their backbone. `warm_start` is
    the folder of an earlier study over the same names, which the sampler learns from. With `repeat` above 1 the
    best configurations and the experiment as written are trained so many times, each with another seed, and the
    best mean wins. `seed` is the sampler's.

    `alternatives` are names and choices, as in `space`, of which one combination is chosen before anything of the space
    is searched: all are trained for the share `first_look` of `fit.epochs`, the better half for twice that, and so on,
    until one is left. So backbone and input size are settled for a trial or two, and rates and depth are searched for
    what was chosen. Of combinations within 0.01 of each other the one that takes less time is the better.

    `objectives` are what is to be small beside the metric: `latency_ms` (a picture's prediction, one at a time),
    `size_mb` (the file of weights), `parameters` or `train_seconds`. A search then is for the best compromises, the
    Pareto front, and does not prune, which several objectives do not allow. `limits` bounds any of these, as in
    `{'latency_ms': 40}`: a trial beyond one is not chosen. Of those within them the one with the best metric wins.
    """

    trials: int = 20
    space: dict[str, tuple[Any | Node, ...]] = field(default_factory=dict)
    alternatives: dict[str, tuple[Any | Node, ...]] = field(default_factory=dict)
    first_look: float = 0.2
    metric: str | None = None
    minutes: float | None = None
    workers: int = 1
    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    pruner_warmup: float = 0.5
    warm_start: Path | None = None
    repeat: int = 1
    seed: int = 0
    objectives: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        sound = {
            "minutes": above(0),
            "workers": at_least(1),
            "repeat": at_least(1),
            "first_look": above(0, most=1),
            "pruner_warmup": at_least(0, most=1),
        }
        refuse_values("search", self, sound)
        for setting, names in (("objectives", self.objectives), ("limits", self.limits)):
            for name in names:
                if name not in COSTS:
                    known = ", ".join(COSTS)
                    raise ConfigError(f"search.{setting}: {name!r} is none of {known}{suggest(name, COSTS)}")
        if len(set(self.objectives)) < len(self.objectives):
            raise ConfigError(f"search.objectives = {self.objectives} names one of them twice; keep one")
        for name, limit in self.limits.items():
            if limit <= 0:
                raise ConfigError(f"search.limits: {name} = {limit:g} leaves nothing; give a number above 0")
        if self.objectives and self.sampler == "cmaes":
            raise ConfigError("search.sampler = 'cmaes' knows one objective; with search.objectives use 'tpe'")

    @property
    def costs(self) -> tuple[str, ...]:
        """What is measured of every trial: its objectives, and what is limited."""
        return tuple(dict.fromkeys((*self.objectives, *self.limits)))

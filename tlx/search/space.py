"""What a search varies, and within which bounds: gin bindings, and nothing about models."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tlx.config import Experiment
from tlx.errors import ConfigError, refuse_values, suggest
from tlx.ginfile import read, show
from tlx.registry import rooms

KINDS = ("float", "log", "int", "power_of_two", "choice")


@rooms.register("search")
@dataclass(frozen=True)
class Search:
    """How the best configuration is searched for: with Optuna, for the highest validation AP.

    `space` names bindings and their ranges: `('float', low, high)`, `('log', low, high)` for a float drawn
    log-uniformly, `('int', low, high)`, `('power_of_two', low, high)` and `('choice', a, b, ...)`; bounds
    are inclusive. `trials` is how many are to be finished, the experiment as written being the first, and
    `minutes` after how long no more are begun; what is running then is finished. `workers` is how many run
    at once. `sampler` proposes: `tpe` learns from earlier trials, `grid` takes five values of each range,
    and `cmaes` needs the extra of that name. `pruner` ends trials that do worse than others at the same
    look. `warm_start` is the folder of an earlier study over the same names, which the sampler learns from.
    With `repeat` above 1 the best configurations and the experiment as written are trained so many times,
    each with another seed, and the best mean wins. `seed` is the sampler's.
    """

    trials: int = 20
    space: dict[str, tuple] = field(default_factory=dict)
    minutes: float | None = None
    workers: int = 1
    sampler: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    pruner: Literal["median", "hyperband", "none"] = "median"
    warm_start: Path | None = None
    repeat: int = 1
    seed: int = 0

    def __post_init__(self):
        sound = {
            "minutes": self.minutes is None or self.minutes > 0,
            "workers": self.workers >= 1,
            "repeat": self.repeat >= 1,
        }
        refuse_values("search", self, sound)


def check(experiment: Experiment, search: Search) -> None:
    """Check that every name in the space is a binding of this experiment, and that its value lies in its range.

    Raises:
      ConfigError: naming the entry, what is wrong with it, and the closest right name.
    """
    if search.trials < 1:
        raise ConfigError(f"search.trials = {search.trials}: at least one trial, the experiment as written, is needed")
    if not search.space:
        raise ConfigError(
            "search.space is empty: name what to vary, such as {'fit.learning_rate': ('log', 1e-4, 1e-2)}"
        )
    if "multi_worker" in (experiment.value("fit.strategy"), *search.space.get("fit.strategy", ())):
        raise ConfigError(
            "fit.strategy = 'multi_worker' is for tlx train: a search spreads trials over processes, not updates over"
            " machines; use 'none' or 'mirrored'"
        )
    for name, bounds in search.space.items():
        where = f"{experiment.place('search.space')}search.space[{name!r}]"
        _check_range(where, bounds)
        if name.startswith("search.") or name == "run.judge":
            raise ConfigError(f"{where}: a search varies the run, not itself")
        try:
            written = experiment.value(name)
            for value in _samples(bounds):
                experiment.with_bindings([binding(name, value)])
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if not _inside(written, bounds):
            raise ConfigError(
                f"{where}: the experiment as written has {show(written)}, outside {show(bounds)}; it is the first"
                " trial, so widen the range or change the value"
            )


def _samples(bounds: tuple) -> tuple:
    """Return values that stand for all that a range can give: every choice, or both ends as they will come."""
    kind, *values = bounds
    return (values[0] + 0.0, values[1] + 0.0) if kind in ("float", "log") else tuple(values)


def _check_range(where: str, bounds: tuple) -> None:
    kind, *values = bounds or ("",)
    if kind not in KINDS:
        raise ConfigError(f"{where}: {kind!r} is no kind of range{suggest(str(kind), KINDS)} ({', '.join(KINDS)})")
    if kind == "choice":
        if not values:
            raise ConfigError(f"{where}: a choice needs at least one value")
        return
    wanted = (int, float) if kind in ("float", "log") else (int,)
    sound = len(values) == 2 and all(type(v) in wanted for v in values) and values[0] <= values[1]
    if not sound or (kind in ("log", "power_of_two") and values[0] <= 0):
        raise ConfigError(f"{where}: expected ({kind!r}, low, high) with low <= high, got {show(bounds)}")
    if kind == "power_of_two" and any(v & (v - 1) for v in values):
        raise ConfigError(f"{where}: the bounds {values[0]} and {values[1]} must themselves be powers of two")


def _inside(value: Any, bounds: tuple) -> bool:
    kind, *values = bounds
    if kind == "choice":
        return value in values
    low, high = values
    if type(value) not in (int, float) or not low <= value <= high:
        return False
    return kind in ("float", "log") or (
        value == int(value) and not (kind == "power_of_two" and int(value) & (int(value) - 1))
    )


def propose(trial: Any, space: Mapping[str, tuple]) -> dict[str, Any]:
    """Return a value for each name of the space, asked of an Optuna trial."""
    return {name: _ask(trial, name, bounds) for name, bounds in space.items()}


def _ask(trial: Any, name: str, bounds: tuple) -> Any:
    kind, *values = bounds
    if kind == "choice":
        # Optuna keeps choices that are not plain values only with a warning, so their positions are asked for.
        return values[trial.suggest_categorical(name, list(range(len(values))))]
    if kind == "power_of_two":
        return 2 ** trial.suggest_int(name, values[0].bit_length() - 1, values[1].bit_length() - 1)
    if kind == "int":
        return trial.suggest_int(name, *values)
    asked = trial.suggest_float(name, *values, log=kind == "log")
    # Four digits are all that matters, and a person can type them again.
    return min(max(float(f"{asked:.4g}"), values[0]), values[1])


def as_asked(value: Any, bounds: tuple) -> Any:
    """Return the number that stands in Optuna for `value`: the inverse of what `propose` does with it."""
    kind, *values = bounds
    if kind == "choice":
        return values.index(value)
    return int(value).bit_length() - 1 if kind == "power_of_two" else value


def parameters(bindings: Sequence[str], space: Mapping[str, tuple]) -> dict[str, Any] | None:
    """Return what Optuna would have been asked for in this space to give these bindings; None where it could not."""
    values = {statement.target: statement.value for statement in read((), bindings)}
    if values.keys() != space.keys() or not all(_inside(values[name], bounds) for name, bounds in space.items()):
        return None
    return {name: as_asked(values[name], bounds) for name, bounds in space.items()}


# So many values of a continuous or a long range make up a grid.
_POINTS = 5


def grid(search: Search) -> list[dict[str, Any]]:
    """Return every point of the grid over the space, in an order decided by the seed, as Optuna is asked for them."""
    points = [dict(zip(search.space, values, strict=True)) for values in product(*map(_points, search.space.values()))]
    random.Random(search.seed).shuffle(points)
    return points


def _points(bounds: tuple) -> list[Any]:
    kind, *values = bounds
    if kind == "choice":
        return list(range(len(values)))
    low, high = values
    if kind == "power_of_two":
        return list(range(low.bit_length() - 1, high.bit_length()))
    shares = [i / (_POINTS - 1) for i in range(_POINTS)]
    if kind == "int":
        return sorted({round(low + (high - low) * share) for share in shares})
    inner = [low * (high / low) ** share if kind == "log" else low + (high - low) * share for share in shares[1:-1]]
    return [low, *inner, high] if low < high else [low]


def binding(name: str, value: Any) -> str:
    """Return the gin binding that sets `name` to `value`, as a person would write it."""
    return f"{name} = {show(value)}"

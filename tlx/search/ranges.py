"""The ranges of a search's space: checked, asked for, and translated to what Optuna knows and back."""

from typing import Any

from tlx.errors import ConfigError, suggest
from tlx.ginfile import Reference, show
from tlx.tree import Node, nodes

KINDS = ("float", "log", "int", "power_of_two", "choice")
# So many values of a continuous or a long range make up a grid.
_POINTS = 5


def check(where: str, bounds: tuple) -> None:
    """Raise a ConfigError that begins with `where` if these bounds are no range."""
    kind, *values = bounds or ("",)
    if kind not in KINDS:
        raise ConfigError(f"{where}: {kind!r} is no kind of range{suggest(str(kind), KINDS)} ({', '.join(KINDS)})")
    if kind == "choice":
        if not values:
            raise ConfigError(f"{where}: a choice needs at least one value")
        for node in nodes(values):
            if not node.call:
                raise ConfigError(f"{where}: {show(node)} needs parentheses: {show(node)}()")
        return
    wanted = (int, float) if kind in ("float", "log") else (int,)
    sound = len(values) == 2 and all(type(v) in wanted for v in values) and values[0] <= values[1]
    if not sound or (kind in ("log", "power_of_two") and values[0] <= 0):
        raise ConfigError(f"{where}: expected ({kind!r}, low, high) with low <= high, got {show(bounds)}")
    if kind == "power_of_two" and any(v & (v - 1) for v in values):
        raise ConfigError(f"{where}: the bounds {values[0]} and {values[1]} must themselves be powers of two")


def samples(bounds: tuple) -> tuple:
    """Return values that stand for all that a range can give: every choice, or both ends as they will come."""
    kind, *values = bounds
    return (values[0] + 0.0, values[1] + 0.0) if kind in ("float", "log") else tuple(values)


def inside(value: Any, bounds: tuple) -> bool:
    """Return whether a range can give a value; a factory is known by its reference."""
    kind, *values = bounds
    if kind == "choice":
        return _plain(value) in map(_plain, values)
    low, high = values
    if type(value) not in (int, float) or not low <= value <= high:
        return False
    return kind in ("float", "log") or (
        value == int(value) and not (kind == "power_of_two" and int(value) & (int(value) - 1))
    )


def ask(trial: Any, name: str, bounds: tuple) -> Any:
    """Return a value of a range, asked of an Optuna trial."""
    kind, *values = bounds
    if kind == "choice":
        # Optuna keeps choices that are not plain values only with a warning, so their positions are asked for.
        return as_proposed(trial.suggest_categorical(name, list(range(len(values)))), bounds)
    if kind == "power_of_two":
        asked = trial.suggest_int(name, values[0].bit_length() - 1, values[1].bit_length() - 1)
    elif kind == "int":
        asked = trial.suggest_int(name, *values)
    else:
        asked = trial.suggest_float(name, *values, log=kind == "log")
    return as_proposed(asked, bounds)


def as_proposed(asked: Any, bounds: tuple) -> Any:
    """Return the value of a range that Optuna's number stands for."""
    kind, *values = bounds
    if kind == "choice":
        return values[asked]
    if kind == "power_of_two":
        return 2**asked
    # Four digits are all that matters, and a person can type them again.
    return asked if kind == "int" else min(max(float(f"{asked:.4g}"), values[0]), values[1])


def as_asked(value: Any, bounds: tuple) -> Any:
    """Return the number that stands in Optuna for `value`: the inverse of `as_proposed`."""
    kind, *values = bounds
    if kind == "choice":
        return [_plain(v) for v in values].index(_plain(value))
    return int(value).bit_length() - 1 if kind == "power_of_two" else value


def points(bounds: tuple) -> list[Any]:
    """Return the values of a range that make up a grid, as Optuna is asked for them."""
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


def distribution(optuna: Any, bounds: tuple) -> Any:
    """Return a range as Optuna describes it."""
    kind, *values = bounds
    distributions = optuna.distributions
    if kind == "choice":
        return distributions.CategoricalDistribution(list(range(len(values))))
    low, high = values
    if kind in ("float", "log"):
        return distributions.FloatDistribution(low, high, log=kind == "log")
    if kind == "power_of_two":
        return distributions.IntDistribution(low.bit_length() - 1, high.bit_length() - 1)
    return distributions.IntDistribution(low, high)


def _plain(value: Any) -> Any:
    """Return a value in which factories are what a binding names them by, whichever of their forms they come in."""
    if isinstance(value, (Node, Reference)):
        return str(getattr(value, "reference", value))
    return type(value)(map(_plain, value)) if isinstance(value, (list, tuple)) else value

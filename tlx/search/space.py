"""What a search varies, and within which bounds: gin bindings, and nothing about models."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from tlx.config import Experiment, full_target
from tlx.errors import ConfigError, MisfitError
from tlx.evaluate.choose import evaluator_of
from tlx.ginfile import read, show
from tlx.search import ranges
from tlx.search.settings import Search
from tlx.tree import Node, nodes

# So many combinations are tried before a value is said to fit none; where there are more, trials may find one.
_TRIES = 200


@dataclass(frozen=True)
class Space:
    """Ranges by the names of bindings, and the tree that has these as arguments.

    Without a tree every name is asked for; with one, those alone that the tree has, given the alternatives that
    were chosen.
    """

    bounds: Mapping[str, tuple]
    tree: Node | None = None

    @cached_property
    def written_as(self) -> dict[str, str]:
        """The names as `bounds` has them, by what they mean in full."""
        return {full_target(name): name for name in self.bounds}

    @property
    def most(self) -> dict[str, int]:
        """The largest whole numbers of what is varied over a range of such, by their targets in full."""
        ints = {full_target(name): bounds for name, bounds in self.bounds.items() if bounds[0] == "int"}
        return {target: bounds[2] for target, bounds in ints.items()}

    def choose(self, ask: Callable[[str, tuple], Any]) -> dict[str, Any]:
        """Return what `ask` answers to (name, bounds), by name, for each name that has a meaning given its answers."""
        chosen: dict[str, Any] = {}
        there = self._alternatives(ask, chosen) if self.tree else self.bounds
        # In the order of the space: a seed gives the same numbers, whatever may be added to the tree.
        for name, bounds in self.bounds.items():
            if name in there and name not in chosen:
                chosen[name] = ask(name, bounds)
        return {name: chosen[name] for name in self.bounds if name in chosen}

    def _alternatives(self, ask: Callable[[str, tuple], Any], chosen: dict[str, Any]) -> set[str]:
        """Ask for the factories, from the root down, and return the names of the space that the tree then has."""
        there = set()
        waiting, seen = [self.tree], set()
        while waiting:
            node = waiting.pop(0)
            if node.target in seen:
                continue
            seen.add(node.target)
            for argument in node.entry.parameters:
                value = node.arguments.get(argument)
                # What is said of a scope holds before what is said without one.
                for target in dict.fromkeys((f"{node.entry.full_name}.{argument}", f"{node.target}.{argument}")):
                    if name := self.written_as.get(target):
                        there.add(name)
                        bounds = self.bounds[name]
                        if name not in chosen and _has_factories(bounds):
                            chosen[name] = ask(name, bounds)
                        value = chosen.get(name, value)
                waiting += nodes(value)
        return there

    def propose(self, trial: Any) -> dict[str, Any]:
        """Return a value for each name that has a meaning, asked of an Optuna trial."""
        return self.choose(lambda name, bounds: ranges.ask(trial, name, bounds))

    def usual(self, experiment: Experiment, known: Mapping[str, Any]) -> dict[str, Any]:
        """Return a value for each name that has a meaning: the known one, else as an experiment is written.

        Where that gives none, or one outside of the range, it is the range's first.
        """

        def answer(name: str, bounds: tuple) -> Any:
            if name in known:
                return known[name]
            written = experiment.value(name)
            return written if ranges.inside(written, bounds) else ranges.samples(bounds)[0]

        return self.choose(answer)

    def written(self, experiment: Experiment) -> dict[str, Any]:
        """Return what Optuna is asked for where an experiment stays as it is written."""
        return self.asked(self.choose(lambda name, _: experiment.value(name)))

    def asked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what Optuna is asked for to give these values."""
        return {name: ranges.as_asked(value, self.bounds[name]) for name, value in values.items()}

    def parameters(self, bindings: Sequence[str]) -> dict[str, Any] | None:
        """Return what Optuna would have been asked for to give these bindings; None where it could not."""
        values = {statement.target: statement.value for statement in read((), bindings)}

        def known(name: str, bounds: tuple) -> Any:
            if name not in values or not ranges.inside(values[name], bounds):
                raise KeyError(name)
            return ranges.as_proposed(ranges.as_asked(values[name], bounds), bounds)

        try:
            names = self.choose(known)
        except KeyError:
            return None
        if names.keys() != values.keys():
            return None
        return self.asked({name: values[name] for name in names})

    def combinations(self) -> list[dict[str, Any]]:
        """Return every point of the grid, as Optuna is asked for it; what differs in what has no meaning is one."""
        points = {}
        for values in product(*map(ranges.points, self.bounds.values())):
            point = dict(zip(self.bounds, values, strict=True))
            names = self.choose(lambda name, bounds, point=point: ranges.as_proposed(point[name], bounds))
            points.setdefault(tuple((name, point[name]) for name in names))
        return [dict(point) for point in points]

    def grid(self, seed: int) -> list[dict[str, Any]]:
        """Return every point of the grid, as Optuna is asked for them, in an order decided by the seed."""
        shuffled = self.combinations()
        random.Random(seed).shuffle(shuffled)
        return shuffled

    def alternatives(self) -> Iterator[dict[str, Any]]:
        """Yield every way to choose among factories, as values by name."""
        names = [name for name, bounds in self.bounds.items() if _has_factories(bounds)]
        seen = []
        for values in product(*(self.bounds[name][1:] for name in names)):
            given = dict(zip(names, values, strict=True))
            # The other names are of no interest here, whatever they are.
            chosen = self.choose(lambda name, bounds, given=given: given.get(name))
            way = {name: chosen[name] for name in names if name in chosen}
            if way not in seen:
                seen.append(way)
                yield way


def space_of(experiment: Experiment, search: Search, chosen: Mapping[str, Any] | None = None) -> Space:
    """Return what a search over an experiment may choose: all of its alternatives, or those `chosen` alone."""
    alternatives = search.alternatives if chosen is None else {name: ("choice", one) for name, one in chosen.items()}
    return Space({**alternatives, **search.space}, experiment.trees["run"])


def alternatives_of(experiment: Experiment, search: Search) -> Space:
    """Return the alternatives of a search as a space of their own."""
    return Space(search.alternatives, experiment.trees["run"])


def _has_factories(bounds: tuple) -> bool:
    return any(True for _ in nodes(bounds))


def check(experiment: Experiment, search: Search) -> None:
    """Check that every name that is varied is a binding of this experiment, and that its value lies in its range.

    Values of a range need not suit every alternative, but one.

    Raises:
      ConfigError: naming the entry, what is wrong with it, and the closest right name.
    """
    _check_settings(experiment, search)
    where = _check_names(experiment, search)
    combined = {name for point in alternatives_of(experiment, search).combinations() for name in point}
    if lost := [name for name in search.alternatives if name not in combined]:
        raise ConfigError(f"{where[lost[0]]}: no combination of search.alternatives has it; put it in search.space")
    space = space_of(experiment, search)
    for name, bounds in space.bounds.items():
        for value in ranges.samples(bounds):
            _check_value(where[name], experiment, space, name, value)
    for name, written in space.choose(lambda name, _: experiment.value(name)).items():
        _check_written(where[name], name, written, space.bounds[name])


def _check_settings(experiment: Experiment, search: Search) -> None:
    if search.trials < 1:
        raise ConfigError(f"search.trials = {search.trials}: at least one trial, the experiment as written, is needed")
    if not search.space:
        raise ConfigError(
            "search.space is empty: name what to vary, such as {'fit.learning_rate': ('log', 1e-4, 1e-2)}"
        )
    varied = search.alternatives | search.space
    if "multi_worker" in (experiment.value("fit.strategy"), *varied.get("fit.strategy", ())):
        raise ConfigError(
            "fit.strategy = 'multi_worker' is for tlx train: a search spreads trials over processes, not updates over"
            " machines; use 'none' or 'mirrored'"
        )
    try:
        evaluator_of(experiment).metric(search.metric, "search.metric")
    except ConfigError as error:
        raise ConfigError(f"{experiment.place('search.metric')}{error}") from None


def _check_names(experiment: Experiment, search: Search) -> dict[str, str]:
    """Check each name and its range by themselves, and return in words where each stands, by name."""
    places: dict[str, str] = {}
    known: dict[str, str] = {}
    for setting, entries in (("search.alternatives", search.alternatives), ("search.space", search.space)):
        for name, bounds in entries.items():
            where = f"{experiment.place(setting)}{setting}[{name!r}]"
            _check_name(where, experiment, name, bounds)
            if setting == "search.alternatives":
                _check_alternative(where, name, bounds)
            full = full_target(name)
            if full in known:
                raise ConfigError(f"{where} and {known[full]} are the same; keep one")
            known[full], places[name] = f"{setting}[{name!r}]", where
    return places


def _check_name(where: str, experiment: Experiment, name: str, bounds: tuple) -> None:
    ranges.check(where, bounds)
    if name.startswith("search.") or name in ("run.judge", "run.metric"):
        raise ConfigError(f"{where}: a search varies the run, not itself")
    try:
        experiment.value(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_alternative(where: str, name: str, bounds: tuple) -> None:
    if bounds[0] != "choice":
        raise ConfigError(f"{where}: expected ('choice', a, b, ...); {show(bounds)} belongs in search.space")
    if full_target(name) in ("fit.epochs", "fit.evaluations"):
        raise ConfigError(f"{where}: a first look sets {name} itself; put this in search.space")


def _check_written(where: str, name: str, written: Any, bounds: tuple) -> None:
    """Raise a ConfigError if what the experiment has as written, which is the first trial, is not in the range."""
    if _has_factories(bounds) and not any(True for _ in nodes(written)):
        raise ConfigError(f"{where}: bind what the first trial has, such as {name} = {show(bounds[1])}")
    if not ranges.inside(written, bounds):
        raise ConfigError(
            f"{where}: the experiment as written has {show(written)}, outside {show(bounds)}; it is the first trial, so"
            " widen the range or change the value"
        )


def _check_value(where: str, experiment: Experiment, space: Space, name: str, value: Any) -> None:
    """Raise a ConfigError if nothing that the space may choose beside this value takes it."""
    refused = []
    for tried, known in enumerate(_beside(space, name, refused)):
        if tried == _TRIES:
            return
        values = space.usual(experiment, known | {name: value})
        if name not in values:
            continue
        try:
            experiment.with_bindings([binding(*item) for item in values.items()])
            return
        except ConfigError as error:
            refused.append(error)
    raise ConfigError(f"{where}: {refused[0] if refused else 'no alternative of the space has it'}") from None


def _beside(space: Space, name: str, refused: Sequence[ConfigError]) -> Iterator[dict[str, Any]]:
    """Yield what may be chosen beside a name: each alternative, and where it is `refused` as a misfit, any value."""
    ways = [{}, *space.alternatives()]
    yield from ways
    if any(isinstance(error, MisfitError) for error in refused):
        others = {n: ranges.samples(b) for n, b in space.bounds.items() if n != name and not _has_factories(b)}
        for way, *values in product(ways, *others.values()):
            yield dict(zip(others, values, strict=True)) | way


def binding(name: str, value: Any) -> str:
    """Return the gin binding that sets `name` to `value`, as a person would write it."""
    return f"{name} = {show(value)}"


def fixed_bindings(metric: str | None) -> list[str]:
    """Return what every trial binds: the test split stays unseen, and the best weights by `metric` are kept."""
    return [binding("run.judge", "validation"), *([binding("run.metric", metric)] if metric else [])]

"""A gin file and bindings become a checked tree of factories, before TensorFlow is imported.

The tree starts at the roots, `run` and `search`, and follows every reference. A binding that it never
reaches is an error, and so is everything that gin itself would let pass. A scoped reference `@train/f()`
takes its arguments from `train/f` first and from plain `f` otherwise; what it refers to without a scope of
its own inherits its scope.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlx import ginfile, registry
from tlx.errors import ConfigError, MisfitError, TlxError, suggest
from tlx.ginfile import Import, Statement
from tlx.tree import Node, Resolver, walk
from tlx.typecheck import coerce


@dataclass(frozen=True)
class Experiment:
    """A checked configuration: its sources, its effective statements and its trees."""

    name: str
    files: tuple[Path, ...]
    bindings: tuple[str, ...]
    imports: tuple[str, ...]
    allow_imports: bool
    read: tuple[tuple[Statement | Import, ...], tuple[Statement | Import, ...]]
    statements: tuple[Statement, ...]
    trees: dict[str, Node]

    def with_bindings(self, bindings: Sequence[str]) -> "Experiment":
        """Return the same experiment with a few more bindings, checked again; its files are not read again."""
        written, override = self.read
        more = ginfile.read((), bindings, self.allow_imports)
        return _resolve(self.files, (*self.bindings, *bindings), self.allow_imports, written, (*override, *more))

    def place(self, target: str) -> str:
        """Return "file:line: " of what binds `target`, or "" where nothing does."""
        return next((f"{s.place}: " for s in self.statements if s.target == target), "")

    def value(self, target: str) -> Any:
        """Return what the argument `target`, such as "fit.batch_size", is set to, or its default.

        Raises:
          ConfigError: the tree has no such argument; the message names the closest one.
        """
        reached = {}
        for node in (node for tree in self.trees.values() for node in walk(tree)):
            for key, parameter in node.entry.parameters.items():
                for prefix in {"", node.scope}:
                    path = f"{prefix}/{node.entry.full_name}" if prefix else node.entry.full_name
                    reached[f"{path}.{key}"] = node.arguments.get(key, parameter.default)
        key = full_target(target)
        if key not in reached:
            raise ConfigError(f"nothing in this experiment is called {target}{suggest(key, reached)}")
        return reached[key]

    def text(self) -> str:
        """Return one gin file that reproduces this experiment; arguments left at their defaults are comments."""
        lines = [f"{s.target} = {ginfile.show(s.value)}" for s in sorted(self.statements, key=_macros_first)]
        bound = {(s.name, s.argument) for s in self.statements}
        defaults = {
            f"# {node.entry.full_name}.{key} = {ginfile.show(parameter.default)}": None
            for tree in self.trees.values()
            for node in walk(tree)
            for key, parameter in node.entry.parameters.items()
            if parameter.default is not parameter.empty
            and key not in node.arguments
            and (node.entry.full_name, key) not in bound
        }
        return "\n".join([*self.imports, *lines, "", "# Left at their defaults:", *defaults, ""])


def full_target(target: str) -> str:
    """Return "scope/kind.name.argument" for any way of writing it that is shorter.

    Raises:
      ConfigError: nothing is registered by that name.
    """
    name, _, argument = target.rpartition(".")
    scope, _, name = name.rpartition("/")
    full = registry.find(name).full_name if name else ""
    return f"{scope}/{full}.{argument}" if scope else f"{full}.{argument}"


def load(files: Sequence[str | Path], bindings: Sequence[str] = (), allow_imports: bool = False) -> Experiment:
    """Read gin files and bindings, check all that they say, and return the experiment that they describe.

    Later statements override earlier ones. Nothing is built, and no dataset is opened.

    Raises:
      ConfigError: one message with every problem found, each with its file and line and the closest name.
    """
    files = tuple(Path(os.path.abspath(file)) for file in files)
    written, override = ginfile.read(files, (), allow_imports), ginfile.read((), bindings, allow_imports)
    registry.discover()
    return _resolve(files, tuple(bindings), allow_imports, tuple(written), tuple(override))


def _resolve(
    files: tuple[Path, ...],
    bindings: tuple[str, ...],
    allow_imports: bool,
    *read: tuple[Statement | Import, ...],
) -> Experiment:
    imports = tuple(dict.fromkeys(s.text for part in read for s in part if isinstance(s, Import)))
    written, override = ([s for s in part if isinstance(s, Statement)] for part in read)
    problems: list[str] = []
    kind: type[TlxError] = ConfigError
    resolver = Resolver([*written, *override], problems)

    def was_used(key: tuple, statement: Statement) -> bool:
        # What a later override cuts off was still right where it was written.
        before = override[: override.index(statement) + 1] if statement in override else []
        return key in Resolver([*written, *before], []).used

    if not problems:
        resolver.refuse_dead(was_used)
    if not problems:
        refused = list(_refused_values(resolver))
        problems += [text for text, _ in refused]
        if refused and all(isinstance(error, MisfitError) for _, error in refused):
            kind = MisfitError
    if problems:
        unique = list(dict.fromkeys(problems))
        raise kind("\n".join(unique) if len(unique) == 1 else "\n".join(f"- {p}" for p in unique))
    name = files[0].stem if files else "experiment"
    used = (s for s in resolver.effective.values() if resolver.key(s) in resolver.used)
    statements = tuple(_located(s) if s.target in resolver.paths else s for s in used)
    return Experiment(name, files, bindings, imports, allow_imports, read, statements, resolver.trees)


def _refused_values(resolver: Resolver) -> Iterator[tuple[str, TlxError]]:
    """Yield what factories say against their values, and its place before it."""
    for node in (node for tree in resolver.trees.values() for node in walk([tree])):
        try:
            _check(node)
        except TlxError as error:
            places = [f"{s.place}: " for s in resolver.effective.values() if f"{s.target} =" in str(error)]
            yield f"{''.join(places[:1])}{error}", error


def _check(node: Node) -> None:
    if node.lacks:
        # An alternative, to which the search gives the rest.
        return
    if node.entry.check:
        node.entry.check(**given(node, node.entry.check))
    # Settings that are plain classes are made for their own checks.
    elif inspect.isclass(node.entry.factory) and not _made_of_factories(node):
        node.entry.factory(**node.arguments)
    if node.entry.together and not node.quoted:
        node.entry.together(**build_value(given(node, node.entry.together), None))


def refuse_unready(experiment: Experiment) -> None:
    """Raise a ConfigError if something that the experiment, or an alternative of its search, needs is not installed."""
    lacking = {}
    for node in (node for tree in experiment.trees.values() for node in walk([tree])):
        if node.entry.ready and not node.lacks:
            try:
                node.entry.ready(**given(node, node.entry.ready))
            except TlxError as error:
                lacking[str(error)] = None
    if lacking:
        raise ConfigError("\n".join(lacking))


def _made_of_factories(node: Node) -> bool:
    return any(node.quoted or not inner.quoted for inner in walk(list(node.arguments.values())))


def given(node: Node, function: Callable) -> dict[str, Any]:
    """Return those of a node's arguments, defaults included, that a function takes by their names."""
    values = {name: parameter.default for name, parameter in node.entry.parameters.items()} | node.arguments
    return {name: values[name] for name in inspect.signature(function).parameters}


def build(node: Node, kept: dict[str, Any] | None = None) -> Any:
    """Call the factories of a tree, innermost first, and return what the outermost one makes.

    `kept` holds, by their text, datasets that an earlier call made; a worker passes it so that its trials
    read each dataset once.
    """
    if not node.call:
        return node.entry.factory
    reusable = kept is not None and node.entry.kind in ("readers", "splits")
    if reusable and str(node) in kept:
        return kept[str(node)]
    made = node.entry.factory(**{name: build_value(value, kept) for name, value in node.arguments.items()})
    if reusable:
        kept[str(node)] = made
    return made


def build_value(value: Any, kept: dict[str, Any] | None = None) -> Any:
    """Return a configured value with what its factories make in place of them; `kept` as in `build`."""
    if isinstance(value, Node):
        return value if value.quoted else build(value, kept)
    if isinstance(value, dict):
        return {key: build_value(item, kept) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(build_value(item, kept) for item in value)
    return value


def _macros_first(statement: Statement) -> bool:
    return bool(statement.argument)


def _located(statement: Statement) -> Statement:
    # A relative path means something only in the folder where the command was given.
    if not isinstance(statement.value, str):
        return statement
    return replace(statement, value=str(coerce(statement.value, Path)))

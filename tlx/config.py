"""A gin file and bindings become a checked tree of factories, before TensorFlow is imported.

The tree starts at the roots, `run` and `search`, and follows every reference. A binding that it never
reaches is an error, and so is everything that gin itself would let pass. A scoped reference `@train/f()`
takes its arguments from `train/f` first and from plain `f` otherwise; what it refers to without a scope of
its own inherits its scope.
"""

import inspect
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlx import ginfile, registry
from tlx.errors import ConfigError, suggest
from tlx.ginfile import Import, Macro, Reference, Statement
from tlx.typecheck import coerce, describe

ROOTS = ("run", "search")


@dataclass(frozen=True)
class Node:
    """One factory of the tree, with the arguments that the configuration gives it."""

    entry: registry.Entry
    scope: str
    arguments: dict[str, Any]
    call: bool = True

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={_show(value)}" for name, value in self.arguments.items())
        return f"{self.entry.full_name}({arguments})"

    @property
    def makes(self) -> Any:
        """The type of what the factory returns, or None where it does not say."""
        if inspect.isclass(self.entry.factory):
            return self.entry.factory
        returned = self.entry.signature.return_annotation
        return returned if inspect.isclass(returned) and returned is not inspect.Signature.empty else None


@dataclass(frozen=True)
class Experiment:
    """A checked configuration: its sources, its effective statements and its trees."""

    name: str
    files: tuple[Path, ...]
    bindings: tuple[str, ...]
    imports: tuple[str, ...]
    allow_imports: bool
    statements: tuple[Statement, ...]
    trees: dict[str, Node]

    def with_bindings(self, bindings: Sequence[str]) -> "Experiment":
        """Return the same experiment with a few more bindings, checked again."""
        return load(self.files, (*self.bindings, *bindings), self.allow_imports)

    def place(self, target: str) -> str:
        """Return "file:line: " of what binds `target`, or "" where nothing does."""
        return next((f"{s.place}: " for s in self.statements if s.target == target), "")

    def value(self, target: str) -> Any:
        """Return what the argument `target`, such as "fit.batch_size", is set to, or its default.

        Raises:
          ConfigError: the tree has no such argument; the message names the closest one.
        """
        name, _, argument = target.rpartition(".")
        scope, _, name = name.rpartition("/")
        reached = {}
        for node in (node for tree in self.trees.values() for node in _walk(tree)):
            for key, parameter in node.entry.parameters.items():
                for prefix in {"", node.scope}:
                    path = f"{prefix}/{node.entry.full_name}" if prefix else node.entry.full_name
                    reached[f"{path}.{key}"] = node.arguments.get(key, parameter.default)
        full = registry.find(name).full_name if name else ""
        key = f"{scope}/{full}.{argument}" if scope else f"{full}.{argument}"
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
            for node in _walk(tree)
            for key, parameter in node.entry.parameters.items()
            if parameter.default is not parameter.empty
            and key not in node.arguments
            and (node.entry.full_name, key) not in bound
        }
        return "\n".join([*self.imports, *lines, "", "# Left at their defaults:", *defaults, ""])


def load(files: Sequence[str | Path], bindings: Sequence[str] = (), allow_imports: bool = False) -> Experiment:
    """Read gin files and bindings, check all that they say, and return the experiment that they describe.

    Later statements override earlier ones. Nothing is built, and no dataset is opened.

    Raises:
      ConfigError: one message with every problem found, each with its file and line and the closest name.
    """
    files = tuple(Path(os.path.abspath(file)) for file in files)
    read = [ginfile.read(files, (), allow_imports), ginfile.read((), bindings, allow_imports)]
    registry.discover()
    imports = tuple(dict.fromkeys(s.text for part in read for s in part if isinstance(s, Import)))
    written, override = ([s for s in part if isinstance(s, Statement)] for part in read)
    problems: list[str] = []
    plain = _Resolver(written, [])
    resolver = _Resolver([*written, *override], problems)
    if not problems:
        # A file's binding that an override on the command line cuts off was still right where it was written.
        resolver.refuse_dead(plain.used)
    if not problems:
        problems += _refused_values(resolver)
    if problems:
        unique = list(dict.fromkeys(problems))
        raise ConfigError("\n".join(unique) if len(unique) == 1 else "\n".join(f"- {p}" for p in unique))
    name = files[0].stem if files else "experiment"
    used = (s for s in resolver.effective.values() if resolver.key(s) in resolver.used)
    statements = tuple(_located(s) if s.target in resolver.paths else s for s in used)
    return Experiment(name, files, tuple(bindings), imports, allow_imports, statements, resolver.trees)


def _refused_values(resolver: "_Resolver") -> list[str]:
    """Return what settings say against their values: those that are plain classes are made for their own checks."""
    refused = []
    for node in (node for tree in resolver.trees.values() for node in _walk([tree])):
        if inspect.isclass(node.entry.factory) and not any(_walk(list(node.arguments.values()))):
            try:
                build(node)
            except ConfigError as error:
                places = [f"{s.place}: " for s in resolver.effective.values() if f"{s.target} =" in str(error)]
                refused.append(f"{''.join(places[:1])}{error}")
    return refused


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
    made = node.entry.factory(**{name: _build_value(value, kept) for name, value in node.arguments.items()})
    if reusable:
        kept[str(node)] = made
    return made


def _build_value(value: Any, kept: dict[str, Any] | None) -> Any:
    if isinstance(value, Node):
        return build(value, kept)
    if isinstance(value, dict):
        return {key: _build_value(item, kept) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_build_value(item, kept) for item in value)
    return value


@dataclass
class _Resolver:
    """Walks from the roots, collecting problems, what was used, and the finished trees."""

    statements: list[Statement]
    problems: list[str]
    used: set[tuple] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    trees: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self):
        self.macros = {s.target: s for s in self.statements if not s.argument}
        for statement in self.statements:
            self._report_macros(statement)
        self._refuse_duplicates()
        self.effective = {}
        for statement in self.statements:
            if self._sound(statement):
                key = self.key(statement)
                self.effective.pop(key, None)
                self.effective[key] = statement
        self.reached: set[str] = set()
        for root in ROOTS:
            self.trees[root] = self._node(registry.find(root), "", True, ())

    def key(self, statement: Statement) -> tuple:
        if not statement.argument:
            return ("", statement.target, "")
        return (statement.scope, registry.find(statement.name).full_name, statement.argument)

    def refuse_dead(self, excused: set[tuple]) -> None:
        """Report each binding that the tree never reaches and each macro that nothing uses."""
        mentioned = self._mentioned()
        for key, statement in self.effective.items():
            if key in self.used or (key in excused and statement.place.file != ginfile.COMMAND_LINE):
                continue
            if not statement.argument:
                if statement.target in mentioned:
                    continue
                close = suggest(statement.target, [m for m in self.macros if m != statement.target])
                self._problem(statement, f"the macro {statement.target} is used nowhere{close}")
                continue
            target = statement.target.rpartition(".")[0]
            close = suggest(target, self.reached) or f" (reached: {', '.join(sorted(self.reached))})"
            self._problem(statement, f"nothing in the experiment uses {target}, so this has no effect{close}")

    def _problem(self, statement: Statement, message: str) -> None:
        self.problems.append(f"{statement.place}: {message}")

    def _report_macros(self, statement: Statement) -> None:
        known = [*self.macros, "gin.REQUIRED"]
        for name in _macros_in(statement.value):
            if name not in known:
                self._problem(statement, f"the macro %{name} is not defined{suggest(name, known)}")

    def _mentioned(self) -> set[str]:
        """Return the macros that any argument mentions, itself or through other macros."""
        found: set[str] = set()
        waiting = [name for s in self.statements if s.argument for name in _macros_in(s.value)]
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.macros:
                found.add(name)
                waiting += _macros_in(self.macros[name].value)
        return found

    def _refuse_duplicates(self) -> None:
        """Report what one file binds twice, however it is spelt."""
        first: dict[tuple, Statement] = {}
        for statement in self.statements:
            try:
                key = (statement.place.file, *self.key(statement))
            except ConfigError:
                # An unknown name, which is reported for itself.
                continue
            earlier = first.setdefault(key, statement)
            # A file that is included twice says the same thing twice.
            if statement.place.line != earlier.place.line and statement.place.file != ginfile.COMMAND_LINE:
                line = earlier.place.line
                self._problem(
                    statement, f"{statement.target} is bound twice in this file, first in line {line}; keep one"
                )

    def _sound(self, statement: Statement) -> bool:
        if not statement.argument:
            return True
        try:
            entry = registry.find(statement.name)
        except ConfigError as error:
            self._problem(statement, str(error))
            return False
        known = entry.parameters
        if statement.argument in known:
            return True
        listed = f" (it has: {', '.join(known)})" if known else " (it has none)"
        close = suggest(statement.argument, known)
        self._problem(statement, f"{entry.full_name} has no argument {statement.argument!r}{close}{listed}")
        return False

    def _node(self, entry: registry.Entry, scope: str, call: bool, above: tuple[str, ...]) -> Node:
        self.reached |= {entry.full_name, f"{scope}/{entry.full_name}"} if scope else {entry.full_name}
        arguments = {}
        for name, parameter in entry.parameters.items():
            statement = None
            for candidate in dict.fromkeys(("", scope)):
                key = (candidate, entry.full_name, name)
                if key in self.effective:
                    self.used.add(key)
                    statement = self.effective[key]
            inner = (*above, f"{scope}/{entry.full_name}")
            if statement is not None:
                self._bind(arguments, statement, parameter, scope, inner)
            elif (room := _room_of(parameter.annotation)) is not None:
                arguments[name] = self._node(room, scope, True, inner)
            elif parameter.default is parameter.empty and call:
                target = f"{scope}/{entry.full_name}" if scope else entry.full_name
                wanted = describe(parameter.annotation)
                self.problems.append(f"{target}.{name} is required ({wanted}) and nothing gives it a value")
        return Node(entry, scope, arguments, call)

    def _bind(self, into: dict, statement: Statement, parameter: Any, scope: str, above: tuple[str, ...]) -> None:
        try:
            value = self._value(statement.value, scope, above, ())
            into[parameter.name] = coerce(value, parameter.annotation)
        except (ConfigError, TypeError) as error:
            self._problem(statement, f"{statement.target}: {error}")
            return
        except KeyError:
            # An undefined macro, which has been reported where it stands.
            return
        if isinstance(into[parameter.name], Path):
            while isinstance(statement.value, Macro):
                statement = self.macros[statement.value.name]
            self.paths.add(statement.target)

    def _value(self, value: Any, scope: str, above: tuple[str, ...], macros: tuple[str, ...]) -> Any:
        if isinstance(value, Macro):
            if value.name == "gin.REQUIRED":
                raise ConfigError("this value is required; give one")
            if value.name in macros:
                raise ConfigError(f"the macro %{value.name} is defined by itself")
            self.used.add(("", value.name, ""))
            return self._value(self.macros[value.name].value, scope, above, (*macros, value.name))
        if isinstance(value, Reference):
            entry = registry.find(value.name)
            inner = value.scope or scope
            if f"{inner}/{entry.full_name}" in above:
                raise ConfigError(f"{value} refers to itself")
            return self._node(entry, inner, value.call, above)
        if isinstance(value, dict):
            return {key: self._value(item, scope, above, macros) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self._value(item, scope, above, macros) for item in value)
        return value


def _room_of(annotation: Any) -> registry.Entry | None:
    return next((entry for entry in registry.rooms.entries.values() if entry.factory is annotation), None)


def _walk(value: Any) -> Iterator[Node]:
    for item in _flat(value):
        if isinstance(item, Node):
            yield item
            yield from _walk(list(item.arguments.values()))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def _macros_in(value: Any) -> list[str]:
    return [item.name for item in _flat(value) if isinstance(item, Macro)]


def _show(value: Any) -> str:
    return str(value) if isinstance(value, Node) else ginfile.show(value)


def _macros_first(statement: Statement) -> bool:
    return bool(statement.argument)


def _located(statement: Statement) -> Statement:
    # A relative path means something only in the folder where the command was given.
    if not isinstance(statement.value, str):
        return statement
    return replace(statement, value=str(coerce(statement.value, Path)))

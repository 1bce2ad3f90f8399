"""Statements become trees of factories: names looked up, macros replaced, values checked, problems collected."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tlx import ginfile, registry
from tlx.errors import ConfigError, suggest
from tlx.ginfile import Macro, Reference, Statement
from tlx.typecheck import coerce, describe


@dataclass(frozen=True)
class Node:
    """One factory of the tree, with the arguments that the configuration gives it.

    One that is `quoted` is an alternative, which stands for itself: it is checked, and not called.
    """

    entry: registry.Entry
    scope: str
    arguments: dict[str, Any]
    call: bool = True
    quoted: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={_show(value)}" for name, value in self.arguments.items())
        return f"{self.entry.full_name}({arguments})"

    @property
    def target(self) -> str:
        """What a binding of its arguments begins with, such as "train/readers.voc"."""
        return f"{self.scope}/{self.entry.full_name}" if self.scope else self.entry.full_name

    @property
    def reference(self) -> Reference:
        """What a binding names it by."""
        return Reference(self.scope, self.entry.full_name, self.call)

    @property
    def lacks(self) -> list[str]:
        """The arguments that nothing gives a value, and that have no default."""
        known = self.entry.parameters.items()
        return [name for name, p in known if p.default is p.empty and name not in self.arguments]

    @property
    def makes(self) -> Any:
        """The type of what the factory returns, or None where it does not say."""
        if inspect.isclass(self.entry.factory):
            return self.entry.factory
        returned = self.entry.signature.return_annotation
        return returned if inspect.isclass(returned) and returned is not inspect.Signature.empty else None


@dataclass
class Resolver:
    """Walks from the roots, collecting problems, what was used, which values are paths, and the finished trees."""

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
        self._quoting = False
        for name, entry in sorted(registry.catalogue().items()):
            if entry.root:
                self.trees[name] = self._node(entry, "", True, ())

    def key(self, statement: Statement) -> tuple:
        if not statement.argument:
            return ("", statement.target, "")
        return (statement.scope, registry.find(statement.name).full_name, statement.argument)

    def refuse_dead(self, excused: Callable[[tuple, Statement], bool]) -> None:
        """Report each binding that the tree never reaches and each macro that nothing uses, unless it is excused."""
        mentioned = self._mentioned()
        for key, statement in self.effective.items():
            if key in self.used or (not statement.argument and statement.target in mentioned):
                continue
            if excused(key, statement):
                continue
            if not statement.argument:
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
            elif parameter.default is parameter.empty and call and not self._quoting:
                target = f"{scope}/{entry.full_name}" if scope else entry.full_name
                wanted = describe(parameter.annotation)
                self.problems.append(f"{target}.{name} is required ({wanted}) and nothing gives it a value")
        return Node(entry, scope, arguments, call, self._quoting)

    def _bind(self, into: dict, statement: Statement, parameter: Any, scope: str, above: tuple[str, ...]) -> None:
        quoting, self._quoting = self._quoting, self._quoting or _mentions(parameter.annotation, Node)
        try:
            value = self._value(statement.value, scope, above, ())
            into[parameter.name] = coerce(value, parameter.annotation)
        except (ConfigError, TypeError) as error:
            self._problem(statement, f"{statement.target}: {error}{_meant(statement.value, parameter.annotation)}")
            return
        except KeyError:
            # An undefined macro, which has been reported where it stands.
            return
        finally:
            self._quoting = quoting
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


def _meant(value: Any, annotation: Any) -> str:
    """Return which factory was meant where its name is given as text; "" where none fits."""
    named = (entry for entry in registry.catalogue().values() if isinstance(value, str) and entry.name == value)
    fitting = (
        e for e in named if isinstance(annotation, type) and issubclass(Node(e, "", {}).makes or str, annotation)
    )
    return next((f"; did you mean @{entry.full_name}()?" for entry in fitting), "")


def _room_of(annotation: Any) -> registry.Entry | None:
    return next((entry for entry in registry.rooms.entries.values() if entry.factory is annotation), None)


def _mentions(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(_mentions(inner, kind) for inner in get_args(annotation))


def walk(value: Any) -> Iterator[Node]:
    """Yield every node in a value, and below those in it, each before what is below it."""
    for item in nodes(value):
        yield item
        yield from walk(list(item.arguments.values()))


def nodes(value: Any) -> Iterator[Node]:
    """Yield the nodes that stand in a value, within lists, tuples and dicts too, but nothing below them."""
    return (item for item in _flat(value) if isinstance(item, Node))


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

"""Registries of what a gin file can name, and the discovery of plugins that add to them."""

import importlib
import inspect
import os
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tlx.errors import ConfigError, suggest

PLUGIN_GROUP = "tlx.plugins"


@dataclass(frozen=True)
class Entry:
    """One registered factory: `kind.name`, or a bare name for a room's own settings.

    What else may be said where it is registered, each by its keyword:
      sniff: of a reader, a function that says whether a path has its format; see `tlx.data.sniff.Sniff`.
      check: a function that takes some of the factory's arguments, by their names, as the configuration has them
        (a factory among them is a `tlx.tree.Node`), and raises a TlxError where their values make no sense, so that
        a configuration is refused before any data is read.
      together: the same, but factories among the arguments are given as what they make. For parts that are each
        right and may not go together; what it takes must be made in no time, without TensorFlow and without data.
      ready: a function that takes some of the arguments, by their names, and raises a TlxError where something that
        training with them needs is not installed, such as a package of weights. `tlx check`, `train` and `search` ask,
        alternatives of a search among the rest; what only predicts does not.
      smaller: a function that takes some of the arguments, by their names, and yields alternatives that take less
        memory: (bindings, further bindings that only measuring them needs), each a list of str.
      grows: the name of the argument along which `tlx memory` makes its rows, such as a number of layers.
      root: whether a tree of the configuration begins here without anything naming it; every argument then has a
        default, or each experiment must bind it.
      resumes: of a command, whether it goes on where an interrupted one was.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    sniff: Callable[[Path], Any] | None = None
    check: Callable[..., None] | None = None
    together: Callable[..., None] | None = None
    ready: Callable[..., None] | None = None
    smaller: Callable[..., Iterable[tuple[list[str], list[str]]]] | None = None
    grows: str | None = None
    root: bool = False
    resumes: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.kind}.{self.name}" if self.kind else self.name

    @property
    def package(self) -> str:
        return self.factory.__module__.partition(".")[0]

    @property
    def file(self) -> str:
        return inspect.getsourcefile(self.factory) or self.factory.__module__

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]

    @cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.factory, eval_str=True)

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return self.signature.parameters


# Every registry by its kind, in the order in which they were made.
registries: dict[str, "Registry"] = {}


class Registry:
    """The factories of one kind, by name; it files itself in `registries` when it is made.

    `homes` are the modules, or packages of modules, that register tlx's own. A registry that is `apart` holds what no
    gin file can name, and its homes are imported only when they are asked for.

    Raises:
      ConfigError: there is a registry of this kind already.
    """

    def __init__(self, kind: str, *homes: str, apart: bool = False):
        self.kind, self.homes, self.apart = kind, homes, apart
        maker = inspect.currentframe().f_back
        self.place = f"{maker.f_code.co_filename}:{maker.f_lineno}"
        self.entries: dict[str, Entry] = {}
        taken = registries.get(kind)
        # A module may be imported again.
        if taken and taken.place != self.place:
            raise ConfigError(f"the registry {kind!r} is made twice: in {taken.place} and in {self.place}")
        registries[kind] = self

    def register(self, name: str, **more: Any) -> Callable[[Callable], Callable]:
        """Return a decorator that files a factory under `name` and leaves it unchanged; `more` is as `Entry` says.

        Raises:
          ConfigError: the name is taken, or the factory has arguments that gin could not check.
        """

        def decorate(factory: Callable) -> Callable:
            entry = Entry(self.kind, name, factory, **more)
            taken = self.entries.get(name)
            if taken and (taken.file, factory.__qualname__) != (entry.file, taken.factory.__qualname__):
                raise ConfigError(f"{entry.full_name} is registered twice: in {taken.file} and in {entry.file}")
            for argument in entry.parameters.values():
                by_name = argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
                if not by_name or argument.annotation is argument.empty:
                    raise ConfigError(f"{entry.full_name} ({entry.file}): argument {argument} needs a name and a type")
            if entry.grows is not None and entry.grows not in entry.parameters:
                raise ConfigError(f"{entry.full_name} ({entry.file}): grows names no argument of it: {entry.grows!r}")
            self.entries[name] = entry
            return factory

        return decorate

    def load(self, only: str | None = None) -> None:
        """Import the registry's homes, or `only` that module of them, and so register what is there."""
        for home in self.homes:
            module = importlib.import_module(home)
            for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
                if only in (None, info.name):
                    importlib.import_module(f"{home}.{info.name}")


rooms = Registry("", "tlx.run", "tlx.search.settings")
readers = Registry("readers", "tlx.data.readers")
writers = Registry("writers", "tlx.data.writers")
splits = Registry("splits", "tlx.data.splits.policies")
augmentations = Registry("augmentations", "tlx.augment")
backbones = Registry("backbones", "tlx.models.backbones")
heads = Registry("heads", "tlx.models.heads")
assigners = Registry("assigners", "tlx.models.assigners")
tasks = Registry("tasks", "tlx.tasks")
freezes = Registry("freezes", "tlx.policies")
optimizers = Registry("optimizers", "tlx.optimizers")
schedules = Registry("schedules", "tlx.schedules")
evaluators = Registry("evaluators", "tlx.evaluate")
engines = Registry("engines", "tlx.engines")
commands = Registry("commands", "tlx.commands", apart=True)

# Entry points that failed to import, with what they said; an unknown name may be theirs.
failed_plugins: dict[str, str] = {}


def discover() -> None:
    """Import tlx's own factories and every installed plugin's, as `load_plugins` does."""
    for registry in [*registries.values()]:
        if not registry.apart:
            registry.load()
    load_plugins()


def load_plugins() -> None:
    """Import every installed plugin; one that fails is named in a warning.

    The environment variable TLX_PLUGINS limits plugins to those it lists, comma-separated; empty means none.
    """
    allowed = os.environ.get("TLX_PLUGINS")
    for point in entry_points(group=PLUGIN_GROUP):
        if allowed is None or point.name in map(str.strip, allowed.split(",")):
            _load(point)


def _load(point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:  # A stranger's package may fail in any way; tlx goes on and says so.
        if point.name not in failed_plugins:
            failed_plugins[point.name] = f"{type(error).__name__}: {error}"
            warnings.warn(f"plugin {point.name} ({point.value}) failed to import: {error}", stacklevel=2)


def catalogue() -> dict[str, Entry]:
    """Return every registered entry that a gin file can name, by its full name."""
    there = (registry for registry in registries.values() if not registry.apart)
    return {entry.full_name: entry for registry in there for entry in registry.entries.values()}


def find(name: str) -> Entry:
    """Return the entry that `name` means: a full name, or any unambiguous ending of one.

    Raises:
      ConfigError: no entry or several entries match; the message lists them and the closest name.
    """
    known = catalogue()
    if name in known:
        return known[name]
    matches = [full for full in known if full.endswith("." + name)]
    if len(matches) == 1:
        return known[matches[0]]
    if matches:
        raise ConfigError(f"{name!r} is ambiguous: {', '.join(sorted(matches))}")
    raise ConfigError(f"nothing is registered as {name!r}{_closest(name, known)}{_blame_plugins()}")


def _closest(name: str, known: dict[str, Entry]) -> str:
    kind, _, last = name.rpartition(".")
    if kind in registries and kind:
        there = [entry.name for entry in known.values() if entry.kind == kind]
        return f"{suggest(last, there)} ({kind}: {', '.join(sorted(there))})"
    same_last = [full for full in known if full.endswith("." + last)]
    return suggest(name, same_last) or suggest(name, known)


def _blame_plugins() -> str:
    lines = (f"\n  plugin {name} might have, but failed to import: {why}" for name, why in failed_plugins.items())
    return "".join(lines)

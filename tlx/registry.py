"""Registries of what a gin file can name, and the discovery of plugins that add to them."""

import importlib
import inspect
import os
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tlx.errors import ConfigError, suggest

PLUGIN_GROUP = "tlx.plugins"
_BUILTIN = (
    "tlx.data.readers",
    "tlx.data.writers",
    "tlx.data.splits.policies",
    "tlx.augment",
    "tlx.models.backbones",
    "tlx.models.heads",
    "tlx.freeze",
    "tlx.optimizers",
    "tlx.schedules",
    "tlx.features",
    "tlx.memory",
    "tlx.fit",
    "tlx.evaluate",
    "tlx.run",
    "tlx.search",
)


@dataclass(frozen=True)
class Entry:
    """One registered factory: `kind.name`, or a bare name for a room's own settings.

    A reader's `sniff` says whether a path has its format; see `tlx.data.sniff.Sniff`. `check` takes some of the
    factory's arguments, by their names, and raises a ConfigError where their values make no sense, so that a
    configuration is refused before any data is read.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    sniff: Callable[[Path], Any] | None = None
    check: Callable[..., None] | None = None

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


@dataclass
class Registry:
    """The factories of one kind, by name."""

    kind: str
    entries: dict[str, Entry] = field(default_factory=dict)

    def register(
        self, name: str, sniff: Callable[[Path], Any] | None = None, check: Callable[..., None] | None = None
    ) -> Callable[[Callable], Callable]:
        """Return a decorator that files a factory under `name` and leaves it unchanged.

        Raises:
          ConfigError: the name is taken, or the factory has arguments that gin could not check.
        """

        def decorate(factory: Callable) -> Callable:
            entry = Entry(self.kind, name, factory, sniff, check)
            taken = self.entries.get(name)
            if taken and (taken.file, factory.__qualname__) != (entry.file, taken.factory.__qualname__):
                raise ConfigError(f"{entry.full_name} is registered twice: in {taken.file} and in {entry.file}")
            for argument in entry.parameters.values():
                by_name = argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
                if not by_name or argument.annotation is argument.empty:
                    raise ConfigError(f"{entry.full_name} ({entry.file}): argument {argument} needs a name and a type")
            self.entries[name] = entry
            return factory

        return decorate


rooms = Registry("")
readers = Registry("readers")
writers = Registry("writers")
splits = Registry("splits")
augmentations = Registry("augmentations")
backbones = Registry("backbones")
heads = Registry("heads")
freezes = Registry("freezes")
optimizers = Registry("optimizers")
schedules = Registry("schedules")
evaluators = Registry("evaluators")
REGISTRIES = (
    *(rooms, readers, writers, splits, augmentations, backbones, heads, freezes),
    *(optimizers, schedules, evaluators),
)

# Entry points that failed to import, with what they said; an unknown name may be theirs.
failed_plugins: dict[str, str] = {}


def discover() -> None:
    """Import tlx's own factories and every installed plugin's; a plugin that fails is named in a warning.

    The environment variable TLX_PLUGINS limits plugins to those it lists, comma-separated; empty means none.
    """
    for name in _BUILTIN:
        module = importlib.import_module(name)
        for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
            importlib.import_module(f"{name}.{info.name}")
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
    """Return every registered entry by its full name."""
    return {entry.full_name: entry for registry in REGISTRIES for entry in registry.entries.values()}


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
    kinds = {registry.kind for registry in REGISTRIES if registry.kind}
    if kind in kinds:
        there = [entry.name for entry in known.values() if entry.kind == kind]
        return f"{suggest(last, there)} ({kind}: {', '.join(sorted(there))})"
    same_last = [full for full in known if full.endswith("." + last)]
    return suggest(name, same_last) or suggest(name, known)


def _blame_plugins() -> str:
    lines = (f"\n  plugin {name} might have, but failed to import: {why}" for name, why in failed_plugins.items())
    return "".join(lines)

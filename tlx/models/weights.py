"""Pretrained weights from a file, and an account of how much of the model they covered."""

import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from tlx.errors import ModelError, suggest
from tlx.lazy import keras

_ARCHIVE_MEMBER = "model.weights.h5"
# h5py and zipfile meet a damaged file with any of these.
UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile)

Tensors = tuple[h5py.Dataset, ...]


@dataclass(frozen=True)
class Restored:
    """How many weight tensors of a model were restored, and which were not.

    `missing` names those that the source does not have, `mismatched` those that it has in another shape
    or more than once; each as "layer/weight".
    """

    restored: int
    missing: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.restored + len(self.missing) + len(self.mismatched)

    @property
    def fraction(self) -> float:
        return self.restored / self.total if self.total else 1.0

    def within(self, network: Any) -> "Restored":
        """Return the same account of a part of the model alone, such as what a head's taps need of a backbone."""
        layers = {layer.name for layer in leaves(network)}
        missing, mismatched = (
            tuple(name for name in names if name.rpartition("/")[0] in layers) for _, names in self._lacking()
        )
        return Restored(len(network.weights) - len(missing) - len(mismatched), missing, mismatched)

    def __str__(self) -> str:
        lacks = [f"{len(names)} {kind}: {_some(names)}" for kind, names in self._lacking() if names]
        return f"restored {self.restored} of {self.total} weights" + (f" ({'; '.join(lacks)})" if lacks else "")

    def _lacking(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("missing", self.missing), ("mismatched", self.mismatched)


def weights_file(owner: str, published: str, weights: str | None, min_restored: float) -> Path | None:
    """Return the file that a backbone's `weights` names; None where it says `published` or None (random).

    `owner` is the backbone's registered name, for messages, and `published` what its published weights are called.

    Raises:
      ModelError: no such file, or `min_restored` is not within 0..1.
    """
    if not 0 <= min_restored <= 1:
        raise ModelError(f"{owner}.min_restored = {min_restored}: expected a fraction from 0 to 1")
    if weights in (None, published):
        return None
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ModelError(
            f"{owner}.weights = {weights!r} is no file{suggest(weights, [published])}; "
            f"expected {published!r}, None for random weights, or the path of a .weights.h5, .keras or .h5 file"
        )
    return path


def leaves(model: Any) -> Iterator[Any]:
    """Yield a model's layers in order, with the layers of nested models in place of those models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaves(layer)
        else:
            yield layer


def auto_name(layer: Any) -> str:
    """Return what Keras calls the first unnamed layer of this class, such as "batch_normalization"."""
    parted = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub("([a-z])([A-Z])", r"\1_\2", parted).lower()


def restore(model: Any, path: Path, min_restored: float) -> Restored:
    """Read a file's weights into a built Keras model, as far as the file covers it.

    The file is a Keras 3 `.weights.h5`, a `.keras` archive or a legacy Keras `.h5`, told apart by content.
    Layers are matched by name and shapes wherever they stand in it, so that a backbone is found inside a
    saved detector. Where names do not cover the model (auto-numbered ones differ between sessions), a file
    that has the very same layers in the very same order is taken by order. The model is left as it was
    unless all went well. Nothing is ever unpickled, and no link out of the file is followed.

    Raises:
      ModelError: the file cannot be read, or covers less than `min_restored` (0..1) of the weight tensors.
    """
    layers = [layer for layer in leaves(model) if layer.weights]
    try:
        with _open(path) as file:
            items = _items(file)
            stored = _legacy(items) if _is_legacy(items) else _keras3(items)
            found = _match(layers, stored)
            report = _report(layers, found, stored)
            if report.fraction < min_restored or not report.restored:
                raise ModelError(_refusal(model, path, report, min_restored, stored))
            values = [[tensor[()] for tensor in tensors] if tensors else None for tensors in found]
    except UNREADABLE as error:
        raise ModelError(
            f"{path}: cannot be read as Keras weights ({type(error).__name__}: {error}); "
            "expected a whole .weights.h5, .keras or .h5 file: copy or download it again"
        ) from error
    for layer, arrays in zip(layers, values, strict=True):
        if arrays:
            # Unlike assigning the variables, this also refreshes what a layer has derived from them.
            layer.load_own_variables({str(i): array for i, array in enumerate(arrays)})
    return report


@dataclass(frozen=True)
class _Stored:
    """A file's tensors per layer: by layer name, and, for each level of nesting, by structural key."""

    by_name: Mapping[str, Sequence[Tensors]]
    levels: Sequence[Mapping[str, Tensors]]


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(_ARCHIVE_MEMBER) as member, h5py.File(member, "r") as file:
            yield file


def _items(file: h5py.File) -> dict[str, Any]:
    """Return the groups and numeric datasets of a file by path; what is kept outside the file is left out."""
    items: dict[str, Any] = {"": file}

    def visit(name: str, item: Any) -> None:
        plain = isinstance(item, h5py.Dataset) and item.external is None and not item.is_virtual
        if isinstance(item, h5py.Group) or (plain and item.dtype.kind in "fiu"):
            items[name] = item

    file.visititems(visit)  # It visits hard links only.
    return items


def _keras3(items: Mapping[str, Any]) -> _Stored:
    """Index `.../vars/0..n`; the group's key is class and counter, and its `name` attribute the layer's name."""
    owners: dict[str, dict[int, h5py.Dataset]] = {}
    for path, item in items.items():
        group, _, index = path.rpartition("/")
        if group.endswith("/vars") and index.isdecimal():
            owners.setdefault(group, {})[int(index)] = item
    by_name: dict[str, list[Tensors]] = {}
    levels: dict[str, dict[str, Tensors]] = {}
    for group, tensors in owners.items():
        ordered = tuple(tensors[index] for index in sorted(tensors))
        level, _, key = group.removesuffix("/vars").rpartition("/")
        levels.setdefault(level, {})[key] = ordered
        # The first releases of Keras 3 wrote no names; the structural key then has to do.
        if "name" in items[group].attrs:
            by_name.setdefault(str(items[group].attrs["name"]), []).append(ordered)
    return _Stored(by_name, list(levels.values()))


def _is_legacy(items: Mapping[str, Any]) -> bool:
    return "model_weights" in items or "layer_names" in items[""].attrs or "layer_names0" in items[""].attrs


def _legacy(items: Mapping[str, Any]) -> _Stored:
    """Index `layer_names` and each layer's `weight_names`; a nested model's layers are told by their prefixes."""
    root = "model_weights/" if "model_weights" in items else ""
    by_name: dict[str, list[Tensors]] = {}
    order: list[Tensors] = []
    for group in _texts(items[root.rstrip("/")], "layer_names"):
        parts: dict[str, list[h5py.Dataset]] = {}
        for weight in _texts(items[f"{root}{group}"], "weight_names"):
            parts.setdefault(weight.rpartition("/")[0], []).append(items[f"{root}{group}/{weight}"])
        for prefix, tensors in parts.items():
            # A layer alone in its group bears the group's name, whatever its session called its weights.
            name = group if len(parts) == 1 else prefix.rpartition("/")[2]
            order.append(tuple(tensors))
            by_name.setdefault(name, []).append(order[-1])
    return _Stored(by_name, [{str(i): tensors for i, tensors in enumerate(order)}])


def _texts(group: h5py.Group, name: str) -> list[str]:
    """Return an attribute that lists strings; long ones are split over `name0`, `name1`, ..."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    return [text.decode() if isinstance(text, bytes) else str(text) for part in parts for text in part]


def _match(layers: Sequence[Any], stored: _Stored) -> list[Tensors | None]:
    """Return for each layer its tensors in the file, or None."""
    counts = Counter(layer.name for layer in layers)
    named: list[Tensors | None] = []
    for layer in layers:
        fitting = [tensors for tensors in stored.by_name.get(layer.name, ()) if _fits(layer, tensors)]
        named.append(fitting[0] if len(fitting) == 1 and counts[layer.name] == 1 else None)
    if all(named):
        return named
    for keys in (_class_keys(layers), [str(i) for i in range(len(layers))]):
        for level in stored.levels:
            found = [level.get(key, ()) for key in keys]
            # Shapes alone can deceive layer by layer, but hardly over a whole network.
            if all(_fits(layer, tensors) for layer, tensors in zip(layers, found, strict=True)):
                return found
    return named


def _class_keys(layers: Sequence[Any]) -> list[str]:
    seen: Counter[str] = Counter()
    keys = []
    for name in map(auto_name, layers):
        keys.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return keys


def _fits(layer: Any, tensors: Tensors) -> bool:
    return [tuple(weight.shape) for weight in layer.weights] == [tensor.shape for tensor in tensors]


def _report(layers: Sequence[Any], found: Sequence[Tensors | None], stored: _Stored) -> Restored:
    missing, mismatched = [], []
    for layer, tensors in zip(layers, found, strict=True):
        if not tensors:
            lacking = mismatched if layer.name in stored.by_name else missing
            lacking += [f"{layer.name}/{weight.name}" for weight in layer.weights]
    restored = sum(len(tensors) for tensors in found if tensors)
    return Restored(restored, tuple(missing), tuple(mismatched))


def _refusal(model: Any, path: Path, report: Restored, min_restored: float, stored: _Stored) -> str:
    return (
        f"{path}: {report}, which is {report.fraction:.0%} and less than backbones.{model.name}.min_restored = "
        f"{min_restored:g}. The file's layers are {_some(list(stored.by_name))}: if it belongs to another network, "
        "name that network or another file; if partial weights are meant, lower min_restored"
    )


def _some(names: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "unnamed") + more

"""The feature cache: what the frozen part of a network computes is computed once, and shared by all trials."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlx.engines.engine import Engine, Settled
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ModelError, above, at_least, refuse_values
from tlx.featurefiles import TakenError
from tlx.featurestore import bytes_stored, lease
from tlx.lazy import keras, tf
from tlx.models.graph import Cut, steps
from tlx.pipeline import Element, Part, Unit, Views, batches, chunks
from tlx.registry import rooms
from tlx.segment import Layout

_BATCH = 16
# So many pictures show whether an engine agrees with TensorFlow.
_SOME = 4
# To be counted up when pictures are decoded or resampled, or features stored, in another way.
_FORMAT = 3
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@rooms.register("features")
@dataclass(frozen=True)
class Features:
    """How the frozen part's features are kept.

    `cache` turns the cache off where it is False. `views` is how many augmented views of each training
    picture there are; with 0 every epoch draws new ones, and nothing can be cached. `folder` is where
    features lie, shared by all runs of this user; `cap_gb` is how much all of them may take together (the
    least recently used go first), and `dtype` how they are stored: float16 halves the space and moves the
    loss by about a thousandth.
    """

    cache: bool = True
    views: int = 8
    folder: Path = Path("~/.cache/tlx/features")
    cap_gb: float = 8.0
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self):
        refuse_values("features", self, {"views": at_least(0), "cap_gb": above(0)})


@dataclass(frozen=True, eq=False)
class Source:
    """Where training and evaluation get their examples from.

    `load(unit)` returns one unit: the boundary's tensors, or the picture where nothing is cached, and
    the task's targets. `encode` turns a batch of the former into boundary tensors. `note` says in words what was
    decided and why. `release` lets other runs remove cached features, `bytes` of them, when they need room; until then,
    or until the source is gone, they stay. `key` is that of the cache that they are in, and `filled` how many seconds
    it took to compute what was missing there.
    """

    views: Views
    load: Callable[[Unit], Element]
    encode: Callable[[Sequence[Any]], list[Any]]
    cached: bool
    note: str
    release: Callable[[], Any] = lambda: None
    bytes: int = 0
    key: str = ""
    filled: float = 0.0

    def batches(self, units: Iterable[Unit], batch_size: int, micro: int | None = None) -> Iterator[tuple]:
        """Yield batches of these units, in parts of at most `micro`; see `tlx.pipeline.batches`."""
        return batches(self.load, chunks(units, batch_size, micro or batch_size))


def why_not(views: Views, cut: Cut, settings: Features, engine: Engine = TensorFlow(), held: int = 0) -> str:
    """Return why the boundary's features cannot be cached beside `held` bytes of others, or "" where they can."""
    if not settings.cache or views.count == 0:
        return "the cache is off"
    if not steps(cut.prefix):
        return "every layer trains, so there is nothing to cache"
    needed = _bytes(views, cut, settings)
    if needed + held > settings.cap_gb * 1e9:
        beside = f" beside {held / 1e9:.1f} GB that this run holds already" if held else ""
        return (
            f"features after {cut.after} would take {needed / 1e9:.1f} GB{beside}, over features.cap_gb ="
            f" {settings.cap_gb}: not cached; fewer features.views, a smaller run.image_size or float16 would help"
        )
    folder = settings.folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    # What is there already takes no more room.
    if needed > free and needed > free + bytes_stored(folder, _key(views, cut, settings, engine.key)):
        return (
            f"features after {cut.after} would take {needed / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free in"
            f" {folder}: not cached; make room, or name another features.folder"
        )
    return ""


def encoder(cut: Cut, cached: bool) -> Callable[[Sequence[Any]], list[Any]]:
    """Return what turns a batch of cached features, or of pictures, into boundary tensors."""
    return list if cached else lambda inputs: cut.start(tf.cast(inputs[0], tf.float32))


def settle(engine: Engine, cut: Cut, views: Views) -> Settled:
    """Return the engine that computes the frozen part of a network; it is chosen by a few of the pictures."""

    def pictures() -> np.ndarray:
        return np.stack([views.element(Unit(*part))[0][0] for part in views.parts[:_SOME]])

    return engine.settle(cut.prefix, pictures)


def source(
    views: Views,
    cut: Cut,
    settings: Features,
    report: Callable[[str, int, int], None] = lambda *_: None,
    batch: int = _BATCH,
    engine: Engine = TensorFlow(),
    held: int = 0,
) -> Source:
    """Return a source of the boundary's features for all views, computing and keeping them where that is allowed.

    They are computed by `engine`, for `batch` pictures at once. `report` is told ("caching features", done, total) as
    work goes on. `held` is how many bytes another source of this run keeps, which count towards `features.cap_gb`.
    """
    if refusal := why_not(views, cut, settings, engine, held):
        return Source(views, views.element, encoder(cut, False), False, refusal)
    names = _names(views)
    part_of = {name: part for part, name in names.items()}
    key, began = _key(views, cut, settings, engine.key), time.monotonic()
    try:
        stored = lease(
            settings.folder.expanduser(),
            key,
            Layout(views.count, tuple(cut.shapes), settings.dtype),
            names.values(),
            lambda missing: _computed([part_of[name] for name in missing], views, cut, settings, batch, engine, report),
            settings.cap_gb * 1e9,
        )
    except TakenError as error:
        return Source(views, views.element, encoder(cut, False), False, f"not cached: {error}")

    def load(unit: Unit) -> Element:
        features = stored.read(names[unit.part], unit.view)
        return tuple(np.asarray(a, np.float32) for a in features), views.targets(unit)

    filled = time.monotonic() - began if stored.computed else 0.0
    size = _bytes(views, cut, settings)
    what = "pictures" if len(names) == len(views.dataset) else "windows"
    found = f"{stored.found} {what} found, {stored.computed} computed"
    note = f"features after {cut.after} are cached: {size / 1e6:.0f} MB ({found})"
    return Source(views, load, encoder(cut, True), True, note, stored.release, size, key, filled)


def _bytes(views: Views, cut: Cut, settings: Features) -> int:
    return len(views.units) * sum(np.dtype(settings.dtype).itemsize * int(np.prod(s)) for s in cut.shapes)


def _computed(
    parts: list[Part],
    views: Views,
    cut: Cut,
    settings: Features,
    batch: int,
    engine: Engine,
    report: Callable[[str, int, int], None],
) -> Iterator[list[np.ndarray]]:
    """Yield the boundary's tensors for every view of these windows, in order, in batches."""
    units = [Unit(*part, view) for part in parts for view in range(views.count)]
    forward = engine.compile(cut.prefix)
    done = 0
    for _, (pictures,), _ in batches(views.element, chunks(units, batch, batch)):
        # What is too large for the type becomes infinite, which is told in better words below.
        with np.errstate(over="ignore"):
            arrays = [features.astype(settings.dtype, copy=False) for features in forward(pictures.numpy())]
        if not all(np.isfinite(array).all() for array in arrays):
            raise ModelError(
                f"features after {cut.after} are too large for {settings.dtype}; use features.dtype = 'float32'"
            )
        yield arrays
        done += len(pictures)
        report("caching features", done, len(units))


def _names(views: Views) -> dict[Part, str]:
    """Return under which name each window's features are stored: a digest of all that is its own in them."""
    return {part: hashlib.sha256(views.depends(part).encode()).hexdigest()[:32] for part in views.parts}


def _key(views: Views, cut: Cut, settings: Features, engine: str = "") -> str:
    """Return a digest of what the features of all pictures depend on; `engine` says what computes them."""
    digest = hashlib.sha256()
    position = {id(t): i for i, t in enumerate(cut.prefix.inputs)}
    for step in steps(cut.prefix):
        config = {k: v for k, v in step.operation.get_config().items() if k not in ("name", "trainable", "dtype")}
        wiring = [position[id(t)] for t in step.inputs]
        position.update((id(t), len(position) + i) for i, t in enumerate(step.outputs))
        computes = getattr(step.operation, "compute_dtype", "")
        what = [type(step.operation).__name__, config, step.constants, wiring, computes]
        digest.update(json.dumps(what, default=str, sort_keys=True).encode())
    digest.update(json.dumps([position[id(t)] for t in cut.prefix.outputs]).encode())
    for variable in cut.prefix.weights:
        digest.update(variable.numpy().tobytes())
    # Nobody waits for features to reach the disk, so they are trusted only until the machine starts anew.
    boot = _BOOT.read_text() if _BOOT.exists() else ""
    what = (
        _FORMAT,
        boot,
        views.size,
        repr(views.augment),
        views.resize,
        views.count,
        views.seed,
        settings.dtype,
        keras.__version__,
        tf.__version__,
        engine,
    )
    digest.update(repr(what).encode())
    return digest.hexdigest()[:32]

"""The feature cache: what the frozen part of a network computes is computed once, and shared by all trials."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlx.data.images import file_hash
from tlx.errors import ModelError, refuse_values
from tlx.lazy import keras, tf
from tlx.lock import locked
from tlx.models.graph import Cut, steps
from tlx.pipeline import Unit, Views, batches, chunks
from tlx.registry import rooms

_BATCH = 16
# To be counted up when pictures are decoded or resampled in another way.
_FORMAT = 3
# What this run has opened: training and validation features must not push each other out.
_IN_USE: set[Path] = set()
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
        refuse_values("features", self, {"views": self.views >= 0, "cap_gb": self.cap_gb > 0})


@dataclass(frozen=True, eq=False)
class Source:
    """Where training and evaluation get their examples from.

    `load(index, view)` returns the arrays of one unit: the boundary's tensors, or the picture where nothing
    is cached, then boxes, labels and ignore flags. `encode` turns a batch of the former into boundary
    tensors. `note` says in words what was decided and why.
    """

    views: Views
    load: Callable[[int, int], tuple]
    encode: Callable[[list[Any]], list[Any]]
    cached: bool
    note: str

    def batches(self, units: Iterable[Unit], batch_size: int, micro: int | None = None) -> Iterator[tuple]:
        """Yield batches of these units, in parts of at most `micro`; see `tlx.pipeline.batches`."""
        return batches(self.load, chunks(units, batch_size, micro or batch_size))


def why_not(views: Views, cut: Cut, settings: Features) -> str:
    """Return why the boundary's features cannot be cached, or "" where they can."""
    if not settings.cache or views.count == 0:
        return "the cache is off"
    if not steps(cut.prefix):
        return "every layer trains, so there is nothing to cache"
    needed = _bytes(views, cut, settings)
    if needed > settings.cap_gb * 1e9:
        return (
            f"features after {cut.after} would take {needed / 1e9:.1f} GB, over features.cap_gb = {settings.cap_gb}:"
            " not cached; fewer features.views, a smaller run.image_size or float16 would make them fit"
        )
    folder = settings.folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        return (
            f"features after {cut.after} would take {needed / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free in"
            f" {folder}: not cached; make room, or name another features.folder"
        )
    return ""


def encoder(cut: Cut, cached: bool) -> Callable[[list[Any]], list[Any]]:
    """Return what turns a batch of cached features, or of pictures, into boundary tensors."""
    return list if cached else lambda arrays: cut.start(tf.cast(arrays[0], tf.float32))


def source(
    views: Views,
    cut: Cut,
    settings: Features,
    report: Callable[[str, int, int], None] = lambda *_: None,
    batch: int = _BATCH,
) -> Source:
    """Return a source of the boundary's features for all views, computing and keeping them where that is allowed.

    They are computed for `batch` pictures at once. `report` is told ("caching features", done, total) as
    work goes on.
    """
    if refusal := why_not(views, cut, settings):
        return Source(views, views.element, encoder(cut, False), False, refusal)
    needed = _bytes(views, cut, settings)
    store = _store(
        settings.folder.expanduser(),
        _key(views, cut, settings),
        needed,
        settings,
        lambda to: _fill(to, views, cut, settings, batch, report),
    )
    arrays = [np.load(store / f"{i}.npy", mmap_mode="r") for i in range(len(cut.shapes))]

    def load(index: int, view: int) -> tuple:
        row = index * views.count + view
        return (*(np.asarray(a[row], np.float32) for a in arrays), *views.targets(index, view))

    note = f"features after {cut.after} are cached: {needed / 1e6:.0f} MB"
    return Source(views, load, encoder(cut, True), True, note)


def _bytes(views: Views, cut: Cut, settings: Features) -> int:
    return len(views.units) * sum(np.dtype(settings.dtype).itemsize * int(np.prod(s)) for s in cut.shapes)


def _fill(
    folder: Path, views: Views, cut: Cut, settings: Features, batch: int, report: Callable[[str, int, int], None]
) -> None:
    units = views.units
    run = tf.function(lambda pictures: cut.start(tf.cast(pictures, tf.float32)))
    arrays = [
        np.lib.format.open_memmap(folder / f"{i}.npy", "w+", settings.dtype, (len(units), *shape))
        for i, shape in enumerate(cut.shapes)
    ]
    done = 0
    for _, pictures, *_ in batches(views.element, chunks(units, batch, batch)):
        for array, features in zip(arrays, run(pictures), strict=True):
            array[done : done + len(pictures)] = features.numpy()
            if not np.isfinite(array[done : done + len(pictures)]).all():
                raise ModelError(
                    f"features after {cut.after} are too large for {settings.dtype}; use features.dtype = 'float32'"
                )
        done += len(pictures)
        report("caching features", done, len(units))


def _key(views: Views, cut: Cut, settings: Features) -> str:
    """Return a digest of everything that the features depend on."""
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
    for example in views.dataset.examples:
        digest.update(file_hash(example.image).encode() + example.boxes.tobytes() + example.labels.tobytes())
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
    )
    digest.update(repr(what).encode())
    return digest.hexdigest()[:32]


def _store(root: Path, key: str, size: int, settings: Features, fill: Callable[[Path], None]) -> Path:
    """Return the folder of `key`, filled by one process alone, however many ask and whoever dies meanwhile."""
    folder = root / key
    with locked(root / f"{key}.lock"):
        if not folder.exists():
            partial = root / f"{key}.partial"
            # Whoever left this behind is dead: it held the lock while writing.
            shutil.rmtree(partial, ignore_errors=True)
            _make_room(root, settings.cap_gb * 1e9 - size)
            partial.mkdir()
            fill(partial)
            partial.rename(folder)
        os.utime(folder)
    _IN_USE.add(folder)
    return folder


def _make_room(root: Path, budget: float) -> None:
    """Remove the least recently used features, but none being written, until the rest take at most `budget` bytes."""
    folders = sorted((p for p in root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime, reverse=True)
    for folder in folders:
        budget -= sum(f.stat().st_size for f in folder.iterdir())
        if budget < 0 and folder not in _IN_USE:
            lock = root / f"{folder.stem}.lock"
            with contextlib.suppress(BlockingIOError), locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(folder)

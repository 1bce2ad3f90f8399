"""The devices that one update is spread over: one, all of this machine, or those of several machines."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlx.errors import TlxError, TrainingError
from tlx.lazy import tf

Strategy = Literal["none", "mirrored", "multi_worker"]
_CLUSTER = "TF_CONFIG"
_EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Devices:
    """One device, which does all of the work itself.

    An update's batch is first shared among workers (processes, each on a machine of its own), each worker's
    share taken in micro-batches that fit there, and each micro-batch split over the worker's replicas
    (devices with a copy of the model). Replicas add up gradients by themselves; what they have is brought
    together once for each update, by the methods that say "within `everywhere`".
    """

    replicas = 1
    replicas_here = 1
    chief = True
    note = ""

    def scope(self) -> AbstractContextManager:
        """Return a context in which variables are made that every replica has a copy of."""
        return contextlib.nullcontext()

    def share(self, size: int) -> range:
        """Return which of an update's `size` examples are this worker's."""
        return range(size)

    def split(self, batch: Any) -> Any:
        """Return one argument for `everywhere`: of each array [b, ...], a piece for every replica of this worker.

        The arrays may lie in tuples and dicts.
        """
        return batch

    def everywhere(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what runs a function on every replica and returns what the first one here returned."""
        return function

    def total(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Return the sums of tensors over all replicas, within `everywhere`."""
        return tensors

    def part(self, tensors: Sequence[Any]) -> Sequence[Any]:
        """Return the equal parts that tensors are the sums of, one part for every replica, within `everywhere`."""
        return tensors

    def level(self, variables: Sequence[Any]) -> None:
        """Make variables that replicas changed by themselves alike again, within `everywhere`.

        Real numbers become their mean; whole ones, such as random states, become the first replica's.
        """
        return None  # AutoGraph wants a body.

    def told(self, what: Any) -> Any:
        """Return what the chief says, who alone writes files: something that JSON can hold."""
        return what

    def follow(self, variables: Sequence[Any]) -> None:
        """Give variables, bit for bit, the values that they have at the chief."""


class _Several(Devices):
    """The replicas of a `tf.distribute.Strategy`, on `workers` machines, of which this is number `index`."""

    def __init__(self, strategy: Any, note: str, workers: int = 1, index: int = 0):
        self.strategy, self.workers, self.index, self.note = strategy, workers, index, note
        self.chief = index == 0
        self.replicas = strategy.num_replicas_in_sync
        self.replicas_here = self.replicas // workers
        self._sum = tf.function(self.everywhere(lambda tensor: self.total([tensor])[0]))

    def scope(self) -> AbstractContextManager:
        return self.strategy.scope()

    def share(self, size: int) -> range:
        if size < self.workers:
            raise TrainingError(
                f"an update sees {size} examples, fewer than there are workers ({self.workers}): raise fit.batch_size"
            )
        return range(size * self.index // self.workers, size * (self.index + 1) // self.workers)

    def split(self, batch: Any) -> Any:
        # A short part leaves some replicas a shorter piece, or an empty one.
        size = len(tf.nest.flatten(batch)[0])
        cuts = [size * i // self.replicas_here for i in range(self.replicas_here + 1)]
        return self._spread(lambda here: tf.nest.map_structure(lambda a: a[cuts[here] : cuts[here + 1]], batch))

    def _spread(self, of: Callable[[int], Any]) -> Any:
        first = self.index * self.replicas_here
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: of(context.replica_id_in_sync_group - first)
        )

    def everywhere(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            return self.strategy.experimental_local_results(self.strategy.run(function, arguments))[0]

        return run

    def total(self, tensors: Sequence[Any]) -> Sequence[Any]:
        # An argument lies on no device until an operation touches it, and then cannot be reduced.
        tensors = [tf.identity(tensor) for tensor in tensors]
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors) if tensors else tensors

    def part(self, tensors: Sequence[Any]) -> Sequence[Any]:
        return [tensor / self.replicas for tensor in tensors]

    def level(self, variables: Sequence[Any]) -> None:
        real = [v for v in variables if "float" in str(v.dtype)]
        whole = [tf.cast(v, tf.int64) for v in variables if "float" not in str(v.dtype)]
        first = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group == 0, tf.int64)
        means, firsts = iter(self.part(self.total(real))), iter(self.total([v * first for v in whole]))
        for variable in variables:
            variable.assign(next(means) if "float" in str(variable.dtype) else tf.cast(next(firsts), variable.dtype))

    def told(self, what: Any) -> Any:
        if self.workers == 1:
            return what
        text = json.dumps(what).encode() if self.chief else b""
        size = int.from_bytes(self._from_chief(len(text).to_bytes(8, "little"), 8), "little")
        return json.loads(self._from_chief(text, size))

    def follow(self, variables: Sequence[Any]) -> None:
        if self.workers == 1:
            return
        values = [variable.numpy() for variable in variables]
        sent = self._from_chief(b"".join(value.tobytes() for value in values), sum(value.nbytes for value in values))
        for variable, value in zip(variables, values, strict=True):
            mine, sent = sent[: value.nbytes], sent[value.nbytes :]
            variable.assign(np.frombuffer(mine, value.dtype).reshape(value.shape))

    def _from_chief(self, data: bytes, size: int) -> bytes:
        """Return `size` bytes as the chief has them: all others add zeros to its whole numbers, which is exact."""
        padded = data.ljust(-(-size // 4) * 4, b"\0") if self.chief else bytes(-(-size // 4) * 4)
        numbers = np.frombuffer(padded, np.int32)
        try:
            sums = self._sum(self._spread(lambda here: tf.constant(numbers if here == 0 else numbers * 0)))
        except tf.errors.UnavailableError:
            raise alone() from None
        return sums.numpy().tobytes()[:size]


def alone() -> TrainingError:
    """Return what to tell a user of the error by which TensorFlow says that other workers cannot be reached."""
    return TrainingError(
        "another worker has ended, or cannot be reached: see its output, and give the command again on every machine,"
        " which goes on from the chief's last checkpoint"
    )


def several(kind: Strategy) -> Devices:
    """Return the devices that `fit.strategy` asks for; made before anything else of TensorFlow is used.

    Raises:
      TlxError: `multi_worker` without a TF_CONFIG that says which machines there are and which this one is.
    """
    return {"none": Devices, "mirrored": _mirrored, "multi_worker": _multi_worker}[kind]()


def several_here(kind: Strategy) -> Devices:
    """Return the devices of this machine alone that `fit.strategy` asks for, without a word to other machines."""
    return several("none" if kind == "none" else "mirrored")


# A process has one of each: TensorFlow can join a cluster once.
@cache
def _mirrored() -> Devices:
    strategy = tf.distribute.MirroredStrategy()
    found = strategy.num_replicas_in_sync
    return _Several(strategy, f"each update is spread over {found} devices" if found > 1 else "there is one device")


@cache
def _multi_worker() -> Devices:
    here = cluster()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    devices = partial(_Several, strategy, workers=here.workers, index=here.index)
    return devices(f"worker {here.index} of {here.workers}; each update is spread over all")


@dataclass(frozen=True)
class Cluster:
    """How many workers there are and which one, counted from 0, this process is; the chief is number 0."""

    workers: int
    index: int

    def folder(self, chosen: Path) -> Path:
        """Return the run folder of this worker: the chosen one is the chief's, and others keep their log beside it."""
        return chosen.with_name(f"{chosen.name}-worker-{self.index}") if self.index else chosen


def cluster() -> Cluster:
    """Return what the environment variable TF_CONFIG says.

    Raises:
      TlxError: it is not set, or does not name workers and which one this process is.
    """
    wanted = f"; fit.strategy = 'multi_worker' wants the same on every machine but for the index, such as {_EXAMPLE}"
    text = os.environ.get(_CLUSTER)
    if not text:
        raise TlxError(f"{_CLUSTER} is not set{wanted}")
    try:
        given = json.loads(text)
        addresses, kind, index = given["cluster"]["worker"], given["task"]["type"], given["task"]["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise TlxError(f"{_CLUSTER} cannot be understood ({type(error).__name__}: {error}){wanted}") from None
    listed = isinstance(addresses, list) and addresses and all(isinstance(one, str) for one in addresses)
    if not listed or list(given["cluster"]) != ["worker"] or kind != "worker":
        raise TlxError(f"{_CLUSTER} must name workers, and nothing but workers{wanted}")
    if type(index) is not int or not 0 <= index < len(addresses):
        raise TlxError(f"{_CLUSTER}: task index {index!r} is none of the {len(addresses)} workers{wanted}")
    return Cluster(len(addresses), index)

"""What is known about how much memory training takes, remembered from one study to the next."""

import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tlx import checkpoint, ownership
from tlx.errors import TlxError
from tlx.lock import locked
from tlx.predict import BATCH

_PACKAGES = ("tlx", "tensorflow", "keras", "numpy")
_FORMAT = 5
_MORE = 1.1


@dataclass(frozen=True)
class Need:
    """How much memory one phase of a kind of run takes, in bytes.

    It is `fixed`, `each` for each example of a micro-batch, and `look` for each of those that are evaluated at once.
    Where a process died of a larger micro-batch, `tried` is the one that was gone on with, and `within` the limit.
    `left` stays with the process when the phase is over; `fixed` counts what the phases before have left.
    """

    fixed: float
    each: float
    look: float = 0.0
    tried: int | None = None
    within: float = 0.0
    left: float = 0.0

    def peak(self, micro: int) -> float:
        """Return the predicted peak, in bytes."""
        return self.fixed + micro * self.each + min(micro, BATCH) * self.look

    def largest(self, wanted: int, limit: float, margin: float) -> int:
        """Return the largest micro-batch up to `wanted` whose peak fits `margin` times; 0 where not even 1 does."""
        room = max(0.0, limit / margin - self.fixed)
        fits = int(room // max(self.each + self.look, 1.0))
        if fits >= BATCH:
            fits = int((room - BATCH * self.look) // max(self.each, 1.0))
        return min(fits, self.largest_tried(wanted, limit))

    def largest_tried(self, wanted: int, limit: float) -> int:
        """Return the largest micro-batch up to `wanted` that a death does not speak against."""
        # With notably more room than there was then, more may be tried again.
        return wanted if self.tried is None or limit > _MORE * self.within else min(wanted, self.tried)


# The need of a phase that could not be measured: anything may fit.
UNKNOWN = (Need(0.0, 0.0),)


class Ledger:
    """The needs of the phases by kind of run, in one file that any number of processes may read and write."""

    def __init__(self, file: Path):
        self.file = file.expanduser()

    def get(self, key: str) -> tuple[Need, ...] | None:
        """Return what is known about each phase of a kind of run, or None."""
        entry = self._read().get(key)
        return _needs(entry) if entry else None

    def above(self, family: str, size: int) -> Iterator[tuple[Need, ...]]:
        """Yield what is known about kinds of a family that are larger than `size`, the smallest first."""
        kinds = [entry for entry in self._read().values() if entry.get("family") == family and entry["size"] > size]
        yield from map(_needs, sorted(kinds, key=lambda entry: entry["size"]))

    def put(
        self, key: str, needs: Sequence[Need], what: str, family: str | None = None, size: int | None = None
    ) -> None:
        """Remember the need of each phase; `what` says in words of which kind of run.

        Kinds of one `family` differ in nothing but their `size`, and the larger takes more.
        """
        with locked(self.file.with_name(f".tlx-{self.file.stem}.lock")):
            entries = self._read()
            ownership.adopt(self.file)
            related = {"family": family, "size": size} if family else {}
            entries[key] = entries.get(key, {}) | {"what": what, "needs": [asdict(need) for need in needs]} | related
            checkpoint.write(self.file, json.dumps({"format": _FORMAT, "entries": entries}, indent=1).encode())

    def died(self, key: str, next_tries: Sequence[int | None], within: float, what: str) -> tuple[Need, ...]:
        """Remember which micro-batch (0 for none) is left to try after a death, and return what is known now.

        There is one for each phase, None where the death says nothing about the phase.
        """
        known = self.get(key) or UNKNOWN * len(next_tries)
        needs = tuple(
            # Two processes may have died of one kind of run at the same time.
            need if tries is None else replace(need, tried=need.largest_tried(tries, within), within=within)
            for need, tries in zip(known, next_tries, strict=True)
        )
        self.put(key, needs, what)
        return needs

    def _read(self) -> dict[str, dict]:
        if not self.file.exists():
            return {}
        try:
            content = json.loads(self.file.read_bytes())
            format, entries = content["format"], dict(content["entries"])
        except (ValueError, TypeError, KeyError):
            what = "is not where tlx remembers what training takes, and is left as it is"
            raise TlxError(f"{self.file} {what}: move it elsewhere") from None
        return entries if format == _FORMAT else {}


def _needs(entry: dict) -> tuple[Need, ...]:
    return tuple(Need(**need) for need in entry["needs"])


def kind(what: str) -> str:
    """Return the key of a kind of run, described by `what`, on this hardware with these versions."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    hardware = [platform.machine(), str(os.cpu_count()), str(total >> 30), os.environ.get("CUDA_VISIBLE_DEVICES", "")]
    return hashlib.sha256("\n".join([what, *versions, *hardware]).encode()).hexdigest()[:24]

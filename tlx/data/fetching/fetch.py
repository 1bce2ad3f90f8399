"""Downloads all images of a manifest, once: a few at a time, each kept whole and with its checksum, or not at all."""

import os
import queue
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from tlx import ownership
from tlx.data.dataset import Finding
from tlx.data.fetching.download import Budget, Watch, download
from tlx.data.fetching.naming import choose_stems, suffix_of
from tlx.data.fetching.rules import Limits, Network, RefusedError, host_of
from tlx.data.formats import fetched, manifest
from tlx.data.formats.fetched import Entry
from tlx.data.images import file_hash, open_image
from tlx.errors import DataError
from tlx.lock import only_process

_WORKERS = 6
_PARTIAL = ".tlx-partial-"
_PATIENCE = 3.0


class Failure(NamedTuple):
    """An image that could not be had: the manifest's line and URL, the cause in a few words, what was seen."""

    line: int
    url: str
    cause: str
    detail: str


@dataclass
class Outcome:
    """What became of a manifest's images: numbers of those downloaded now and before, and every failure."""

    folder: Path
    fetched: int = 0
    there: int = 0
    bytes: int = 0
    failed: list[Failure] = field(default_factory=list)


class Links(NamedTuple):
    """A manifest's URLs with the first line of each, how many rows name none, and what is wrong with its rows."""

    lines: dict[str, int]
    others: int
    findings: list[Finding]


def links(file: Path) -> Links:
    """Return the URLs that a manifest names, with or without labels.

    Raises:
      DataError: it is no manifest, or names no URL.
    """
    findings: list[Finding] = []
    rows, _ = manifest.read(file, file.name, findings)
    lines: dict[str, int] = {}
    for row in rows:
        if row.url:
            lines.setdefault(row.url, row.line)
    if not lines:
        raise DataError(f"{file}: none of its {len(rows)} rows has a URL, such as https://example.com/1.jpg")
    return Links(lines, sum(not row.url for row in rows), findings)


def hosts(urls: Iterable[str]) -> Counter[str]:
    """Return how many of the URLs each host has; "" for those that are not a URL of a host."""

    def host(url: str) -> str:
        try:
            return host_of(url)
        except RefusedError:
            return ""

    return Counter(map(host, urls))


def fetch(
    lines: dict[str, int],
    folder: Path,
    limits: Limits,
    network: Network | None = None,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Outcome:
    """Download images into a folder, and list them in its index; see `tlx.data.formats.fetched`.

    What the index has, and the folder with the right checksum, is not downloaded again. Stopped at any
    moment, also by a kill, it goes on from there at the next call.

    Args:
      lines: the URLs, each with the manifest's line for messages; as `links` returns them.
      folder: made if it is not there.
      limits: what may be downloaded.
      network: the machine's own where it is None.
      report: is told (done, total) after each image.

    Raises:
      TlxError: the folder holds what tlx did not make, or another process is filling it.
      OSError: a file cannot be written.
    """
    _adopt(folder)
    ownership.take(folder, "images")
    with only_process(folder):
        ownership.sweep(folder, _PARTIAL)
        index = fetched.load(folder).entries
        missing = [url for url in lines if url not in index or not _is_there(folder, index[url])]
        outcome = Outcome(folder, there=len(lines) - len(missing))
        stems = {url: Path(entry.file).stem for url, entry in index.items()}
        stems |= choose_stems([url for url in missing if url not in index], stems.values())
        report(outcome.there, len(lines))
        results = _results(folder, {url: stems[url] for url in missing}, limits, network or Network())
        with _appending(folder / fetched.INDEX) as file, closing(results):
            for url, result in results:
                if isinstance(result, Entry):
                    _append(file, result)
                    outcome.fetched += 1
                    outcome.bytes += result.bytes
                elif isinstance(result, RefusedError):
                    outcome.failed.append(Failure(lines[url], url, result.cause, str(result)))
                else:
                    raise result
                report(outcome.there + outcome.fetched + len(outcome.failed), len(lines))
    outcome.failed.sort()
    return outcome


def _adopt(folder: Path) -> None:
    """Take over what was downloaded before tlx kept lists: the index and its checksums prove it."""
    if ownership.kind(folder) is None and (entries := fetched.load(folder).entries.values()):
        proven = (folder / entry.file for entry in entries if _is_there(folder, entry))
        ownership.adopt(folder / fetched.INDEX, *proven, kind="images")


def _results(
    folder: Path, stems: dict[str, str], limits: Limits, network: Network
) -> Iterator[tuple[str, Entry | Exception]]:
    try:
        yield from _Downloads(folder, ownership.scratch(folder, _PARTIAL), limits, network).results(stems)
    finally:
        ownership.sweep(folder, _PARTIAL)


def _is_there(folder: Path, entry: Entry) -> bool:
    file = folder / entry.file
    return file.is_file() and not file.is_symlink() and file_hash(file) == entry.sha256


@contextmanager
def _appending(index: Path) -> Iterator[BinaryIO]:
    with os.fdopen(ownership.opened(index, os.O_RDWR | os.O_APPEND), "ab+") as file:
        # A kill may have torn the last line; the next one must not continue it.
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        yield file


def _append(file: BinaryIO, entry: Entry) -> None:
    file.write(msgspec.json.encode(entry) + b"\n")
    file.flush()
    os.fsync(file.fileno())


@dataclass
class _Downloads:
    """Downloads into one folder, a few at a time."""

    folder: Path
    work: Path
    limits: Limits
    network: Network

    def __post_init__(self):
        self._stop = threading.Event()
        self._decoding = threading.Lock()
        self._budget = Budget(self.limits.total_bytes)

    def results(self, stems: dict[str, str]) -> Iterator[tuple[str, Entry | Exception]]:
        """Yield what became of each URL, whose file is to have that stem, in the order of their ends."""
        jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
        results: queue.SimpleQueue[tuple[str, Entry | Exception]] = queue.SimpleQueue()
        for url in stems:
            jobs.put(url)

        def work() -> None:
            while not self._stop.is_set():
                try:
                    url = jobs.get_nowait()
                except queue.Empty:
                    return
                try:
                    results.put((url, self._one(url, stems[url])))
                except Exception as error:
                    results.put((url, error))

        workers = [threading.Thread(target=work, daemon=True) for _ in range(min(_WORKERS, len(stems)))]
        for worker in workers:
            worker.start()
        try:
            for _ in stems:
                yield results.get()
        finally:
            self._stop.set()
            for worker in workers:
                worker.join(_PATIENCE)

    def _one(self, url: str, stem: str) -> Entry:
        number, name = tempfile.mkstemp(dir=self.work)
        partial = Path(name)
        try:
            with os.fdopen(number, "wb") as file:
                watch = Watch(self.limits.seconds, self._stop)
                got = download(url, file, self.limits, self.network, self._budget, watch)
                file.flush()
                os.fsync(file.fileno())
            # One at a time: a decoded picture may take a hundred times as much memory as its file.
            with self._decoding:
                _refuse_no_image(partial, got.content_type)
            with partial.open("rb") as file:
                target = self.folder / (stem + suffix_of(file.read(16)))
            if os.path.lexists(target) and not ownership.owns(target):
                raise RefusedError(
                    "name taken", f"{target} was not downloaded by tlx, and is left as it is; move it away"
                )
            ownership.claim(target)
            partial.chmod(0o644)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return Entry(url, target.name, got.sha256, got.bytes, got.final_url)


def _refuse_no_image(file: Path, content_type: str) -> None:
    try:
        open_image(file)
    except DataError as error:
        said = f" (it is said to be {content_type})" if content_type else ""
        raise RefusedError("not a readable image", str(error).partition(": ")[2] + said) from error

"""One download: a connection to a checked address, redirects checked again, bytes and time counted as they come."""

import hashlib
import http.client
import io
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, TypeVar
from urllib.parse import urljoin

from tlx.data.fetching.rules import Limits, Network, RefusedError, Target, addresses, checked

T = TypeVar("T")
_MOVED = (301, 302, 303, 307, 308)
_CHUNK = 65_536
# How long a wait may take to notice that all is to stop.
_SLICE = 0.25
_HEADERS = {
    "User-Agent": "tlx-fetch/1 (image dataset download)",
    "Accept": "image/*,*/*;q=0.5",
    # Compressed, its bytes would not be those that are counted.
    "Accept-Encoding": "identity",
    "Connection": "close",
}


class Got(NamedTuple):
    """What was downloaded: the SHA-256 and the number of the bytes, where from, and what they are said to be."""

    sha256: str
    bytes: int
    final_url: str
    content_type: str


class Watch:
    """Ends every wait of one download when its time is over, or when `stop` is set."""

    def __init__(self, seconds: float, stop: threading.Event):
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._stop = stop

    def left(self) -> float:
        """Return the seconds that are left; raises RefusedError where there are none."""
        left = self._end - time.monotonic()
        if self._stop.is_set():
            raise RefusedError("stopped")
        if left <= 0:
            raise RefusedError("timeout", f"took more than {self._seconds:g} s")
        return left

    def of(self, call: Callable[[], T]) -> T:
        """Return what a call returns that cannot be told to end, such as one to the system's resolver."""
        outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                outcome.put((call(), None))
            except BaseException as error:
                outcome.put((None, error))

        threading.Thread(target=run, daemon=True).start()
        while True:
            try:
                result, error = outcome.get(timeout=min(self.left(), _SLICE))
            except queue.Empty:
                continue
            if error:
                raise error
            return result


class Budget:
    """Counts the bytes of all downloads together."""

    def __init__(self, most: int):
        self._left = most
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Use some of it up; raises RefusedError where too little is left."""
        with self._lock:
            self._left -= count
            if self._left < 0:
                raise RefusedError("total limit reached", "raise --total_gb to go on")


def download(url: str, file: BinaryIO, limits: Limits, network: Network, budget: Budget, watch: Watch) -> Got:
    """Write what a URL leads to into `file`.

    Raises:
      RefusedError: the limits do not allow it, or the server does not give it.
      OSError: `file` cannot be written.
    """
    for _ in range(limits.redirects + 1):
        with _answer(checked(url, limits), network, watch) as answer:
            location = answer.getheader("Location")
            if answer.status not in _MOVED or not location:
                digest, count = hashlib.sha256(), 0
                for chunk in _content(answer, limits.max_bytes):
                    budget.take(len(chunk))
                    digest.update(chunk)
                    file.write(chunk)
                    count += len(chunk)
                return Got(digest.hexdigest(), count, url, answer.getheader("Content-Type", "")[:100])
            try:
                url = urljoin(url, location)
            except ValueError as error:
                raise RefusedError("not a URL", f"redirected to {location[:200]!r}") from error
    raise RefusedError("too many redirects", f"more than {limits.redirects}")


@contextmanager
def _answer(target: Target, network: Network, watch: Watch) -> Iterator[http.client.HTTPResponse]:
    """Ask for a target."""
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.default_port = {"https": 443, "http": 80}[target.scheme]
    with _connected(target, network, watch) as sock:
        connection.sock = _Channel(sock, watch)
        try:
            connection.request("GET", target.path, headers=_HEADERS)
            answer = connection.getresponse()
        except OSError as error:
            raise RefusedError("connection lost", f"{target.host}: {error}") from error
        except http.client.HTTPException as error:
            raise RefusedError("broken answer", f"{target.host}: {type(error).__name__} {error}") from error
        with answer:
            yield answer


def _connected(target: Target, network: Network, watch: Watch) -> socket.socket:
    """Connect to an address that was checked, by that address: the name is not looked up again."""
    failure = None
    for address in watch.of(lambda: addresses(target, network)):
        try:
            sock = socket.create_connection((address, target.port), timeout=watch.left())
        except OSError as error:
            failure = error
            continue
        if target.scheme == "http":
            return sock
        try:
            sock.settimeout(watch.left())
            return network.context.wrap_socket(sock, server_hostname=target.host.strip("[]"))
        except BaseException as error:
            sock.close()
            if isinstance(error, (OSError, ValueError)):
                raise RefusedError("no secure connection", f"{target.host}: {error}") from error
            raise
    raise RefusedError("unreachable", f"{target.host}: {failure}") from failure


def _content(answer: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    if answer.status != 200:
        raise RefusedError(f"HTTP {answer.status}", answer.reason[:100])
    if encoding := answer.getheader("Content-Encoding", "identity").strip().lower().replace("identity", ""):
        raise RefusedError("compressed", f"came as {encoding[:40]} though it was asked for as it is")
    expected, count = answer.length, 0
    if expected is not None and expected > most:
        raise RefusedError("too large", f"{expected:,} bytes where at most {most:,} are allowed")
    while chunk := _read(answer):
        count += len(chunk)
        if count > most:
            raise RefusedError("too large", f"more than {most:,} bytes")
        yield chunk
    if expected is not None and count < expected:
        raise RefusedError("truncated", f"ended after {count:,} of {expected:,} bytes")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(_CHUNK)
    except OSError as error:
        raise RefusedError("connection lost", str(error)) from error
    except http.client.HTTPException as error:
        raise RefusedError("broken answer", f"{type(error).__name__} {error}") from error


class _Channel:
    """What http.client takes for a connected socket: one whose every wait ends with the download's time."""

    def __init__(self, sock: socket.socket, watch: Watch):
        self._sock = sock
        self._watch = watch

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._watch.left())
        self._sock.sendall(data)

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._sock, self._watch))

    def close(self) -> None:
        """Leave the socket to its owner: http.client closes it before the answer is read."""


class _Incoming(io.RawIOBase):
    def __init__(self, sock: socket.socket, watch: Watch):
        super().__init__()
        self._sock = sock
        self._watch = watch

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while True:
            self._sock.settimeout(min(self._watch.left(), _SLICE))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                continue

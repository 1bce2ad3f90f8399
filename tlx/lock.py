"""One process at a time, in a run folder or over a file."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from tlx import ownership
from tlx.errors import TlxError


@contextlib.contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it when its holder dies, however it dies.

    Raises:
      TlxError: a file of that name is there that tlx did not make.
    """
    with os.fdopen(ownership.opened(path, os.O_RDWR)) as file:
        fcntl.flock(file, how)
        yield


@contextlib.contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold a run folder, made if it is not there, for this process alone; the kernel lets go of it at its death.

    Raises:
      TlxError: another process holds it; the message names that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with os.fdopen(ownership.opened(folder / ownership.LOCK, os.O_RDWR), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TlxError(f"{folder} is in use by process {file.read().strip()}; wait, or end that one") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield

"""Who works on a study: one driver alone, or one on each of many hosts, which share it by a PostgreSQL server.

Each host beats for the trials that it runs. All that is decided together (who takes the next trial, which one was
left by a dead host) is decided under one lock, which the server itself gives back when its holder dies.
"""

import contextlib
import hashlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tlx import checkpoint, ownership
from tlx.config import Experiment
from tlx.errors import ConfigError, TrainingError
from tlx.search.postgresql import Server
from tlx.search.storage import JOURNAL, SHARED, identity, journal, mend

# So often, in seconds, a host says that it lives; one that is silent for the grace is taken for dead.
BEAT = 10.0
GRACE = 90.0


class Alone:
    """The only driver of a study, kept in its folder: what is called running, and is not its own, has no driver."""

    # What the trials of this host say of where they ran.
    name: str | None = None
    server: Server | None = None
    study_name = "tlx"
    lost = "the search was ended from outside while this trial ran"

    def __init__(self, folder: Path):
        if (folder / SHARED).exists():
            where = json.loads((folder / SHARED).read_text())["storage"]
            raise ConfigError(
                f"{folder} takes part in a search that {where} keeps; give --storage, or another --run_dir"
            )
        ownership.claim(folder / JOURNAL)
        mend(folder / JOURNAL)
        self._keep(folder, journal(folder))

    def _keep(self, folder: Path, storage: Any) -> None:
        self.folder, self.storage = folder, storage
        # Workers' threads take turns at Optuna; a trial itself needs no turn.
        self.turn = threading.RLock()
        self.study: Any = None
        self._held: dict[int, Any] = {}

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else from the study: the threads of this driver, and other hosts. Not to be nested."""
        with self.turn:
            yield

    def join(self, study: Any) -> None:
        """Take part in a study."""
        self.study = study

    def take(self, trial: Any) -> None:
        """Say that this host runs a trial."""
        self._held[trial.number] = trial

    def leave(self, trial: Any) -> None:
        """Say that it does not, any more."""
        self._held.pop(trial.number, None)

    def orphans(self, running: Sequence[Any]) -> list[Any]:
        """Return those trials, of all that are called running, that nobody runs."""
        return [trial for trial in running if trial.number not in self._held]

    def close(self) -> None:
        """Leave the study; what this host has not finished, others may take up at once."""
        self._held.clear()

    def claim(self) -> bool:
        """Return whether this host may conclude the study now."""
        return True

    def disclaim(self) -> None:
        """Let other hosts conclude it."""

    def note(self, key: str, of: Any, value: Any) -> None:
        """Note in the study what was concluded `of` these trials, for later drivers and the other hosts."""
        self.study.set_user_attr(key, {"of": of, "value": value})

    def noted(self, key: str, of: Any) -> Any:
        """Return what was noted, if it was concluded of the same trials; else None."""
        known = self.study.user_attrs.get(key)
        return known["value"] if known and known["of"] == of else None

    @property
    def seconds(self) -> float:
        """How long the study has taken by the clock when it was noted last, times without a driver left out."""
        return self.study.user_attrs.get("seconds", 0.0)

    def agree(self, key: str, value: str, conflict: str) -> None:
        """Refuse, with the message `conflict`, what other hosts have otherwise."""

    def missing(self, row: dict[str, Any]) -> str | None:
        """Return where a trial's folder is, in words, if it is not on this host."""


class Shared(Alone):
    """One of the hosts of a study that a server keeps.

    Raises:
      ConfigError: the folder or the study belongs to another experiment.
    """

    def __init__(self, folder: Path, server: Server, study_name: str):
        if (folder / JOURNAL).exists():
            raise ConfigError(f"{folder} holds a search of its own; leave --storage away, or give another --run_dir")
        self.server, self.study_name = server, study_name
        self.name = self._identify(folder)
        self.lost = f"its host was not heard of for {GRACE:.0f} s, or left"
        self._keep(folder, server.storage())
        digest = hashlib.sha256(study_name.encode()).digest()
        self._key = int.from_bytes(digest[:8], signed=True)
        self._beating, self._over = threading.Lock(), threading.Event()
        # Since when this host has been in touch with the server without a gap, and when it was last.
        self._since = self._last = time.monotonic()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def _identify(self, folder: Path) -> str:
        """Return this host's name, which belongs to its run folder."""
        file = folder / SHARED
        known = json.loads(file.read_text()) if file.exists() else {}
        ours = {"storage": str(self.server), "study": self.study_name}
        if known and {key: known[key] for key in ours} != ours:
            where = f"the study {known['study']} in {known['storage']}"
            raise ConfigError(f"{folder} takes part in {where}; give another --run_dir")
        name = known.get("host") or f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}"
        checkpoint.write(file, json.dumps({**ours, "host": name}).encode())
        return name

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self.turn, self.storage.engine.begin() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (self._key,))
            yield

    def join(self, study: Any) -> None:
        self.study = study
        self._note_host(self._now())
        self._thread.start()

    def take(self, trial: Any) -> None:
        trial.set_user_attr("host", self.name)
        # Last of all: one that is called running and has never had a beat was left half taken.
        self.storage.record_heartbeat(trial._trial_id)
        self._held[trial.number] = trial

    def leave(self, trial: Any) -> None:
        with self._beating:
            if self._held.pop(trial.number, None):
                self._silence([trial])

    def orphans(self, running: Sequence[Any]) -> list[Any]:
        ages = self._ages(running) if running else {}
        return [
            trial
            for trial in super().orphans(running)
            if trial._trial_id not in ages
            or trial.user_attrs.get("host") == self.name
            or (ages[trial._trial_id] > GRACE and self._in_touch())
        ]

    def close(self) -> None:
        self._over.set()
        self.server.stopping.set()
        if self._thread.ident:
            self._thread.join()
            # A host that cannot say that it leaves is missed all the same, a little later.
            with contextlib.suppress(Exception):
                self._silence(list(self._held.values()))
                self._note_host(0.0)
        self._held.clear()
        self.storage.engine.dispose()

    def claim(self) -> bool:
        with self.alone():
            holder = self.study.user_attrs.get("concluding")
            if holder not in (None, self.name) and self._alive(holder):
                return False
            self.study.set_user_attr("concluding", self.name)
            return True

    def disclaim(self) -> None:
        self.study.set_user_attr("concluding", None)

    def agree(self, key: str, value: str, conflict: str) -> None:
        known = self.study.user_attrs.get(key)
        if known is None:
            self.study.set_user_attr(key, value)
        elif known != value:
            raise ConfigError(conflict)

    def missing(self, row: dict[str, Any]) -> str | None:
        if row["host"] == self.name:
            return None
        there = self._host(row["host"])
        place = f"{row['host']}, in {there.get('folder')}/{row['folder']}"
        if not self._alive(row["host"]):
            raise TrainingError(
                f"the best one, trial {row['trial']}, is on {place}, and that host is not here to judge it: run the"
                f" same command there. Where it is gone for good, train it anew: tlx train, with these --gin_bindings:"
                f" {row['bindings']}"
            )
        return place

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            # Whatever is wrong with the server, the driver itself meets too, and tells.
            with contextlib.suppress(Exception):
                with self._beating:
                    for trial in list(self._held.values()):
                        self.storage.record_heartbeat(trial._trial_id)
                self._note_host(self._now())
                now = time.monotonic()
                if now - self._last > GRACE / 2:
                    self._since = now
                self._last = now

    def _in_touch(self) -> bool:
        """Return whether this host would have heard: after a gap for all, the first one back must not bury the rest."""
        now = time.monotonic()
        return now - self._last <= GRACE / 2 and now - self._since >= GRACE

    def _ages(self, trials: Sequence[Any]) -> dict[int, float]:
        """Return how many seconds ago, by the server's clock, each trial had its last beat, if it has had any."""
        age = "extract(epoch FROM localtimestamp - heartbeat)"
        sql = f"SELECT trial_id, {age} FROM trial_heartbeats WHERE trial_id = ANY(%s)"
        with self.storage.engine.connect() as connection:
            found = connection.exec_driver_sql(sql, ([trial._trial_id for trial in trials],))
            return {trial: float(age) for trial, age in found}

    def _silence(self, trials: Sequence[Any]) -> None:
        with self.storage.engine.begin() as connection:
            sql = "DELETE FROM trial_heartbeats WHERE trial_id = ANY(%s)"
            connection.exec_driver_sql(sql, ([trial._trial_id for trial in trials],))

    def _now(self) -> float:
        with self.storage.engine.connect() as connection:
            return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar())

    def _host(self, name: str) -> dict[str, Any]:
        return self.study.user_attrs.get(f"host {name}") or {}

    def _note_host(self, seen: float) -> None:
        self.study.set_user_attr(f"host {self.name}", {"folder": str(self.folder.absolute()), "seen": seen})

    def _alive(self, name: str) -> bool:
        seen = self._host(name).get("seen", 0.0)
        return seen > 0 and (self._now() - seen < GRACE or not self._in_touch())


def host(experiment: Experiment, folder: Path, server: Server | None, study_name: str | None) -> Alone:
    """Return this host's part in the study of an experiment: alone in `folder`, or among those that `server` serves."""
    if server is None:
        return Alone(folder)
    if not study_name:
        digest = hashlib.sha256(identity(experiment).encode()).hexdigest()
        study_name = f"{experiment.name}-{digest[:8]}"
    return Shared(folder, server, study_name)

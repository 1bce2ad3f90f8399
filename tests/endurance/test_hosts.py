"""Many hosts, one study on a PostgreSQL server: nothing is run twice, nothing lost, whichever host dies.

A host is a process with a folder of its own. The server is a real one, begun by these tests on loopback; they are
skipped where PostgreSQL is not installed (Debian: apt-get install postgresql).
"""

import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from tlx import config
from tlx.commands import shared as commands
from tlx.errors import ConfigError
from tlx.search import hosts
from tlx.search.postgresql import Server
from tlx.search.storage import SHARED, identity, open_study, read_study

pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'tlx[postgresql]'")

LONG = bool(os.environ.get("TLX_ENDURANCE"))
SCRIPT = Path(__file__).with_name("cheap_search.py")
MINIMAL = Path(__file__).parents[1] / "minimal.gin"
PASSWORD = "s3cr:t@/word"
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "/none")]
    return found[-1].parent if found[-1].exists() else None


def install() -> None:
    """Install PostgreSQL where that was asked for, as CI may: Debian's package, without a server of its own."""
    if _programs() is None and os.environ.get("TLX_POSTGRES") and shutil.which("apt-get") and os.getuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-qq", "-y", "postgresql"], check=False)


class Postgres:
    """A server on loopback, its data in a folder that goes away with the tests."""

    def __init__(self, folder: Path):
        self.folder, self.programs = folder, _programs()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # It refuses to be run by root.
        self.user = pwd.getpwnam("nobody").pw_uid if os.getuid() == 0 else None
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self.user is not None:
            for path in (folder, secret):
                os.chown(path, self.user, -1)
        self._do("initdb", "-U", "tlx", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync", "-D", folder / "data")
        self.start()
        self._made = 0

    def _do(self, program, *arguments):
        command = [self.programs / program, *arguments]
        subprocess.run(command, user=self.user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._do("pg_ctl", "start", "-w", "-D", self.folder / "data", "-l", self.folder / "log", "-o", options)

    def stop(self):
        self._do("pg_ctl", "stop", "-m", "fast", "-D", self.folder / "data")

    def address(self, database, password="s3cr%3At%40%2Fword"):
        return f"postgresql://tlx:{password}@127.0.0.1:{self.port}/{database}"

    def database(self):
        import psycopg  # noqa: PLC0415  Where it is missing, all of this is skipped.

        self._made += 1
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE study{self._made}")
        return self.address(f"study{self._made}")


@pytest.fixture(scope="module")
def postgres():
    install()
    if _programs() is None:
        pytest.skip("PostgreSQL is not installed; TLX_POSTGRES=1 installs it, as root on Debian")
    # Its user must be able to enter the folder, which pytest's own folders do not allow; a socket's path is short.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/tlx-postgres-XXXXXX"], text=True).strip())
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def shared(postgres, tmp_path):
    """A study that hosts may join: `begin(name)` starts one, and `trials()` is what stock Optuna reads."""
    address = postgres.database()
    running = []

    def begin(name, trials, grace=3.0):
        command = [sys.executable, str(SCRIPT), str(trials), str(tmp_path / name), address, "0.3", str(grace)]
        with (tmp_path / f"{name}.log").open("a") as log:
            running.append(subprocess.Popen(command, stderr=log))
        return running[-1]

    def trials():
        storage = optuna.storages.RDBStorage(address.replace("postgresql:", "postgresql+psycopg:"))
        try:
            names = optuna.get_all_study_names(storage)
            return optuna.load_study(study_name=names[0], storage=storage).trials if names else []
        finally:
            storage.engine.dispose()

    def result(name):
        return json.loads((tmp_path / name / "result.json").read_text())

    def host(name):
        file = tmp_path / name / SHARED
        return json.loads(file.read_text())["host"] if file.exists() else "nobody"

    def finish(*names, trials):
        """Run the command again where it did not come to an end; by then all hosts tell of the same result."""
        again = [begin(name, trials) for name in names if not (tmp_path / name / "result.json").exists()]
        assert [process.wait(60) for process in again] == [0] * len(again)
        assert all(result(name) == result(names[0]) for name in names)

    yield SimpleNamespace(**locals())
    for process in running:
        process.kill()
        process.wait()


def exact(trials, budget):
    """Check that a budget was kept exactly, and that of each trial, however often begun, one attempt was finished."""
    finished = Counter(t.user_attrs.get("retry_of", t.number) for t in trials if t.state in FINISHED)
    assert finished.total() == budget
    assert set(finished.values()) == {1}
    assert {t.user_attrs.get("retry_of", t.number) for t in trials} == set(finished)
    # Each orphan was queued again once.
    parents = Counter(t.user_attrs.get("retry_of") for t in trials)
    failed = Counter(t.user_attrs.get("retry_of", t.number) for t in trials if t.state == optuna.trial.TrialState.FAIL)
    assert {root: parents[root] for root in failed} == dict(failed)


def wait_for(what, seconds=60):
    until = time.monotonic() + seconds
    while not (seen := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return seen


def test_two_hosts_share_the_trials_and_tell_of_the_same_result(shared):
    both = [shared.begin(name, 12) for name in ("a", "b")]
    assert [host.wait(60) for host in both] == [0, 0]
    trials = shared.trials()
    exact(trials, 12)
    assert len({t.params["fit.learning_rate"] for t in trials}) == 12
    assert len({t.user_attrs["host"] for t in trials}) == 2
    a, b = shared.result("a"), shared.result("b")
    assert a == b
    assert [row["trial"] for row in a["trials"]] == list(range(12))
    (winner,) = (name for name in ("a", "b") if shared.host(name) == a["best"]["host"])
    # A trial says "validation"; this one was judged, where its weights are.
    judged = [f for f in shared.tmp_path.glob("*/trials/*/result.json") if b"test" in f.read_bytes()]
    assert judged == [shared.tmp_path / winner / a["best"]["folder"] / "result.json"]
    for file in (f for name in ("a", "b") for f in (shared.tmp_path / name).rglob("*") if f.is_file()):
        assert b"s3cr" not in file.read_bytes()
    # Run again, it is all done, and nothing is judged anew.
    before = judged[0].stat().st_mtime_ns
    assert shared.begin(winner, 12).wait(60) == 0
    assert judged[0].stat().st_mtime_ns == before
    assert shared.result(winner) == a


def test_what_a_dead_host_left_is_retried_once_by_another(shared):
    dying, living = shared.begin("a", 10), shared.begin("b", 10)

    def running():
        return [
            t for t in shared.trials() if t.state.name == "RUNNING" and t.user_attrs.get("host") == shared.host("a")
        ]

    wait_for(running)
    dying.kill()
    dying.wait()
    left = {t.number for t in running()}
    assert left
    wait_for(lambda: not running())
    lost = [t for t in shared.trials() if t.state.name == "FAIL"]
    # One that was taken in the moment of the kill may not have said yet whose it was.
    assert left <= {t.number for t in lost}
    assert {t.user_attrs.get("host") for t in lost} <= {shared.host("a"), None}
    assert all("not heard of" in t.user_attrs["cause"] for t in lost)
    # The winner may lie with the dead one, which is then asked for.
    if living.wait(60):
        assert shared.host("a") in (shared.tmp_path / "b.log").read_text()
    shared.finish("a", "b", trials=10)
    exact(shared.trials(), 10)


@pytest.mark.skipif(not LONG, reason="takes long; `make endurance` runs it")
def test_a_host_that_was_asleep_does_not_finish_what_another_has_taken_up(shared):
    sleeper, other = shared.begin("a", 8, grace=2.0), shared.begin("b", 8, grace=2.0)
    wait_for(lambda: [t for t in shared.trials() if t.user_attrs.get("host") == shared.host("a") and t.params])
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_for(lambda: len([t for t in shared.trials() if t.state in FINISHED]) == 8)
    os.kill(sleeper.pid, signal.SIGCONT)
    for host in (sleeper, other):
        host.wait(60)
    shared.finish("a", "b", trials=8)
    exact(shared.trials(), 8)


@pytest.mark.skipif(not LONG, reason="takes long; `make endurance` runs it")
def test_a_server_that_is_away_for_a_while_costs_nothing(shared, postgres):
    host = shared.begin("a", 8)
    wait_for(lambda: any(t.state in FINISHED for t in shared.trials()))
    postgres.stop()
    time.sleep(1)
    postgres.start()
    # In the midst of a transaction there is no going on; the message says what to do, and doing it suffices.
    if host.wait(60):
        assert "goes on from here" in (shared.tmp_path / "a.log").read_text()
    shared.finish("a", trials=8)
    exact(shared.trials(), 8)


def test_no_run_notes_down_a_password(postgres, monkeypatch):
    address = postgres.address("postgres")
    monkeypatch.setattr(sys, "argv", ["tlx", "search", "x.gin", f"--storage={address}"])
    monkeypatch.setattr(commands, "FLAGS", SimpleNamespace(storage=address))
    assert str(commands.server()) == f"postgresql://127.0.0.1:{postgres.port}/postgres"
    assert sys.argv == ["tlx", "search", "x.gin", f"--storage=postgresql://127.0.0.1:{postgres.port}/postgres"]


HOSTS, TRIALS, KILLS = (3, 1000, 100) if LONG else (2, 16, 3)


def test_hosts_that_are_killed_at_any_moment_lose_nothing(shared, saw):
    chance = random.Random(0)
    names = [f"host{i}" for i in range(HOSTS)]
    running = {}
    kills, seen = 0, {}
    while not all((shared.tmp_path / name / "result.json").exists() for name in names):
        for name in names:
            if name not in running or running[name].poll() is not None:
                if name in running and running[name].returncode == 1:
                    # The winner lies with another one, which is dead just now.
                    assert "is not here to judge it" in (shared.tmp_path / f"{name}.log").read_text()[-500:]
                running[name] = shared.begin(name, TRIALS, grace=2.0)
        time.sleep(chance.uniform(0.2, 2.5))
        if kills < KILLS:
            victim = running[chance.choice(names)]
            if victim.poll() is None:
                victim.kill()
                victim.wait()
                kills += 1
        now = {t.number: str(t.datetime_complete) for t in shared.trials() if t.state in FINISHED}
        assert seen.items() <= now.items()
        seen = now
    assert kills == KILLS
    exact(shared.trials(), TRIALS)
    assert all(shared.result(name) == shared.result(names[0]) for name in names)
    counts = f"{kills} of {HOSTS} hosts killed (and begun again), {TRIALS} trials"
    saw("hosts of one PostgreSQL study killed", f"{counts}: none lost, none finished twice, all tell of one result")


def load(*bindings):
    return config.load([MINIMAL], ["search.space = {'fit.learning_rate': ('log', 1e-5, 1e-1)}", *bindings])


def test_an_experiment_is_the_same_wherever_its_data_lies_and_no_other(tmp_path):
    same = identity(load())
    for binding in ("readers.scenes.path = '/elsewhere'", "search.trials = 9", "search.workers = 7"):
        assert identity(load(binding)) == same
    for binding in (
        "fit.epochs = 7",
        "run.seed = 1",
        "search.sampler = 'tpe'",
        "run.backbone = @backbones.mobilenet()",
    ):
        assert identity(load(binding)) != same


def test_another_experiment_or_other_data_is_refused(tmp_path, shared):
    def join(name, *bindings):
        (tmp_path / name).mkdir(exist_ok=True)
        experiment = load(*bindings)
        host = hosts.host(experiment, tmp_path / name, Server(shared.address), "mine")
        settings = config.build(experiment.trees["search"])
        host.join(open_study(settings, host.storage, host.study_name, 3, host.name))
        try:
            host.agree("experiment", identity(experiment), "another experiment")
        finally:
            host.close()

    join("a")
    join("b")
    with pytest.raises(ConfigError, match="another experiment"):
        join("c", "fit.epochs = 7")
    with pytest.raises(ConfigError, match="takes part in"):
        hosts.host(load(), tmp_path / "a", Server(shared.address), "yours")
    with pytest.raises(ConfigError, match="give --storage"):
        hosts.host(load(), tmp_path / "a", None, None)
    with pytest.raises(ConfigError, match="give --storage"):
        read_study(tmp_path / "a")
    assert read_study(tmp_path / "a", Server(shared.address)).study_name == "mine"


@pytest.mark.parametrize(
    "address",
    [
        "mysql://u:hush@h/d",
        "postgresql://u:hush@h",
        "nonsense hush",
        "postgresql://u:hush@hush@h/d",
        "postgresql://h/d?password=hush",
    ],
)
def test_an_address_that_makes_no_sense_is_refused_without_its_password(address):
    with pytest.raises(ConfigError, match="expected postgresql://") as refused:
        Server(address)
    assert "hush" not in str(refused.value)


def test_a_wrong_password_is_not_told(postgres):
    with pytest.raises(ConfigError, match="password authentication failed") as refused:
        Server(postgres.address("postgres", "hush"))
    assert "hush" not in str(refused.value)


def test_a_server_that_is_not_there_is_named(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match=f"postgresql://127.0.0.1:{port}/d does not answer"):
        Server(f"postgresql://u:hush@127.0.0.1:{port}/d")

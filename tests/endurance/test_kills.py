"""Nothing kills a study: SIGKILL at random moments to drivers and workers, and a journal cut anywhere.

The short form runs with the other tests; `make endurance` runs the long one and writes down what it saw.
"""

import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import optuna
from optuna.storages.journal._storage import JournalOperation

from tlx import checkpoint
from tlx.search import storage

LONG = bool(os.environ.get("TLX_ENDURANCE"))
KILLS, TRIALS = (500, 1000) if LONG else (12, 60)
CHECKPOINTS = 200 if LONG else 15
RERUNS = 10 if LONG else 1
SCRIPT = Path(__file__).with_name("cheap_search.py")
# Records of a trial's beginning, of a parameter, of how it ended, and of what is noted down about it.
CUT = [
    JournalOperation[kind]
    for kind in ("CREATE_TRIAL", "SET_TRIAL_PARAM", "SET_TRIAL_STATE_VALUES", "SET_TRIAL_USER_ATTR")
]
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def test_a_search_survives_being_killed_at_any_moment(tmp_path, saw):
    folder = tmp_path / "run"
    seen: dict[int, str] = {}
    kills: Counter[str] = Counter()
    chance = random.Random(0)
    while not (folder / "result.json").exists():
        driver = subprocess.Popen([sys.executable, str(SCRIPT), str(TRIALS), str(folder)])
        if kills.total() < KILLS:
            harass(driver, kills, chance)
        assert driver.wait() in (0, -signal.SIGKILL)
        seen = check(folder, seen)
    assert kills.total() >= KILLS
    check_features(folder)
    check_budget(folder, TRIALS)
    counts = f"{kills['driver']} kills of drivers, {kills['worker']} of workers, {TRIALS} trials"
    saw(
        "searches killed at random moments",
        f"{counts}: none lost, none finished twice, always readable by stock Optuna",
    )


def cheap_search() -> ModuleType:
    """Return the module beside this file, which pytest does not know."""
    spec = importlib.util.spec_from_file_location("cheap_search", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_features(folder: Path) -> None:
    """Check that each finished trial's features are stored, and that all which are stored are whole."""
    result = json.loads((folder / "result.json").read_text())
    rates = {f"{row['score']:.0e}" for row in result["trials"] if row["state"] == "complete"}
    assert rates
    for rate in rates:
        found = cheap_search().stored(folder / "features", rate)
        assert (found.found, found.computed) == (10, 0)
        assert all((found.read(picture, 0)[0] == np.float32(rate)).all() for picture in "0123456789")


def check_budget(folder: Path, trials: int) -> None:
    """Check that so many trials were finished, none of them twice, and that none that was begun was lost."""
    result = json.loads((folder / "result.json").read_text())
    finished = [row for row in result["trials"] if row["state"] in ("complete", "pruned")]
    assert len(finished) == trials
    roots = Counter(map(root, finished))
    assert set(roots.values()) == {1}
    assert set(map(root, result["trials"])) == set(roots)


def root(row: dict) -> int:
    return row["trial"] if row["retry_of"] is None else row["retry_of"]


def harass(driver: subprocess.Popen, kills: Counter, chance: random.Random) -> None:
    """Kill some of a driver's workers, one after another, and then the driver, unless it ends before."""
    for _ in range(chance.randrange(3)):
        if ended(driver, chance.uniform(0.1, 0.9)):
            return
        if (worker := worker_of(driver.pid, chance)) is not None:
            os.kill(worker, signal.SIGKILL)
            kills["worker"] += 1
    if not ended(driver, chance.uniform(0.1, 1.2)):
        driver.kill()
        kills["driver"] += 1


def ended(driver: subprocess.Popen, wait: float) -> bool:
    try:
        driver.wait(wait)
    except subprocess.TimeoutExpired:
        return False
    return True


def worker_of(process: int, chance: random.Random) -> int | None:
    workers = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            # The multiprocessing module keeps a tracker beside the workers, which nobody here is after.
            children = [int(child) for child in file.read_text().split()]
            workers += [c for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    return chance.choice(workers) if workers else None


def check(folder: Path, before: dict[int, str]) -> dict[int, str]:
    """Read the study as any user of Optuna would; what was finished before is finished still, at the same time."""
    journal = folder / storage.JOURNAL
    if not journal.exists() or not journal.stat().st_size:
        return before
    copy = folder / "copy.journal"
    shutil.copy(journal, copy)
    storage.mend(copy)
    try:
        trials = stock(copy)
    except KeyError:
        # Killed before it had been written down that there is a study.
        assert not before
        return before
    now = {t.number: str(t.datetime_complete) for t in trials if t.state in FINISHED}
    assert before.items() <= now.items()
    return now


def stock(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a journal as Optuna by itself reads them."""
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.load_study(study_name="tlx", storage=optuna.storages.JournalStorage(backend)).trials


def test_a_journal_cut_at_any_byte_of_a_record_is_gone_on_with(tmp_path, saw):
    folder = tmp_path / "run"
    subprocess.run([sys.executable, str(SCRIPT), "3", str(folder)], check=True)
    records = (folder / storage.JOURNAL).read_bytes().splitlines(keepends=True)
    kinds = [json.loads(record)["op_code"] for record in records]
    chance, cuts = random.Random(0), 0
    for kind in CUT:
        last = len(kinds) - 1 - kinds[::-1].index(kind)
        before, record = b"".join(records[:last]), records[last]
        check_cuts(tmp_path / "cut.journal", before, record)
        cuts += len(record)
        for cut in chance.sample(range(len(record)), RERUNS):
            again = tmp_path / f"{kind.name}{cut}"
            shutil.copytree(folder, again, ignore=shutil.ignore_patterns("result.json"))
            (again / storage.JOURNAL).write_bytes(before + record[:cut])
            seen = check(again, {})
            subprocess.run([sys.executable, str(SCRIPT), "3", str(again)], check=True)
            check(again, seen)
            check_budget(again, 3)
    reruns = f"{RERUNS * len(CUT)} of them gone on with to the exact number of trials"
    saw("a journal cut at every byte of a record of each kind", f"{cuts} cuts: no half record left; {reruns}")


def check_cuts(journal: Path, before: bytes, record: bytes) -> None:
    """Check that, wherever in its last record a journal ends, it is read as if that record had never been begun."""
    journal.write_bytes(before)
    whole = stock(journal)
    for cut in range(len(record)):
        journal.write_bytes(before + record[:cut])
        storage.mend(journal)
        assert journal.read_bytes() == before
        assert stock(journal) == whole


WRITER = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {here!r})
from cheap_search import Variable
from tlx import checkpoint
step = 0
while True:
    step += 1
    checkpoint.save(Path({path!r}), [Variable(np.full(50_000, float(step)))], {{"step": step}})
"""


def test_a_checkpoint_whose_writer_is_killed_is_whole(tmp_path, saw):
    variable = cheap_search().Variable
    path = tmp_path / "checkpoint.npz"
    code = WRITER.format(here=str(SCRIPT.parent), path=str(path))
    chance = random.Random(0)
    for _ in range(CHECKPOINTS):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code])
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        writer.kill()
        writer.wait()
        weights = variable(np.zeros(50_000))
        notes = checkpoint.load(path, [weights])
        assert (weights.value == notes["step"]).all()
    saw("writers of checkpoints killed", f"{CHECKPOINTS} kills: every checkpoint loads, weights and notes agree")

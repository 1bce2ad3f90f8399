"""Nothing kills a study: SIGKILL at random moments to drivers and workers, and a journal cut anywhere.

The short form runs with the other tests; `make endurance` runs the long one and writes down what it saw.
"""

import contextlib
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

import numpy as np
import optuna

from tlx import checkpoint
from tlx.search import storage

LONG = bool(os.environ.get("TLX_ENDURANCE"))
KILLS, TRIALS = (500, 1000) if LONG else (12, 60)
CHECKPOINTS = 200 if LONG else 15
SCRIPT = Path(__file__).with_name("cheap_search.py")
EXPERIMENT = """\
run.data = @splits.own()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.fcos()
run.freeze = @freezes.last_layers()
readers.voc.path = '{folder}/none'
splits.own.dataset = @readers.voc()
freezes.last_layers.unfrozen = 0
memory.probe = False
search.trials = {trials}
search.sampler = 'random'
search.workers = 2
search.space = {{'fit.learning_rate': ('log', 1e-5, 1e-1)}}
"""
FINISHED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def test_a_search_survives_being_killed_at_any_moment(tmp_path, saw):
    gin, folder = tmp_path / "cheap.gin", tmp_path / "run"
    gin.write_text(EXPERIMENT.format(folder=tmp_path, trials=TRIALS))
    seen: dict[int, str] = {}
    kills: Counter[str] = Counter()
    chance = random.Random(0)
    while not (folder / "result.json").exists():
        driver = subprocess.Popen([sys.executable, str(SCRIPT), str(gin), str(folder)])
        if kills.total() < KILLS:
            harass(driver, kills, chance)
        assert driver.wait() in (0, -signal.SIGKILL)
        seen = check(folder, seen)
    assert kills.total() >= KILLS
    kept = [p for p in (folder / "features").iterdir() if p.is_dir() and p.suffix != ".partial"]
    assert kept
    assert {(p / "0.npy").stat().st_size for p in kept} == {1_000_000}
    result = json.loads((folder / "result.json").read_text())
    finished = [row for row in result["trials"] if row["state"] in ("complete", "pruned")]
    assert len(finished) == TRIALS
    roots = Counter(map(root, finished))
    assert set(roots.values()) == {1}
    # Of every trial that was begun, one attempt was finished: none was lost.
    assert set(map(root, result["trials"])) == set(roots)
    counts = f"{kills['driver']} kills of drivers, {kills['worker']} of workers, {TRIALS} trials"
    saw(
        "searches killed at random moments",
        f"{counts}: none lost, none finished twice, always readable by stock Optuna",
    )


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
    backend = optuna.storages.journal.JournalFileBackend(str(copy))
    try:
        study = optuna.load_study(study_name="tlx", storage=optuna.storages.JournalStorage(backend))
    except KeyError:
        # Killed before it had been written down that there is a study.
        assert not before
        return before
    now = {t.number: str(t.datetime_complete) for t in study.trials if t.state in FINISHED}
    assert before.items() <= now.items()
    return now


def test_a_journal_cut_at_any_byte_of_its_last_record_is_gone_on_with(tmp_path, saw):
    gin, folder = tmp_path / "cheap.gin", tmp_path / "run"
    gin.write_text(EXPERIMENT.format(folder=tmp_path, trials=3))
    subprocess.run([sys.executable, str(SCRIPT), str(gin), str(folder)], check=True)
    journal = folder / storage.JOURNAL
    content = journal.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    whole = storage.read_study(folder).trials
    for cut in range(last, len(content)):
        journal.write_bytes(content[:cut])
        storage.mend(journal)
        # A record is whole, or it is not there.
        assert journal.read_bytes() == content[:last]
        trials = storage.read_study(folder).trials
        assert [t.number for t in trials] == [t.number for t in whole]
    saw("a journal cut at every byte of its last record", f"{len(content) - last} cuts, each gone on with")


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
    sys.path.insert(0, str(SCRIPT.parent))
    from cheap_search import Variable  # noqa: PLC0415  Beside this file, and not a module that pytest knows.

    sys.path.remove(str(SCRIPT.parent))
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
        weights = Variable(np.zeros(50_000))
        notes = checkpoint.load(path, [weights])
        assert (weights.value == notes["step"]).all()
    saw("writers of checkpoints killed", f"{CHECKPOINTS} kills: every checkpoint loads, weights and notes agree")

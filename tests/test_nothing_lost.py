"""Nothing of a user's is lost: whole commands among strangers' files, under every name that tlx itself uses."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tlx.data.scenes import write_scenes

EXPERIMENT = f"""\
include '{Path(__file__).with_name("small.gin")}'
readers.scenes.path = '{{folder}}/scenes'
features.folder = '{{folder}}/features'
fit.epochs = {{epochs}}
fit.evaluations = {{epochs}}
memory.probe = False
search.trials = 1
search.space = {{{{'fit.learning_rate': ('log', 1e-4, 1e-2)}}}}
"""
# Names like those of tlx itself, but for a letter, and some of those that it once had.
NAMES = (
    *("notes.txt", "process.lock", "holiday.lock", "memory.lock", "backup/mail", "config.gin.bak", "data.json~"),
    *("best-model.npz", "best-12.npz.old", "best-.npz", ".worker.log.77/notes", ".worker.log.7-notes/a"),
    *("study.journal.lock", "study.journal.lock.rename", "checkpoint-mine.npz", "partial-mine.weights.h5"),
    *("pictures/mine.jpg", "tensorboard/events.out.tfevents.mine", "trials/mine/result.json", "repeats/mine"),
    *("trials/0000.txt", ".tlx-partial-mine/a", ".tlx-made.bak", "key.partial/0.npy", "0001-mine.jpg"),
    *("predictions/notes.txt", "worker-mine.log", "sheet-mine.png", "index-mine.html", ".config.gin.partial.mine"),
)


def listing(folder):
    """The checksum of every file in a folder, and where each link leads."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def plant(*folders):
    """Put strangers' files into folders, and links that lead to one of them."""
    for folder in folders:
        for name in NAMES:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                (folder / name).write_text(f"mine: {name}")
        if not (folder / "a link").is_symlink():
            (folder / "a link").symlink_to(folder / "notes.txt")


class Tlx:
    """Runs commands in a folder that is a user's home as well, and holds what else must not change."""

    def __init__(self, folder):
        self.folder, self.kept = folder, {}
        self.environment = {**os.environ, "HOME": str(folder / "home")}

    def keep(self):
        """Remember all that is there and was not written by tlx, which is for the caller to say."""
        self.kept |= {
            name: digest
            for name, digest in listing(self.folder).items()
            if "mine" in name or name.startswith("scenes/") or any(name.endswith(f"/{n}") for n in NAMES)
        }

    def start(self, *arguments):
        command = [sys.executable, "-m", "tlx", *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments, codes=(0,)):
        child = self.start(*arguments)
        output = child.communicate()[0]
        assert child.returncode in codes, output
        now = listing(self.folder)
        assert {name: now.get(name) for name in self.kept} == self.kept
        return " ".join(output.split())


@pytest.fixture(scope="module")
def tlx(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    write_scenes(folder / "scenes", 10, 0)
    for name, epochs in (("short", 1), ("long", 20)):
        (folder / f"{name}.gin").write_text(EXPERIMENT.format(folder=folder, epochs=epochs))
    plant(folder / "home/.cache/tlx")
    (folder / "features").mkdir()
    (folder / "features/notes.txt").write_text("mine")
    tlx = Tlx(folder)
    tlx.keep()
    return tlx


def test_a_killed_run_goes_on_and_an_overwritten_one_leaves_the_rest(tlx):
    run = tlx.folder / "run"
    child = tlx.start("train", "long.gin", "--run_dir=run")
    for _ in range(2400):
        if (run / "checkpoint.npz").exists() or child.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert (run / "checkpoint.npz").exists()
    assert not (run / "result.json").exists()

    plant(run, run / "pictures", run / "tensorboard")
    tlx.keep()
    (run / "result.json").write_text("mine")
    before = listing(run)
    refused = tlx("train", "long.gin", "--run_dir=run", codes=(1,))
    assert "under names that it needs: result.json" in refused
    assert listing(run) == before
    (run / "result.json").unlink()

    tlx("train", "long.gin", "--run_dir=run")
    assert (run / "result.json").exists()
    said = tlx("search", "short.gin", "--run_dir=run", codes=(1,))
    assert "holds a run of tlx train" in said
    said = tlx("search", "short.gin", "--run_dir=run", "--overwrite")
    assert "left as they are, since tlx did not write them" in said
    assert (run / "study.journal").exists()
    assert not (run / "checkpoint.npz").exists()

    tlx("predict", "run", "scenes/JPEGImages")
    drawn = next((run / "trials/0000/predictions").glob("0001-*.jpg"))
    plant(drawn.parent)
    tlx.keep()
    drawn.write_text("changed")
    tlx("predict", "run", "scenes/JPEGImages")
    assert drawn.stat().st_size > 100


def test_an_inspection_replaces_its_own_and_a_folder_with_other_things_is_refused(tlx):
    out = tlx.folder / "looked"
    for _ in range(2):
        tlx("inspect", "scenes", "--format=voc", f"--out={out}", codes=(0, 1))
        plant(out)
        tlx.keep()
    assert (out / "sheet.png").exists()
    mine = tlx.folder / "project"
    for name in ("index.html", "config.gin", "environment.json", "notes/plan.txt", "data/a.txt"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("mine")
    before = listing(mine)
    assert "config.gin, data, environment.json" in tlx("inspect", "scenes", f"--out={mine}", codes=(2,))
    for command in ("train", "search"):
        for more in ([], ["--overwrite"]):
            assert "holds what tlx did not make" in tlx(command, "short.gin", f"--run_dir={mine}", *more, codes=(1,))
    assert listing(mine) == before

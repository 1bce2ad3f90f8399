"""What tlx did not write stays as it is, whatever it is called."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tlx import checkpoint, marker, ownership
from tlx.errors import TlxError
from tlx.lock import locked, only_process
from tlx.ownership import MARKER, claim, clear, discard, fresh, owns, scratch, sweep, take
from tlx.work.ledger import Ledger, Need


def content(folder):
    """What is in a folder: files with their bytes, links with where they lead, and folders."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


@pytest.fixture
def run(tmp_path):
    take(tmp_path / "run", "run")
    return tmp_path / "run"


@pytest.mark.parametrize("kind", [kind for kind in ownership._NAMES if kind != "files"])
@pytest.mark.parametrize("name", ["notes.txt", "config.gin", "index.html", ".tlx.lock", "process.lock", ".hidden"])
def test_a_folder_with_something_else_in_it_is_refused_by_name(tmp_path, kind, name):
    (tmp_path / name).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(TlxError, match=rf"holds what tlx did not make.*\({name}\)"):
        take(tmp_path, kind)
    assert content(tmp_path) == before


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in ownership._NAMES.items() for name in names])
def test_a_name_that_will_be_needed_and_is_a_strangers_is_refused_at_the_start(tmp_path, kind, name):
    take(tmp_path, kind)
    (tmp_path / name).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(TlxError, match=f"under names that it needs: {name}; move"):
        take(tmp_path, kind)
    assert content(tmp_path) == before


def test_notes_that_come_later_are_nobodys_business(run):
    (run / "notes.txt").write_text("mine")
    take(run, "run")
    with pytest.raises(TlxError, match="holds a run of tlx train"):
        take(run, "search")


def test_what_is_written_is_ones_own_and_what_was_there_is_not(run):
    checkpoint.write(run / "a.json", b"1")
    checkpoint.write(run / "a.json", b"2")
    (run / "b.json").write_text("mine")
    (run / ".c.json.partial").write_text("mine")
    for name in ("b.json", "c.json"):
        with pytest.raises(TlxError, match=rf"{name} is there already, and tlx did not write it"):
            checkpoint.write(run / name, b"ours")
    assert owns(run / "a.json")
    assert not owns(run / "b.json")
    assert {k: v for k, v in content(run).items() if k != MARKER} == {
        "a.json": b"2",
        "b.json": b"mine",
        ".c.json.partial": b"mine",
    }


@pytest.mark.parametrize("link", ["a.json", ".a.json.partial", "in", "in/deep"])
@pytest.mark.parametrize("first", [False, True])
def test_nothing_is_written_through_a_link(run, tmp_path, link, first):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.json").write_text("mine")
    target = run / "in/deep/a.json" if "in" in link else run / "a.json"
    if first:
        checkpoint.write(target, b"ours")
        (run / link).rename(tmp_path / "moved") if (run / link).exists() else None
    (run / link).parent.mkdir(parents=True, exist_ok=True)
    (run / link).symlink_to(elsewhere / "a.json" if link.endswith("json") else elsewhere)
    for write in (lambda: checkpoint.write(target, b"ours"), lambda: fresh(target), lambda: claim(target)):
        with pytest.raises(TlxError, match="is a link, which nothing is written through"):
            write()
    discard(target)
    clear(run, "run")
    assert content(elsewhere) == {"a.json": b"mine"}
    assert (run / link).is_symlink()


def test_a_copy_that_is_a_hard_link_does_not_change_with_the_original(run, tmp_path):
    fresh(run / "test.jpg").write_bytes(b"first")
    os.link(run / "test.jpg", tmp_path / "kept.jpg")
    fresh(run / "test.jpg").write_bytes(b"second")
    assert (tmp_path / "kept.jpg").read_bytes() == b"first"


def test_what_is_gone_is_no_more_ones_own(run):
    checkpoint.write(run / "best-3.npz", b"ours")
    (run / "best-model.npz").write_text("mine")
    for name in ("best-3.npz", "best-model.npz", "none.npz"):
        discard(run / name)
    assert content(run).keys() == {MARKER, "best-model.npz"}
    (run / "best-3.npz").write_text("mine")
    discard(run / "best-3.npz")
    with pytest.raises(TlxError, match=r"best-3\.npz is there already"):
        checkpoint.write(run / "best-3.npz", b"ours")


def test_clearing_removes_what_was_made_and_names_the_rest(tmp_path):
    root = tmp_path / "study"
    take(root, "search")
    checkpoint.write(root / "config.gin", b"ours")
    for part in ("trials/0000", "trials/0001"):
        take(root / part, "run", within=root)
        checkpoint.write(root / part / "result.json", b"ours")
        checkpoint.write(root / part / "pictures/a.jpg", b"ours")
    (scratch(root, ".worker.log.7-") / "left").write_text("ours")
    take(root / "another", "run")
    checkpoint.write(root / "another/result.json", b"another run, that somebody put here")
    mine = ("notes/plan.txt", "trials/0001/best-model.npz", "trials/0001/pictures/mine.jpg", ".worker.log.77")
    for name in mine:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("mine")
    (root / "link").symlink_to(tmp_path)
    before = content(tmp_path)
    with only_process(root):
        left = clear(root, "run")
    assert left == sorted([*mine, "link", "another/result.json"])
    after = content(tmp_path)
    kept = {f"study/{name}" for name in (*left, "notes", "another", "another/.tlx-made", "trials")}
    kept |= {f"study/trials/0001{more}" for more in ("", "/pictures", "/.tlx-made")}
    assert after.keys() == {"study", "study/.tlx-made", "study/.tlx.lock", *kept}
    assert {name: after[name] for name in kept - {"study/trials/0001/.tlx-made"}} == {
        name: before[name] for name in kept - {"study/trials/0001/.tlx-made"}
    }
    take(root, "run")
    assert not owns(root / "config.gin")
    with only_process(root):
        assert clear(root, "search") == left


def test_a_sweep_takes_scratch_folders_and_nothing_that_looks_like_them(run):
    mine = run / ".worker.log.7-notes"
    mine.mkdir()
    (scratch(run, ".worker.log.7-") / "left").write_text("ours")
    other = scratch(run, ".worker.log.77-")
    sweep(run, ".worker.log.7-")
    assert {path.name for path in run.iterdir()} == {MARKER, mine.name, other.name}


@pytest.mark.parametrize("name", ["../mine", "/{folder}/mine", "a/../../mine", "./../mine", "..", ".", "", 7, None])
@pytest.mark.parametrize("what", ["file", "tree", "folder", "marked"])
def test_a_list_proves_nothing_outside_of_its_folder(run, tmp_path, what, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    name = name.format(folder=tmp_path) if isinstance(name, str) else name
    marker.append(run, {name: what})
    if isinstance(name, str):
        marker.append(run, {name.replace("mine", "file"): what})
    before = content(tmp_path / "mine")
    clear(run, "run")
    assert content(tmp_path / "mine") == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["", "mine\n", "[1]\n", "{}\n", '{"made by": "somebody"}\n', '{"made by": "tlx", "for']
)
def test_a_strangers_file_of_the_lists_name_is_refused(tmp_path, text):
    (tmp_path / MARKER).write_text(text)
    for ask in (lambda: take(tmp_path, "run"), lambda: claim(tmp_path / "a"), lambda: ownership.kind(tmp_path)):
        with pytest.raises(TlxError, match="is not the list that tlx keeps"):
            ask()
    assert content(tmp_path) == {MARKER: text.encode()}


def test_a_list_that_is_a_link_or_of_a_later_format_is_refused(run, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MARKER).symlink_to(run / MARKER)
    with pytest.raises(TlxError, match="is not the list"):
        take(tmp_path / "other", "run")
    (run / MARKER).write_text('{"made by": "tlx", "format": 2}\n')
    with pytest.raises(TlxError, match="of format 2"):
        take(run, "run")


def test_a_torn_line_proves_nothing_and_hides_nothing(run):
    with (run / MARKER).open("a") as file:
        file.write('["file", "mi')
    (run / "mine").write_text("mine")
    checkpoint.write(run / "a", b"ours")
    marker._KNOWN.clear()
    assert owns(run / "a")
    assert not owns(run / "mine")
    assert clear(run, "run") == ["mine"]


def test_many_may_claim_the_same_names_at_once(tmp_path):
    def work(number):
        for i in range(20):
            checkpoint.write(tmp_path / f"new/{number}/{i}", b"x")
            claim(tmp_path / "new/shared")
            (tmp_path / "new/shared").touch()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    marker._KNOWN.clear()
    assert all(owns(tmp_path / f"new/{number}/{i}") for number in range(8) for i in range(20))


@pytest.mark.parametrize("text", ["", "1234", "mine"])
def test_a_strangers_lock_is_neither_held_nor_changed(tmp_path, text):
    for name in ("holiday.lock", ".tlx.lock", "process.lock"):
        (tmp_path / name).write_text(text)
    before = content(tmp_path)
    with pytest.raises(TlxError, match=r"holiday\.lock is there already"), locked(tmp_path / "holiday.lock"):
        pass
    with pytest.raises(TlxError, match=r"\.tlx\.lock is there already"), only_process(tmp_path):
        pass
    assert {name: what for name, what in content(tmp_path).items() if name != MARKER} == before


def test_a_lock_is_held_again_and_again(tmp_path):
    for _ in range(2):
        with only_process(tmp_path / "run"):
            assert (tmp_path / "run" / ownership.LOCK).read_text() == str(os.getpid())


@pytest.mark.parametrize("text", ["mine", "[]", "{}", '{"format": 3}', '{"format": 3, "entries": 4}', "\xff"])
def test_a_strangers_file_of_the_ledgers_name_is_left_alone(tmp_path, text):
    (tmp_path / "memory.json").write_text(text)
    (tmp_path / "memory.lock").write_text("mine")
    for ask in (lambda ledger: ledger.get("a"), lambda ledger: ledger.put("a", [Need(1.0, 2.0)], "what")):
        with pytest.raises(TlxError, match=r"memory\.json is not where tlx remembers"):
            ask(Ledger(tmp_path / "memory.json"))
    assert (tmp_path / "memory.json").read_text() == text
    assert (tmp_path / "memory.lock").read_text() == "mine"

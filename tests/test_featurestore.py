"""Pictures' features are computed once, survive whoever dies, and make room without touching what is not tlx's."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tlx.featurefiles import MARKER, TakenError
from tlx.featurestore import lease, make_room
from tlx.segment import Layout, proof

KEY, OTHER = "a" * 32, "b" * 32
LAYOUT = Layout(2, ((20, 30), (50,)), "float32")
BYTES = LAYOUT.bytes
# A segment is a little larger than its numbers.
REST = 400


def features(picture, view):
    rng = np.random.default_rng([*picture.encode(), view])
    return [rng.standard_normal(shape).astype(np.float32) for shape in LAYOUT.shapes]


class Store:
    """A store of drawn features that notes what it computes."""

    def __init__(self, root, cap=1e9):
        self.root, self.cap, self.computed = root, cap, []

    def __call__(self, pictures, key=KEY):
        return lease(self.root, key, LAYOUT, pictures, self.compute, self.cap)

    def compute(self, missing):
        self.computed += missing
        for picture in missing:
            yield [
                np.stack(arrays) for arrays in zip(*(features(picture, v) for v in range(LAYOUT.views)), strict=True)
            ]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "features")


def agrees(found, pictures):
    for picture in pictures:
        for view in range(LAYOUT.views):
            for a, b in zip(found.read(picture, view), features(picture, view), strict=True):
                np.testing.assert_array_equal(a, b)
    return True


def segments(root, key="*"):
    return sorted(Path(root).glob(f"tlx-features-{key}/segment-*"))


def listing(folder):
    """Everything in a folder: kinds, links' targets, digests of contents, and times of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        link = os.readlink(path) if path.is_symlink() else ""
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not link else ""
        found[path.relative_to(folder)] = (
            path.lstat().st_mode,
            link,
            digest,
            path.is_dir() or path.lstat().st_mtime_ns,
        )
    return found


def test_what_is_stored_is_found(store):
    assert agrees(store("abc"), "abc")
    found = store("cab")
    assert agrees(found, "abc")
    assert store.computed == [*"abc"]
    assert (found.found, found.computed) == (3, 0)


def test_a_picture_added_is_all_that_is_computed(store):
    store("abc")
    found = store("abcd")
    assert agrees(found, "abcd")
    assert (found.found, found.computed) == (3, 1)
    assert store.computed == [*"abcd"]


def test_one_picture_twice_is_computed_once(store):
    assert agrees(store(["a", "b", "a"]), "ab")
    assert store.computed == ["a", "b"]


def test_no_pictures_take_no_file(store):
    assert store([]).found == 0
    assert list(store.root.iterdir()) == []


def test_folds_of_one_dataset_fill_it_once(store):
    pictures = [f"picture {i}" for i in range(20)]
    for fold in range(5):
        train = [p for i, p in enumerate(pictures) if i % 5 != fold]
        assert agrees(store(train), train)
    assert sorted(store.computed) == sorted(pictures)


def test_another_key_shares_nothing(store):
    store("ab")
    store("ab", OTHER)
    assert store.computed == [*"abab"]


def test_many_small_segments_become_few(store):
    pictures = [f"{i}" for i in range(120)]
    for i in range(len(pictures)):
        found = store(pictures[: i + 1])
    assert agrees(found, pictures)
    assert store.computed == pictures
    assert len(segments(store.root)) < 30
    assert sum(path.stat().st_size for path in segments(store.root)) < len(pictures) * (BYTES + REST)
    assert agrees(store(pictures), pictures)
    assert store.computed == pictures


def truncated(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flipped(where):
    def flip(path):
        data = bytearray(path.read_bytes())
        data[where(len(data))] ^= 1
        path.write_bytes(data)

    return flip


DAMAGES = {
    "truncated": truncated,
    "a flipped byte of a number": flipped(lambda size: 64 + BYTES + 3),
    "a flipped byte of the record": flipped(lambda size: size - 30),
    "a flipped byte of the end": flipped(lambda size: size - 1),
    "no record": lambda path: path.write_bytes(path.read_bytes()[: 64 + 3 * BYTES]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_segment_is_computed_again_and_removed(store, damage):
    store("abc")
    store("de")
    (whole,) = [path for path in segments(store.root) if path.stat().st_size > 64 + 3 * BYTES]
    damage(whole)
    assert agrees(store("abcde"), "abcde")
    assert store.computed == [*"abcdeabc"]
    assert not whole.exists()
    assert len(segments(store.root)) == 2


def foreign_file(path):
    path.unlink()
    path.write_bytes(b"a photo" * 100)


def empty_file(path):
    path.write_bytes(b"")


def foreign_folder(path):
    path.unlink()
    path.mkdir()
    (path / "photo.jpg").write_bytes(b"photo")


def link(path):
    elsewhere = path.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def without_head(path):
    flipped(lambda size: 0)(path)


@pytest.mark.parametrize("foreign", [foreign_file, empty_file, foreign_folder, link, pipe, without_head])
def test_what_is_not_tlx_s_under_a_segment_s_name_is_neither_believed_nor_touched(store, foreign):
    store("abc")
    (path,) = segments(store.root)
    foreign(path)
    before = listing(store.root)
    assert agrees(store("abc"), "abc")
    assert store.computed == [*"abcabc"]
    make_room(store.root, 0)
    assert before.items() <= listing(store.root).items()


def test_an_entry_s_place_that_somebody_else_has_is_refused_by_name(store):
    for make in (lambda p: p.mkdir(), lambda p: p.write_text("mine"), lambda p: p.symlink_to(store.root)):
        store.root.mkdir(exist_ok=True)
        make(store.root / f"tlx-features-{KEY}")
        before = listing(store.root)
        with pytest.raises(TakenError, match=f"tlx-features-{KEY} is not tlx's own"):
            store("abc")
        assert listing(store.root) == before
        store.root.rename(store.root.with_name(f"before {len(before)} {time.monotonic_ns()}"))
    assert store.computed == []


def strangers(root):
    """Put into a folder what others might have there, also under names that tlx itself uses."""
    root.mkdir(parents=True)
    for name in ("holiday", "backup", KEY, f"{KEY}.partial", "tlx-features-mail", f"tlx-features-{'c' * 32}"):
        (root / name).mkdir()
        (root / name / "photo.jpg").write_bytes(b"photo" * 100)
        (root / name / f"segment-{'0' * 16}.features").write_bytes(b"photo" * 100)
        os.utime(root / name / "photo.jpg", (0, 0))
        os.utime(root / name, (0, 0))
    (root / f"tlx-features-{'d' * 32}").mkdir()
    (root / f"tlx-features-{'e' * 32}").symlink_to(root / "holiday")
    (root / f"tlx-features-{'f' * 32}").write_bytes(proof("f" * 32))
    (root / "holiday" / MARKER).write_bytes(proof("e" * 32))
    (root / f"tlx-features-{'c' * 32}" / MARKER).write_bytes(b"holiday")
    for name in (MARKER, "holiday.lock", f"{KEY}.lock", f"segment-{'0' * 16}.features"):
        (root / name).write_bytes(proof(KEY))


def test_strangers_are_not_touched_whatever_their_names(store):
    strangers(store.root)
    store("abc")
    entry = store.root / f"tlx-features-{KEY}"
    (path,) = segments(store.root, KEY)
    # A file of somebody else's in a folder of tlx's, and what looks like tlx's in all but one thing.
    (entry / "photo.jpg").write_bytes(b"photo")
    (entry / f"segment-{'1' * 16}.features").write_bytes(proof(OTHER) * 10)
    (entry / f"segment-{'2' * 16}.partial").symlink_to(store.root / "holiday" / "photo.jpg")
    (entry / f"segment-{'3' * 16}.features.bak").write_bytes(path.read_bytes())
    before = listing(store.root)
    store.cap = 10
    store("abc", OTHER)
    make_room(store.root, 0)
    after = listing(store.root)
    assert before.keys() - after.keys() == {path.relative_to(store.root)}
    assert {name: after[name] for name in before if name in after} == {n: k for n, k in before.items() if n in after}
    assert after.keys() <= before.keys()


def test_strangers_do_not_count(store):
    store.root.mkdir()
    (store.root / "holiday").write_bytes(bytes(10_000))
    store.cap = 2 * (3 * BYTES + REST)
    store("abc")
    store("abc", OTHER)
    assert len(segments(store.root)) == 2


def aged(store, pictures, key, age):
    store(pictures, key)
    when = time.time() - age
    for path in segments(store.root, key):
        os.utime(path, (when, when))


def test_the_least_recently_used_make_room(store):
    keys = [c * 32 for c in "0123"]
    for key, age in zip(keys, (300, 200, 100), strict=False):
        aged(store, "abc", key, age)
    store("a", keys[0])  # Being asked for is being used.
    store.cap = 3 * (3 * BYTES + REST)
    store("abc", keys[3])
    assert {path.parent.name[-1] for path in segments(store.root)} == {"0", "2", "3"}
    assert not (store.root / f"tlx-features-{keys[1]}").exists()


def test_within_one_key_too_the_least_recently_used_make_room(store):
    store("abc")
    store("def")
    old, new = sorted(segments(store.root), key=lambda p: p.stat().st_mtime_ns)
    store.cap = 2 * (3 * BYTES + REST)
    store("ghi")
    assert not old.exists()
    assert new.exists()
    assert store.computed == [*"abcdefghi"]


def test_what_is_leased_does_not_make_room_until_it_is_released(store):
    first = store("abc")
    store.cap = 3 * BYTES + REST
    second = store("abc", OTHER)
    assert len(segments(store.root)) == 2
    first.release()
    second.release()
    third = store("de", OTHER)
    assert segments(store.root, KEY) == []
    # What was leased once can still be read, although nobody else finds it.
    assert agrees(first, "abc")
    assert agrees(third, "de")
    first.release()


def test_a_lease_that_is_gone_holds_nothing(store):
    first = store("abc")
    assert len(segments(store.root)) == 1
    del first
    make_room(store.root, 0)
    assert list(store.root.iterdir()) == []


def test_one_process_that_serves_many_trials_honours_the_cap(store):
    store.cap = 2.5 * (3 * BYTES + REST)
    kept = []
    for i in range(5):
        train, validation = store("abc", f"{i}" * 32), store("de", f"{i + 5}" * 32)
        kept.append((train, validation))
        assert agrees(train, "abc")
        assert agrees(validation, "de")
        assert sum(path.stat().st_size for path in segments(store.root)) <= store.cap
        train.release()
        validation.release()


def test_a_failed_writer_leaves_nothing(store):
    def fail(missing):
        yield [np.zeros((1, *shape), np.float32) for shape in LAYOUT.shapes]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        lease(store.root, KEY, LAYOUT, "abc", fail, 1e9)
    assert segments(store.root) == []
    assert agrees(store("abc"), "abc")


def test_a_full_disk_is_told_before_anything_is_computed(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        store("abc")
    assert store.computed == []
    assert segments(store.root) == []


def test_what_is_being_written_counts_and_is_not_removed(store):
    store("abc", OTHER)

    def compute(missing):
        (partial,) = segments(store.root, KEY)
        # Another process makes room.
        make_room(store.root, 3 * BYTES)
        assert partial.exists()
        assert segments(store.root, OTHER) == []
        yield from store.compute(missing)

    assert agrees(lease(store.root, KEY, LAYOUT, "def", compute, 1e9), "def")


CHILD = """
import os, random, signal, sys, time
import numpy as np
sys.path.insert(0, sys.argv[1])
import test_featurestore as drawn
from pathlib import Path
store = drawn.Store(Path(sys.argv[2]))
job = sys.argv[3]
if job == "fork":
    kept = store("abc")
    if process := os.fork():
        os.waitpid(process, 0)
        drawn.make_room(store.root, 0)
        assert len(drawn.segments(store.root)) == 1
elif job == "stress":
    rng = random.Random(int(sys.argv[4]))
    store.cap = 2 * (3 * drawn.BYTES + drawn.REST)
    for _ in range(int(sys.argv[5])):
        pictures = rng.sample("abcdef", 3)
        drawn.agrees(store(pictures, rng.choice("0123") * 32), pictures)
else:
    def compute(missing):
        arrays = list(drawn.Store.compute(store, missing))
        yield arrays[0]
        if job == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        yield from arrays[1:]
    found = drawn.lease(store.root, drawn.KEY, drawn.LAYOUT, sys.argv[4], compute, 1e9)
    assert drawn.agrees(found, sys.argv[4])
assert "tensorflow" not in sys.modules
print("".join(store.computed))
"""


def child(root, *job):
    command = [sys.executable, "-c", CHILD, os.path.dirname(__file__), str(root), *map(str, job)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_forked_process_that_ends_lets_go_of_nothing(store):
    process = child(store.root, "fork")
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_of_two_that_ask_at_once_nothing_is_computed_twice(store):
    children = [child(store.root, "ask", pictures) for pictures in ("abcd", "cdef")]
    computed = [process.communicate(timeout=60)[0].strip() for process in children]
    assert [process.returncode for process in children] == [0, 0]
    assert sorted("".join(computed)) == [*"abcdef"]


def test_what_a_killed_writer_left_is_removed(store):
    killed = child(store.root, "killed", "abc")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in segments(store.root)] == [".partial"]
    assert agrees(store("abc"), "abc")
    assert store.computed == [*"abc"]
    assert [path.suffix for path in segments(store.root)] == [".features"]


def test_what_a_writer_of_other_features_left_is_removed_too(store):
    child(store.root, "killed", "abc").communicate(timeout=60)
    kept = store("abc", OTHER)
    assert list(store.root.iterdir()) == [store.root / f"tlx-features-{OTHER}"]
    kept.release()


def test_processes_that_remove_each_other_s_features_find_theirs_all_the_same(store):
    store.root.mkdir()
    (store.root / "holiday").mkdir()
    (store.root / "holiday" / "photo.jpg").write_bytes(b"photo")
    before = listing(store.root)
    children = [child(store.root, "stress", seed, 100) for seed in range(4)]
    computed = [process.communicate(timeout=120)[0] for process in children]
    assert [process.returncode for process in children] == [0] * 4
    # There was something to compete for.
    assert min(map(len, computed)) > 30
    make_room(store.root, 0)
    assert listing(store.root) == before

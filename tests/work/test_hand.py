"""A worker process that dies is told from its death, whatever it died of, and replaced."""

import importlib
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tlx.events import Listener
from tlx.memory import Limit
from tlx.work import hand as hand_room
from tlx.work.hand import Hand
from tlx.work.worker import scratch

MEGABYTE = 1_000_000
WORK = """
import mmap, os, resource, signal, sys, time

def main(connection, file, allow_imports, log):
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 2)
    kept = []
    globals()["parent"] = connection
    while True:
        task, bindings, arguments = connection.recv()
        connection.send(("say", (task,)))
        connection.send(globals()[task](kept, **arguments))

def hold(kept, megabytes):
    kept.append(bytearray(megabytes * 1_000_000))
    return "done", os.getpid()

def wait(kept):
    signal.pause()

def hold_and_wait(kept, megabytes):
    hold(kept, megabytes)
    signal.pause()

def grow(kept):
    while True:
        kept.append(bytearray(1_000_000))

def grow_within(kept, megabytes):
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(megabytes * 1_000_000), hard))
    try:
        grow(kept)
    except MemoryError:
        kept.clear()
        raise

def end(kept, by, words=""):
    print(words, file=sys.stderr, flush=True)
    if by != signal.SIGKILL:
        signal.signal(by, signal.SIG_DFL)
    os.kill(os.getpid(), by)
    signal.pause()

def hold_and_end(kept, megabytes, by):
    hold(kept, megabytes)
    time.sleep(0.3)
    end(kept, by)

def map_file(kept, path):
    with open(path, 'rb') as file:
        kept.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    sum(kept[-1][::4096])
    time.sleep(0.2)
    return "done", None

def leave(kept, code):
    os._exit(code)

def crash(kept, words):
    return "crashed", words

def ask(kept, looks):
    answers = []
    for look in looks:
        parent.send(("progress", ("training", look, len(looks), "")))
        parent.send(("evaluated", (look,)))
        answers.append(parent.recv())
    return "done", answers

def go_through(kept, phases, megabytes):
    for phase in phases:
        parent.send(("phase", (phase, 2)))
    hold(kept, megabytes)
    time.sleep(0.3)
    return "done", None
"""


@pytest.fixture
def hand(tmp_path, monkeypatch):
    """Return a function that gives a worker a limit in megabytes; it runs the tasks above."""
    (tmp_path / "deadly_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deadly_work", raising=False)
    made = []

    def hand(megabytes=10_000, on_gpu=None):
        limit = Limit(megabytes * MEGABYTE, "the test")
        work = importlib.import_module("deadly_work").main
        made.append(Hand(tmp_path / "none.gin", False, tmp_path / "worker.log", limit, on_gpu, work))
        return made[-1]

    yield hand
    for one in made:
        one.stop()


def test_a_worker_that_holds_more_than_it_may_is_ended_and_replaced(hand):
    worker = hand(200)
    first = worker.do("hold", [], megabytes=10)
    outcome = worker.do("grow", [])
    assert (first.kind, outcome.kind) == ("done", "memory")
    assert "signal 9" in outcome.content
    assert worker.do("hold", [], megabytes=10).content != first.content


def test_a_worker_that_holds_too_much_of_a_gpu_is_ended(hand, monkeypatch):
    worker = hand(10_000, Limit(500 * MEGABYTE, "the test"))
    held = iter([100 * MEGABYTE, 600 * MEGABYTE])
    monkeypatch.setattr(hand_room.gpu, "held_by", lambda process: next(held))
    outcome = worker.do("wait", [])
    assert (outcome.kind, outcome.held) == ("memory", 600 * MEGABYTE)
    assert "0.60 of 0.50 GB held" in outcome.content


@pytest.mark.parametrize(("megabytes", "kind"), [(20, "lost"), (170, "memory")])
def test_a_worker_is_not_blamed_for_what_others_hold(hand, monkeypatch, megabytes, kind):
    worker = hand(200)
    worker.do("hold", [], megabytes=1)
    held = hand_room.memory.held

    def available():
        """Nothing is left as soon as the worker holds so much, however long it takes."""
        return 0 if held(worker._process.pid)[0] > megabytes * MEGABYTE else 10**9

    monkeypatch.setattr(hand_room.memory, "available", available)
    outcome = worker.do("hold_and_wait", [], megabytes=megabytes)
    assert (outcome.kind, "the machine had no memory left" in outcome.content) == (kind, True)


def test_a_closed_worker_is_not_started_again(hand):
    worker = hand()
    worker.close()
    assert worker.do("hold", [], megabytes=1).kind == "lost"
    assert worker._process is None


def test_a_worker_that_was_started_ahead_does_the_work_unless_it_died(hand):
    worker = hand()
    worker.warm()
    first = worker._process
    worker.warm()
    assert worker.do("hold", [], megabytes=1).content == first.pid
    first.kill()
    first.join()
    assert worker.do("hold", [], megabytes=1).kind == "done"
    worker.close()
    worker.warm()
    assert worker._process is None


def test_another_worker_gets_ready_while_one_works(hand):
    worker, other = hand(), hand()
    assert worker.do("hold", [], ready=other, megabytes=1).kind == "done"
    assert other._process.is_alive()


def test_a_worker_without_work_imports_tensorflow(tmp_path):
    real = Hand(tmp_path / "none.gin", False, tmp_path / "worker.log", Limit(10_000 * MEGABYTE, "the test"))
    real.warm()
    maps = Path(f"/proc/{real._process.pid}/maps")
    deadline = time.monotonic() + 120
    while "_pywrap_tensorflow" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert "_pywrap_tensorflow" in maps.read_text()
    assert real.do("train", []).kind == "refused"
    real.stop()


def test_workers_of_several_threads_all_tell_how_they_ended(hand):
    workers = [hand() for _ in range(4)]

    def end(worker):
        return {worker.do("leave", [], code=3).content.partition(" (")[2][:11] for _ in range(8)}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(end, workers)) == [{"exit code 3"}] * 4


def test_an_error_of_the_parent_is_not_taken_for_the_worker_s_death(hand):
    class Full(Listener):
        def say(self, message):
            raise OSError("No space left on device")

    worker = hand()
    with pytest.raises(OSError, match="No space left"):
        worker.do("hold", [], Full(), megabytes=1)


def test_what_a_library_leaves_in_the_temporary_folder_goes_with_the_worker(tmp_path):
    real = Hand(tmp_path / "none.gin", False, tmp_path / "worker.log", Limit(10_000 * MEGABYTE, "the test"))
    # There is no such file, which the worker says; it lives on.
    assert real.do("train", []).kind == "refused"
    (tmp_path / f".worker.log.{real._process.pid}").mkdir()
    (made,) = tmp_path.glob(".worker.log.*-*")
    assert made.name.startswith(scratch(real.log, real._process.pid))
    strange = tmp_path / f"{scratch(real.log, real._process.pid)}notes"
    strange.mkdir()
    real.stop()
    assert not made.exists()
    assert len(list(tmp_path.glob(".worker.log.*"))) == 2


def test_pages_of_files_do_not_count(hand, tmp_path):
    (tmp_path / "features").write_bytes(bytes(200 * MEGABYTE))
    assert hand(100).do("map_file", [], path=tmp_path / "features").kind == "done"


@pytest.mark.parametrize(
    ("by", "words", "kind"),
    [
        (signal.SIGSEGV, "", "crash"),
        (signal.SIGABRT, "terminate called after throwing an instance of 'std::bad_alloc'", "memory"),
        (signal.SIGSEGV, "OOM when allocating tensor with shape[64,160,160,96]", "memory"),
        (signal.SIGABRT, "Check failed: rank == 4", "crash"),
        (signal.SIGKILL, "", "lost"),
        (signal.SIGTERM, "Allocator (GPU_0_bfc) ran out of memory ... indicates that this is not a failure", "lost"),
        (signal.SIGTERM, "", "lost"),
    ],
)
def test_a_death_is_judged_by_signal_and_words(hand, by, words, kind):
    worker = hand()
    outcome = worker.do("end", [], by=by, words=words)
    assert outcome.kind == kind
    assert f"signal {int(by)}" in outcome.content
    assert str(worker.log) in outcome.content


def test_what_an_earlier_worker_said_does_not_count(hand):
    worker = hand()
    assert worker.do("end", [], by=signal.SIGABRT, words="out of memory").kind == "memory"
    assert worker.do("end", [], by=signal.SIGABRT, words="assertion failed").kind == "crash"


@pytest.mark.parametrize("by", [signal.SIGSEGV, signal.SIGKILL])
def test_a_death_close_to_the_limit_is_one_for_want_of_memory(hand, by):
    assert hand(200).do("hold_and_end", [], megabytes=170, by=by).kind == "memory"
    assert hand(800).do("hold_and_end", [], megabytes=170, by=by).kind != "memory"


def test_an_exit_is_a_crash_and_its_code_is_told(hand):
    outcome = hand().do("leave", [], code=3)
    assert (outcome.kind, "exit code 3" in outcome.content) == ("crash", True)


def test_an_error_of_memory_is_told_from_others_and_its_process_not_used_again(hand):
    worker = hand()
    before = worker.do("hold", [], megabytes=1).content
    assert worker.do("crash", [], words="ResourceExhaustedError: OOM when allocating").kind == "memory"
    assert worker.do("hold", [], megabytes=1).content != before
    assert worker.do("crash", [], words="ValueError: no").kind == "crash"
    # oneDNN counts its reasons: 1 is memory, 2 are wrong arguments.
    failed = "AbortedError: Operation received an exception:Status: {}, message: could not create a primitive"
    assert worker.do("crash", [], words=failed.format(1)).kind == "memory"
    assert worker.do("crash", [], words=failed.format(2)).kind == "crash"


def test_a_thread_that_cannot_be_started_lacks_memory_only_where_address_space_is_short(hand, monkeypatch):
    words = "RuntimeError: can't start new thread"
    worker = hand()
    worker.do("hold", [], megabytes=50)
    assert worker.do("crash", [], words=words).kind == "crash"
    worker.do("hold", [], megabytes=50)
    monkeypatch.setattr(hand_room, "_space_limit", lambda: 20 * MEGABYTE)
    assert worker.do("crash", [], words=words).kind == "memory"


def test_a_worker_that_has_grown_is_replaced_before_its_next_task(hand):
    worker = hand(200)
    large = worker.do("hold", [], megabytes=150).content
    assert worker.do("hold", [], megabytes=1).content != large


def test_news_are_heard_and_what_is_evaluated_is_answered(hand):
    heard = []

    class Hearing(Listener):
        def say(self, message):
            heard.append(message)

        def progress(self, what, done, total, note=""):
            heard.append((what, done, total))

        def evaluated(self, look):
            return "prune" if look == 2 else super().evaluated(look)

    outcome = hand().do("ask", [], Hearing(), looks=[1, 2])
    assert outcome.content == ["continue", "prune"]
    assert heard == ["ask", ("training", 1, 2), ("training", 2, 2)]


@pytest.mark.parametrize(("phases", "last"), [([0, 1], 1), ([0], 0), ([], None)])
@pytest.mark.parametrize(("megabytes", "kind"), [(500, "memory"), (10, "done")])
def test_an_outcome_names_the_phase_that_was_told_of_last(hand, phases, last, megabytes, kind):
    worker, heard = hand(200), []

    class Hearing(Listener):
        def phase(self, number, of):
            heard.append((number, of))

    outcome = worker.do("go_through", [], Hearing(), phases=phases, megabytes=megabytes)
    assert (outcome.kind, outcome.phase, heard) == (kind, last, [(phase, 2) for phase in phases])
    # The next task has begun none.
    assert worker.do("hold", [], megabytes=1).phase is None


@pytest.mark.parametrize("number", range(10))
def test_every_limit_ends_in_a_verdict_of_memory(hand, number):
    megabytes = 60 + 7 * number
    if number % 2:
        assert hand(megabytes).do("grow", []).kind == "memory"
    else:
        outcome = hand().do("grow_within", [], megabytes=megabytes + 100)
        assert outcome.kind == "memory"

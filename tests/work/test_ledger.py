"""What is remembered about memory, and what follows from it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.work.ledger import Ledger, Need, kind

amounts = st.floats(0, 1e12)


@given(amounts, amounts, amounts, st.integers(1, 100_000), amounts, st.floats(1, 3), st.none() | st.integers(0, 1000))
def test_the_largest_micro_batch_fits_and_one_more_would_not(fixed, each, look, wanted, limit, margin, tried):
    need = Need(fixed, each, look, tried, limit)
    micro = need.largest(wanted, limit, margin)
    assert 0 <= micro <= wanted
    assert tried is None or micro <= tried
    if micro:
        assert need.peak(micro) * margin <= limit * (1 + 1e-6) + margin * micro
    if micro < min(wanted, wanted if tried is None else tried):
        assert need.peak(micro + 1) * margin >= limit * (1 - 1e-6) - margin * (micro + 1)


@pytest.mark.parametrize("needs", [(Need(1e9, 2e6),), (Need(1e9, 2e6), Need(2e9, 3e7, 1.0, 8, 4e9))])
def test_the_need_of_each_phase_comes_back_as_it_was_put(tmp_path, needs):
    ledger = Ledger(tmp_path / "deep" / "memory.json")
    assert ledger.get("a") is None
    ledger.put("a", needs, "head only")
    assert Ledger(tmp_path / "deep" / "memory.json").get("a") == needs
    assert ledger.get("b") is None


def test_a_death_is_learnt_from(tmp_path):
    ledger = Ledger(tmp_path / "memory.json")
    ledger.put("a", [Need(1.0, 1.0)], "head")
    assert ledger.died("a", [32], 1e12, "head") == (Need(1.0, 1.0, 0.0, 32, 1e12),)
    assert ledger.died("a", [50], 1e12, "head")[0].tried == 32
    assert ledger.died("a", [16], 1e12, "head")[0].tried == 16


@pytest.mark.parametrize("known", [True, False])
def test_a_death_teaches_about_its_own_phase(tmp_path, known):
    ledger = Ledger(tmp_path / "memory.json")
    before = (Need(1.0, 1.0), Need(2.0, 2.0)) if known else (Need(0.0, 0.0), Need(0.0, 0.0))
    if known:
        ledger.put("a", before, "two phases")
    after = ledger.died("a", [None, 32], 1e12, "two phases")
    assert after == Ledger(tmp_path / "memory.json").get("a") == (before[0], replace(before[1], tried=32, within=1e12))


def test_what_was_learnt_holds_for_no_more_room_than_there_was(tmp_path):
    ledger = Ledger(tmp_path / "memory.json")
    (need,) = ledger.died("a", [7], 1e9, "head")
    assert need.largest(64, 1.05e9, 1.0) == 7
    assert need.largest(64, 2e9, 1.0) == 64
    assert ledger.died("a", [20], 2e9, "head")[0].largest(64, 2e9, 1.0) == 20


def test_writers_at_once_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: Ledger(tmp_path / "m.json").put(str(i), [Need(i, i)], "x"), range(60)))
    ledger = Ledger(tmp_path / "m.json")
    assert [ledger.get(str(i)) for i in range(60)] == [(Need(i, i),) for i in range(60)]


def test_a_kind_depends_on_what_is_run_and_where(monkeypatch):
    one = kind("head only")
    assert kind("head only") == one
    assert kind("all layers") != one
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert kind("head only") != one


@pytest.mark.parametrize(
    "before",
    [
        '{"format": 0, "entries": {"a": 1}}',
        '{"format": 3, "entries": {"a": {"what": "head", "need": {"fixed": 1.0, "each": 1.0}}}}',
    ],
)
def test_a_ledger_of_another_format_is_begun_anew(tmp_path, before):
    file = tmp_path / "memory.json"
    file.write_text(before)
    assert Ledger(file).get("a") is None
    Ledger(file).put("a", [Need(1.0, 2.0)], "head")
    assert Ledger(file).get("a") == (Need(1.0, 2.0),)

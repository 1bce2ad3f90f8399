"""Schedules against tables worked out by hand, and within their bounds whatever they are given."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.errors import ConfigError
from tlx.registry import schedules as registered
from tlx.schedules import Constant, Cosine, Exponential, OneCycle, Piecewise, Polynomial, Step

ROOT = math.sqrt(0.5)
TABLES = [
    (Cosine(), 8, {0: 1, 2: (1 + ROOT) / 2, 4: 0.5, 6: (1 - ROOT) / 2, 8: 0}),
    (Cosine(end=0.2), 8, {0: 1, 4: 0.6, 8: 0.2}),
    (Constant(), 8, {0: 1, 3: 1, 8: 1}),
    (Exponential(0.5, 50), 200, {0: 1, 25: ROOT, 50: 0.5, 100: 0.25, 175: 0.125 * ROOT}),
    # The system that tlx succeeds: its learning rate falls by steps of so many updates.
    *(
        (Exponential(0.9, n, True), 500, {0: 1, n - 1: 1, n: 0.9, 2 * n - 1: 0.9, 2 * n: 0.81})
        for n in (50, 65, 80, 100)
    ),
    (Polynomial(), 10, {0: 1, 3: 0.7, 10: 0}),
    (Polynomial(power=2, end=0.1), 10, {0: 1, 5: 0.325, 10: 0.1}),
    (OneCycle(), 100, {0: 0.04, 15: 0.52, 30: 1, 65: 0.500002, 100: 4e-6}),
    (Step(30), 100, {0: 1, 29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 90: 0.001}),
    (Piecewise((20, 50), (1.0, 0.3, 0.02)), 100, {0: 1, 19: 1, 20: 0.3, 49: 0.3, 50: 0.02, 99: 0.02}),
    (Piecewise((), (0.5,)), 100, {0: 0.5, 99: 0.5}),
]


@pytest.mark.parametrize(("schedule", "updates", "table"), TABLES, ids=[str(row[0]) for row in TABLES])
def test_a_schedule_follows_its_table(schedule, updates, table):
    assert {update: schedule.at(update, updates) for update in table} == pytest.approx(table, abs=1e-12)


SHARE, ABOVE = st.floats(0, 1), st.floats(0, 1, exclude_min=True)
ANY = st.one_of(
    st.builds(Cosine, SHARE),
    st.builds(Constant),
    st.builds(Exponential, ABOVE, st.integers(1, 1000), st.booleans()),
    st.builds(Polynomial, st.floats(0.01, 100), SHARE),
    st.builds(OneCycle, st.floats(0, 1, exclude_min=True, exclude_max=True), SHARE, SHARE),
    st.builds(Step, st.integers(1, 1000), ABOVE),
    st.lists(SHARE, min_size=1, max_size=5).map(lambda fs: Piecewise(tuple(range(3, 3 * len(fs), 3)), tuple(fs))),
)


@given(ANY, st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_factors_stay_within_their_bounds(schedule, place):
    assert 0 <= schedule.at(*place) <= 1


def test_every_schedule_is_tested_here():
    assert {type(row[0]) for row in TABLES} == {
        entry.factory for entry in registered.entries.values() if entry.package == "tlx"
    }


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Cosine(1.1), "cosine.end"),
        (lambda: Exponential(0.0, 5), "exponential.decay_rate"),
        (lambda: Exponential(0.5, 0), "exponential.decay_steps"),
        (lambda: Polynomial(0.0), "polynomial.power"),
        (lambda: OneCycle(rise=1.0), "one_cycle.rise"),
        (lambda: OneCycle(start=-0.1), "one_cycle.start"),
        (lambda: Step(0), "step.every"),
        (lambda: Step(5, 1.5), "step.factor"),
        (lambda: Piecewise((5, 5), (1.0, 0.5, 0.1)), "piecewise.boundaries"),
        (lambda: Piecewise((5,), (1.0,)), "piecewise.factors"),
        (lambda: Piecewise((5,), (1.0, 2.0)), "piecewise.factors"),
    ],
)
def test_a_value_out_of_bounds_is_named(make, name):
    with pytest.raises(ConfigError, match=rf"schedules\.{name} = "):
        make()

"""What a person reads when something is wrong."""

import errno
import math
import os
import re
from types import SimpleNamespace

import pytest

from tlx.errors import ConfigError, above, at_least, of_system, refuse_values


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device; make room there, and give the same command again"),
        (errno.EROFS, "Read-only file system; make it writable, or choose another folder, and give"),
        (errno.EACCES, "Permission denied; give yourself the right to it, or choose another folder, and give"),
    ],
)
def test_what_the_system_says_comes_with_a_place_and_a_way_out(number, words):
    said = OSError(number, os.strerror(number))
    assert of_system(said, "runs/a").startswith(f"runs/a: {words}")
    assert of_system(said).startswith(words)
    said.filename = "runs/a/result.json"
    assert of_system(said, "runs/a").startswith(f"runs/a/result.json: {words}")


def test_what_nobody_expects_is_said_as_it_is():
    assert of_system(OSError("strange"), "here") == "here: strange"
    assert of_system(OSError(errno.EXDEV, "Invalid cross-device link"), "here") == "here: Invalid cross-device link"


BOUNDS = [
    (above(0), 1e-9, 0, "above 0"),
    (at_least(1), 1, 0.5, "1 or more"),
    (at_least(0, most=1), 1, 1.1, "0 to 1"),
    (at_least(0, below=1), 0, 1, "at least 0, below 1"),
    (above(0, most=1), 1, 0, "above 0, at most 1"),
    (above(0, below=1), 0.5, 1, "above 0, below 1"),
    (at_least(0), None, -1, "0 or more"),
    (above(0), math.inf, math.nan, "above 0"),
    (at_least(0, most=9), (2, 2), (3, 2), "the smaller number first, 0 to 9"),
    (at_least(0, most=9), (0, 9), (0, 10), "the smaller number first, 0 to 9"),
]


@pytest.mark.parametrize(("bounds", "right", "wrong", "words"), BOUNDS)
def test_a_value_out_of_bounds_is_refused_with_what_is_expected(bounds, right, wrong, words):
    refuse_values("some.thing", SimpleNamespace(size=right), {"size": bounds})
    said = f"some.thing.size = {wrong!r} makes no sense: expected {words}; see `tlx list some.thing`"
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        refuse_values("some.thing", SimpleNamespace(size=wrong), {"size": bounds})


def test_what_has_no_bounds_says_in_words_what_is_expected_or_nothing():
    thing = SimpleNamespace(size=7, last=3)
    refuse_values("thing", thing, {"size": True, "last": thing.last > 2 or "more"})
    expected = "thing.last = 3 makes no sense: expected even numbers; see `tlx list thing`"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        refuse_values("thing", thing, {"size": True, "last": "even numbers"})
    with pytest.raises(ConfigError, match=re.escape("thing.size = 7 makes no sense; see `tlx list thing`")):
        refuse_values("thing", thing, {"size": False})

"""What a person reads when something is wrong."""

import errno
import os

import pytest

from tlx.errors import of_system


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

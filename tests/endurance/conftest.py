"""What the long form of these tests saw, written down for people to read."""

import os
from pathlib import Path

import pytest

_FILE = Path(__file__).parents[2] / "docs/endurance.md"
_HEAD = """\
# Endurance

What `make endurance` saw when it was last run: searches killed at random moments, and workers starved of memory.

| what was done | what came of it |
|---|---|
"""


@pytest.fixture
def saw():
    """Return a function that keeps one line, under a name, in docs/endurance.md where the long form is run."""

    def saw(name: str, came: str) -> None:
        print(f"{name}: {came}")
        if os.environ.get("TLX_ENDURANCE"):
            lines = _FILE.read_text().removeprefix(_HEAD).splitlines() if _FILE.exists() else []
            rows = dict(line.strip("| ").split(" | ") for line in lines) | {name: came}
            _FILE.write_text(_HEAD + "".join(f"| {name} | {came} |\n" for name, came in sorted(rows.items())))

    return saw

"""Findings that many records share, told once for each kind."""

from dataclasses import replace
from typing import Literal

from tlx.data.dataset import Finding


class Notes:
    """Collects what is odd about records: each kind once, at its first place, with its number."""

    def __init__(self):
        self._first: dict[str, Finding] = {}
        self._counts: dict[str, int] = {}

    def add(
        self, code: str, severity: Literal["error", "warning", "info"], file: str, record: str, message: str
    ) -> None:
        """Note one case of `code`; `message` tells of all cases, as "images without a class; left out" does."""
        self._first.setdefault(code, Finding(code, severity, file, record, message))
        self._counts[code] = self._counts.get(code, 0) + 1

    def findings(self) -> list[Finding]:
        """Return one finding for each kind."""
        return [
            replace(first, message=f"{self._counts[code]} x {first.message} (first seen here)")
            for code, first in self._first.items()
        ]

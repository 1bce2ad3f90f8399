"""The number that a search maximizes."""

from collections.abc import Mapping
from typing import Any


def objective(metrics: Mapping[str, Any], name: str | None) -> float:
    """Return the metric of that name, or the evaluator's primary one for None; 0.0 where it could not be computed."""
    value = metrics[name or "AP"]
    return 0.0 if value is None else value

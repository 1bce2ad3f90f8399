"""What holds only while something is done, for the thread that does it."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any


@contextlib.contextmanager
def being(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Give a context variable a value meanwhile, and what it had before afterwards."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)

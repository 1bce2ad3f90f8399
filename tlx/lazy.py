"""TensorFlow and Keras, imported at first use, so that the command line can answer without them."""

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

# Whoever sets this wants to read TensorFlow's own messages.
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


class _Lazy:
    """A stand-in for a module that imports it when an attribute is first asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if "tensorflow" not in sys.modules:
            import_tensorflow()
        return getattr(importlib.import_module(self._name), attribute)


def import_tensorflow() -> None:
    """Import TensorFlow, which must not have been done before."""
    if _LOG_LEVEL in os.environ:
        _grow_slowly(importlib.import_module("tensorflow"))
        return
    os.environ[_LOG_LEVEL] = "2"
    with quiet():
        # Looking for devices is what makes the rest of the greeting appear.
        _grow_slowly(importlib.import_module("tensorflow"))


def _grow_slowly(tensorflow: Any) -> None:
    """Let TensorFlow take memory of a GPU as it needs it, and not all at once: a machine's processes share it."""
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.experimental.set_memory_growth(gpu, True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what libraries write to file descriptor 2, and let it out if an exception follows."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


tf: Any = _Lazy("tensorflow")
keras: Any = _Lazy("keras")

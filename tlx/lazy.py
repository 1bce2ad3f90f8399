"""TensorFlow and Keras, imported at first use, so that the command line can answer without them."""

import importlib
import os
from typing import Any


class _Lazy:
    """A stand-in for a module that imports it when an attribute is first asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Without this TensorFlow greets every run with its build flags.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        return getattr(importlib.import_module(self._name), attribute)


tf: Any = _Lazy("tensorflow")
keras: Any = _Lazy("keras")

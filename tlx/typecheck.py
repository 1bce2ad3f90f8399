"""Checking a configured value against the annotation of the argument that it is for."""

import math
import os
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from tlx.errors import suggest


def coerce(value: Any, annotation: Any) -> Any:
    """Return `value` as the type that `annotation` asks for.

    An int may stand for a float, a list for a tuple, and text for a path (made absolute); nothing else is
    converted. A configured factory stands for what it says that it returns.

    Raises:
      TypeError: the value is of another type; the message says which was expected.
    """
    if annotation is Any:
        return value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, annotation, arguments)
    if origin is Literal:
        return _choice(value, arguments)
    if origin in (tuple, list, Sequence):
        return _sequence(value, annotation, origin, arguments)
    if origin in (dict, Mapping) and isinstance(value, dict):
        key, item = arguments
        return {coerce(k, key): coerce(v, item) for k, v in value.items()}
    if hasattr(value, "makes"):
        return _node(value, annotation)
    if annotation is float and type(value) in (int, float):
        return _finite(value)
    if annotation is Path and isinstance(value, str):
        return Path(os.path.abspath(os.path.expanduser(value)))
    if annotation in (None, types.NoneType):
        matches = value is None
    elif annotation in (int, float, str, bool, dict, list, tuple):
        matches = type(value) is annotation
    else:
        matches = isinstance(annotation, type) and isinstance(value, annotation)
    if not matches:
        raise TypeError(f"expected {describe(annotation)}, got {_shown(value)}")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise TypeError(f"expected a finite number, got {value}")
    return float(value)


def describe(annotation: Any) -> str:
    """Return an annotation in the words of a gin file's author."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is not None:
        inner = ", ".join("..." if a is Ellipsis else describe(a) for a in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return "None" if annotation in (None, types.NoneType) else getattr(annotation, "__name__", str(annotation))


def _first_that_fits(value: Any, annotation: Any, options: tuple) -> Any:
    errors = []
    for option in options:
        try:
            return coerce(value, option)
        except TypeError as error:
            errors.append(error)
    named = [str(choice) for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if isinstance(value, str):
        raise TypeError(f"expected {describe(annotation)}, got {_shown(value)}{suggest(value, named)}")
    helpful = next((e for e in errors if "did you mean" in str(e)), None)
    raise helpful or TypeError(f"expected {describe(annotation)}, got {_shown(value)}")


def _choice(value: Any, choices: tuple) -> Any:
    # True equals 1, and is not what was asked for.
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    listed = " or ".join(map(repr, choices))
    raise TypeError(f"expected {listed}, got {_shown(value)}{suggest(str(value), map(str, choices))}")


def _sequence(value: Any, annotation: Any, origin: Any, arguments: tuple) -> Any:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"expected {describe(annotation)}, got {_shown(value)}")
    if origin is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise TypeError(f"expected {len(arguments)} values, got {len(value)}: {_shown(value)}")
        return tuple(coerce(item, kind) for item, kind in zip(value, arguments, strict=True))
    items = [coerce(item, arguments[0]) for item in value]
    return items if origin is list else tuple(items)


def _node(node: Any, annotation: Any) -> Any:
    if not node.call:
        if annotation is Callable or get_origin(annotation) is Callable:
            return node
        raise TypeError(f"@{node.entry.full_name} needs parentheses: @{node.entry.full_name}()")
    if node.makes is None or (isinstance(annotation, type) and issubclass(node.makes, annotation)):
        return node
    raise TypeError(f"expected {describe(annotation)}, got @{node.entry.full_name}() which makes {node.makes.__name__}")


def _shown(value: Any) -> str:
    if hasattr(value, "makes"):
        return f"@{value.entry.full_name}()"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} ({', '.join(map(_shown, value))})"
    return f"{type(value).__name__} {value!r}"

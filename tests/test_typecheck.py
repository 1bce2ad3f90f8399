"""What may stand for what in a gin file."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.typecheck import coerce, describe

ACCEPTED = [
    (3, int, 3),
    (3, float, 3.0),
    (3.5, float, 3.5),
    (True, bool, True),
    ("a", str, "a"),
    (None, None, None),
    (None, int | None, None),
    (2, float | None, 2.0),
    (2, int | float, 2),
    (320, int | tuple[int, int], 320),
    ([320, 480], int | tuple[int, int], (320, 480)),
    ((1, 2, 3), tuple[int, ...], (1, 2, 3)),
    ([1, 2], tuple[float, float], (1.0, 2.0)),
    ([], tuple[int, ...], ()),
    ((1, 2), list[int], [1, 2]),
    (["a"], Sequence[str], ("a",)),
    ((("a", "train"),), tuple[tuple[str, Literal["train", "freeze"]], ...], (("a", "train"),)),
    ({"Van": "Car"}, dict[str, str], {"Van": "Car"}),
    ({"a": 1}, Mapping[str, float], {"a": 1.0}),
    ({"a": 1}, Mapping[str, int] | None, {"a": 1}),
    ("mean", Literal["mean", "sum"], "mean"),
    (object, Any, object),
]

REFUSED = [
    ("abc", float, "expected float, got str 'abc'"),
    (True, int, "expected int, got bool True"),
    (True, float, "expected float, got bool True"),
    (1, bool, "expected bool, got int 1"),
    (1.0, int, "expected int, got float 1.0"),
    (None, str, "expected str, got NoneType None"),
    (3, str, "expected str"),
    (3, Path, "expected Path"),
    ("a", int | None, "expected int or None"),
    ((1, 2, 3), tuple[int, int], "expected 2 values, got 3"),
    ((1, "b"), tuple[int, ...], "expected int, got str 'b'"),
    ("ab", tuple[str, ...], r"expected tuple\[str, ...\], got str 'ab'"),
    ("ab", Sequence[str], r"expected Sequence\[str\]"),
    (3, list[int], r"expected list\[int\]"),
    ({"a": "b"}, dict[str, int], "expected int, got str 'b'"),
    ((("a", "b"),), dict[str, str], r"expected dict\[str, str\]"),
    ("maen", Literal["mean", "sum"], "expected 'mean' or 'sum', got str 'maen'; did you mean 'mean'?"),
    ("maen", Literal["mean", "sum"] | None, "did you mean 'mean'?"),
    (True, Literal[1, 2], "expected 1 or 2, got bool True"),
    ("autp", int | Literal["auto"], "expected int or 'auto', got str 'autp'; did you mean 'auto'?"),
    ("large", int | Literal["auto"], "expected int or 'auto', got str 'large'$"),
]


@pytest.mark.parametrize(("value", "annotation", "result"), ACCEPTED)
def test_accepted(value, annotation, result):
    coerced = coerce(value, annotation)
    assert coerced == result
    assert type(coerced) is type(result)


@pytest.mark.parametrize(("value", "annotation", "message"), REFUSED)
def test_refused(value, annotation, message):
    with pytest.raises(TypeError, match=message.replace("?", r"\?")):
        coerce(value, annotation)


def test_text_becomes_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert coerce("a/../b", Path) == Path(os.getcwd()) / "b"
    assert coerce("~/data", Path) == Path("/home/someone/data")
    assert coerce(Path("a"), Path) == Path("a")


class Animal: ...


class Dog(Animal): ...


def reference(makes, call=True, name="dogs.dog"):
    return SimpleNamespace(makes=makes, call=call, entry=SimpleNamespace(full_name=name))


@pytest.mark.parametrize("annotation", [Animal, Dog, Dog | None, Any])
def test_a_factory_stands_for_what_it_makes(annotation):
    node = reference(Dog)
    assert coerce(node, annotation) is node
    assert coerce([node], tuple[Animal, ...]) == (node,)


def test_a_factory_that_does_not_say_what_it_makes_is_trusted():
    assert coerce(reference(None), Dog)


@pytest.mark.parametrize(
    ("node", "annotation", "message"),
    [
        (reference(Animal), Dog, r"expected Dog, got @dogs\.dog\(\) which makes Animal"),
        (reference(Dog), int, r"expected int, got @dogs\.dog\(\) which makes Dog"),
        (reference(Dog, call=False), Dog, r"@dogs\.dog needs parentheses: @dogs\.dog\(\)"),
        (reference(Dog), tuple[int, ...], r"expected tuple\[int, ...\], got @dogs\.dog\(\)"),
    ],
)
def test_a_factory_of_another_kind_is_refused(node, annotation, message):
    with pytest.raises(TypeError, match=message):
        coerce(node, annotation)


def test_a_factory_without_parentheses_stands_for_itself():
    node = reference(Dog, call=False)
    assert coerce(node, Callable[[int], Dog]) is node
    assert coerce(node, Callable) is node


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | tuple[int, int], "int or tuple[int, int]"),
        (float | None, "float or None"),
        (Literal["a", "b"], "'a' or 'b'"),
        (tuple[str, ...], "tuple[str, ...]"),
        (Path, "Path"),
        (Any, "Any"),
    ],
)
def test_annotations_in_words(annotation, words):
    assert describe(annotation) == words


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
annotations = [case[1] for case in ACCEPTED + REFUSED] + [Path, Dog, tuple, list, dict]


@given(plain, st.sampled_from(annotations))
def test_anything_is_accepted_once_and_for_all_or_refused_with_a_message(value, annotation):
    message, coerced = "", None
    try:
        coerced = coerce(value, annotation)
    except TypeError as error:
        message = str(error)
    assert message.startswith("expected") or coerce(coerced, annotation) == coerced

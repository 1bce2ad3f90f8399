"""A checkpoint is whole or refused, never garbage."""

import os

import numpy as np
import pytest

from tlx import checkpoint
from tlx.errors import TlxError
from tlx.lazy import tf

NOTES = {"update": 3, "metrics": {"AP": 0.1 + 0.2, "AP50": None}}
SHAPES = [(3, 4), (7,), (), (2, 0)]


def variables(seed):
    rng = np.random.default_rng(seed)
    return [tf.Variable(np.asarray(rng.normal(size=shape), np.float32)) for shape in SHAPES]


def values(variables):
    return [v.numpy().tobytes() for v in variables]


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, variables(0), NOTES)
    return path


def test_everything_comes_back_bit_for_bit(saved):
    loaded = variables(1)
    assert checkpoint.notes(saved) == checkpoint.load(saved, loaded) == NOTES
    assert values(loaded) == values(variables(0))
    assert sorted(os.listdir(saved.parent)) == [".tlx-made", "checkpoint.npz"]


def test_of_a_file_with_more_only_the_first_may_be_wanted(saved):
    loaded = variables(1)
    assert checkpoint.load(saved, loaded[:2], more=True) == NOTES
    assert values(loaded) == [*values(variables(0))[:2], *values(variables(1))[2:]]
    with pytest.raises(TlxError, match="another model"):
        checkpoint.load(saved, [*loaded, tf.Variable(1.0)], more=True)
    with pytest.raises(TlxError, match="another model"):
        checkpoint.load(saved, loaded[1:], more=True)


def test_where_there_is_no_file_nothing_happens(tmp_path):
    loaded = variables(1)
    assert checkpoint.load(tmp_path / "none.npz", loaded) is checkpoint.notes(tmp_path / "none.npz") is None
    assert values(loaded) == values(variables(1))


def test_a_truncated_file_is_refused_and_changes_nothing(saved):
    content, loaded = saved.read_bytes(), variables(1)
    for length in [*range(0, 200), *range(200, len(content), 7), len(content) - 1]:
        saved.write_bytes(content[:length])
        with pytest.raises(TlxError, match=r"checkpoint\.npz is damaged; remove it"):
            checkpoint.load(saved, loaded)
        assert values(loaded) == values(variables(1))


def test_a_changed_byte_is_refused_wherever_it_is(saved):
    content, loaded = saved.read_bytes(), variables(1)
    for offset in range(len(content)):
        saved.write_bytes(content[:offset] + bytes([content[offset] ^ 4]) + content[offset + 1 :])
        with pytest.raises(TlxError, match="is damaged"):
            checkpoint.load(saved, loaded)
    assert values(loaded) == values(variables(1))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_another_kind_of_file_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(TlxError, match="is damaged"):
        checkpoint.load(saved, variables(1))


def test_a_numpy_array_is_refused(saved):
    with saved.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(TlxError, match="is damaged"):
        checkpoint.load(saved, variables(1))


@pytest.mark.parametrize("change", [lambda vs: vs[:-1], lambda vs: [*vs, tf.Variable(1.0)], lambda vs: vs[::-1]])
def test_another_models_checkpoint_is_refused(saved, change):
    with pytest.raises(TlxError, match="another model"):
        checkpoint.load(saved, change(variables(1)))


def test_writing_replaces_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    checkpoint.write(path, b"old")

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(path, b"new and longer")
    assert path.read_bytes() == b"old"
    monkeypatch.undo()
    checkpoint.write(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert sorted(os.listdir(tmp_path)) == [".tlx-made", "result.json"]

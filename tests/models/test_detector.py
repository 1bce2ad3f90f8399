"""A detector's weights come back from a file, by the parts that it is made of."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.detector import build, load_weights
from tlx.models.head import BuiltHead, Head
from tlx.run import WEIGHTS


@dataclass(frozen=True)
class TwoParts(Head):
    """Two parts of the same shapes whose layers have the same name, or none, as a plugin's may."""

    name: str | None = "out"
    channels: int = 4

    def select(self, backbone):
        return backbone.taps[-1:]

    def build(self, taps, classes, size):
        return BuiltTwoParts(tuple(self._part(taps[0], name) for name in ("one", "other")))

    def _part(self, tap, name):
        image = keras.Input(tap[:3])
        return keras.Model(image, keras.layers.Conv2D(self.channels, 1, name=self.name)(image), name=name)


@dataclass(frozen=True, eq=False)
class BuiltTwoParts(BuiltHead):
    parts: tuple[Any, ...]

    def forward(self, taps, targets=None, training=False, seeds=None):
        return {str(i): part(taps[0]) for i, part in enumerate(self.parts)}

    def losses(self, outputs, targets):
        raise NotImplementedError

    def predict(self, outputs):
        return outputs


@pytest.fixture
def made(tiny):
    """Return a function that builds a detector with such a head."""

    def made(seed, **settings):
        keras.utils.set_random_seed(seed)
        return build(tiny(), TwoParts(**settings), ("a",), (64, 64))

    return made


@pytest.mark.parametrize("name", ["out", None], ids=["of one name", "unnamed"])
def test_parts_whose_layers_have_the_same_name_come_back(made, arrays, tmp_path, name):
    one, other = made(0, name=name), made(1, name=name)
    one.model.save_weights(tmp_path / WEIGHTS)
    load_weights(other, tmp_path / WEIGHTS)
    for a, b in zip(arrays(one.model.variables), arrays(other.model.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_of_another_model_are_refused_by_name(made, tmp_path):
    path = tmp_path / WEIGHTS
    made(0, channels=3).model.save_weights(path)
    with pytest.raises(ModelError, match=re.escape(f"{path}: does not hold the weights of this model (")):
        load_weights(made(1), path)


def test_a_file_that_is_damaged_is_refused(made, tmp_path):
    path = tmp_path / WEIGHTS
    one = made(0)
    one.model.save_weights(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be read as Keras weights"):
        load_weights(one, path)


def test_weights_of_before_there_were_parts_are_read(made, arrays, tmp_path):
    """Then the layers of the backbone stood beside the head."""
    one, other = made(0), made(1)
    network = one.network
    flat = keras.Model(network.inputs, one.head.parts[0](network.outputs[0]))
    flat.save_weights(tmp_path / WEIGHTS)
    # That held one part; what a head of one part reads is what counts here.
    whole = keras.Model(
        [*other.network.inputs, *other.head.parts[0].inputs], [*other.network.outputs, *other.head.parts[0].outputs]
    )
    load_weights(type(other)(**{**vars(other), "model": whole}), tmp_path / WEIGHTS)
    for a, b in zip(arrays(network.variables), arrays(other.network.variables), strict=True):
        np.testing.assert_array_equal(a, b)

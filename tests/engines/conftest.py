"""What the tests of engines have in common: pictures, and networks to compute."""

import numpy as np
import pytest

from tlx import freeze, policies
from tlx.lazy import keras
from tlx.models.backbone import choose_taps
from tlx.models.graph import cut, prune, weight_layers

SIZE = (64, 64)


@pytest.fixture(scope="session")
def pictures():
    """Return a function that draws pictures of noise, uint8 [count, 64, 64, 3]."""
    return lambda count, seed=0: np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


@pytest.fixture(scope="session")
def parts(tiny):
    """Return a function that cuts the tiny backbone where `unfrozen` of its layers train."""

    def parts(unfrozen=0, wanted=(8, 16, 32)):
        keras.utils.set_random_seed(0)
        backbone = tiny(dropout=0.5)
        network = prune(backbone.build(SIZE)[0], choose_taps(backbone.taps, wanted, "test"))
        freeze.apply(policies.last_layers(unfrozen), network, weight_layers(network, backbone.blocks))
        return cut(network, backbone.blocks)

    return parts


@pytest.fixture(scope="session")
def several():
    """A network whose outputs have one shape: a pooled one, one that is used twice, and dropout between them."""
    keras.utils.set_random_seed(1)
    image = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(6, 3, 2, "same", activation="relu")(image / 255.0)
    first = keras.layers.GlobalAveragePooling2D()(x)
    second = keras.layers.GlobalMaxPooling2D()(keras.layers.Dropout(0.5)(x))
    return keras.Model(image, [second, first, second - first, x])

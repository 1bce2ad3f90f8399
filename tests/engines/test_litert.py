"""LiteRT computes every backbone as TensorFlow does."""

import inspect
import os

import numpy as np
import pytest

from tlx import registry
from tlx.engines.engine import difference
from tlx.engines.litert import LiteRT
from tlx.lazy import keras, tf
from tlx.models.graph import prune
from tlx.models.weights import leaves

registry.discover()
# Squeeze-and-excite and hard swish; layers of any other kind come with TLX_SLOW=1.
FAST = ("mobilenet_v3_small",)
SIZE = (96, 96)


@pytest.mark.parametrize("name", sorted(registry.backbones.entries))
def test_a_backbone_is_converted_and_agrees(name):
    if name not in FAST and os.environ.get("TLX_SLOW") != "1":
        pytest.skip("TLX_SLOW=1 converts every backbone")
    keras.utils.set_random_seed(0)
    factory, rng = registry.backbones.entries[name].factory, np.random.default_rng(0)
    untrained = {"weights": None} if "weights" in inspect.signature(factory).parameters else {}
    backbone = factory(**untrained)
    network = prune(backbone.build(SIZE)[0], backbone.taps)
    for layer in leaves(network):
        if untrained and isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(weight + rng.uniform(0.05, 0.5, weight.shape))
    pictures = rng.integers(0, 256, (2, *SIZE, 3), np.uint8)
    expected = [output.numpy() for output in tf.nest.flatten(network(pictures.astype(np.float32), training=False))]
    assert min(np.abs(output).max() for output in expected) > 0
    assert difference(LiteRT().compile(network)(pictures), expected) < LiteRT.tolerance

"""An engine computes a network outside of any graph, and a plugin's is found and used like tlx's own."""

from dataclasses import dataclass

import numpy as np
import pytest

from tlx import freeze, policies, registry
from tlx.engines.engine import Engine
from tlx.engines.tensorflow import TensorFlow
from tlx.lazy import keras, tf
from tlx.models.backbone import choose_taps
from tlx.models.graph import cut, prune, weight_layers

SIZE = (64, 64)


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


@pytest.fixture
def parts(tiny):
    """Return a function that cuts the tiny backbone where `unfrozen` of its layers train."""

    def parts(unfrozen=0, wanted=(8, 16, 32)):
        keras.utils.set_random_seed(0)
        backbone = tiny(dropout=0.5)
        network = prune(backbone.build(SIZE)[0], choose_taps(backbone.taps, wanted, "test"))
        freeze.apply(policies.last_layers(unfrozen), network, weight_layers(network, backbone.blocks))
        return cut(network, backbone.blocks)

    return parts


@pytest.mark.parametrize(("unfrozen", "wanted"), [(0, (8, 16, 32)), (0, (32,)), (3, (8, 16, 32)), (9, (32,))])
def test_tensorflow_gives_the_bits_that_the_prefix_gives_in_a_graph(parts, unfrozen, wanted):
    made = parts(unfrozen, wanted)
    plain = tf.function(lambda batch: made.start(tf.cast(batch, tf.float32)))
    compiled = TensorFlow().compile(made.prefix)
    for count in (16, 16, 5, 1):
        outputs = compiled(pictures(count))
        assert [output.shape for output in outputs] == [(count, *shape) for shape in made.shapes]
        for expected, output in zip(plain(pictures(count)), outputs, strict=True):
            assert output.dtype == np.float32
            np.testing.assert_array_equal(expected.numpy(), output)


def test_a_short_batch_traces_nothing_new():
    image = keras.Input((*SIZE, 3))
    counting = Counting()
    model = keras.Model(image, counting(image))
    compiled, before = TensorFlow().compile(model), Counting.traced
    for count in (8, 8, 3, 1, 7):
        assert compiled(pictures(count))[0].shape == (count, *SIZE, 3)
    assert Counting.traced == before + 1


class Counting(keras.layers.Layer):
    traced = 0

    def call(self, inputs):
        Counting.traced += 1
        return inputs


def test_outputs_are_float32_whatever_the_network_computes_in():
    image = keras.Input((*SIZE, 3))
    outputs = [keras.layers.AveragePooling2D(2, dtype=dtype)(image) for dtype in ("bfloat16", "float16", "float32")]
    found = TensorFlow().compile(keras.Model(image, outputs))(pictures(2))
    assert [output.dtype for output in found] == [np.float32] * 3
    np.testing.assert_allclose(found[0], found[2], rtol=2**-7)


def test_pictures_of_another_kind_are_refused(parts):
    compiled = TensorFlow().compile(parts().prefix)
    with pytest.raises(TypeError, match="uint8, not float32"):
        compiled(pictures(1).astype(np.float32))
    with pytest.raises((TypeError, ValueError)):
        compiled(pictures(1)[:, :32])


def test_a_key_says_kind_version_and_precision():
    assert TensorFlow().key == f"tensorflow {tf.__version__}, precision of the network"
    with pytest.raises(TypeError, match="abstract"):
        Engine()


@pytest.fixture
def plugin(monkeypatch):
    """Register a third party's engine: eager, one picture after the other, and in steps of 1 / `steps`."""
    monkeypatch.setattr(registry.engines, "entries", dict(registry.engines.entries))

    @registry.engines.register("stepped")
    @dataclass(frozen=True)
    class Stepped(Engine):
        """One picture at a time."""

        steps: int = 64

        @property
        def key(self):
            return f"stepped 1, {self.steps}"

        def compile(self, model):
            def forward(pictures):
                rows = [tf.nest.flatten(model(row[None].astype(np.float32), training=False)) for row in pictures]
                columns = (np.concatenate([part.numpy() for part in parts]) for parts in zip(*rows, strict=True))
                return [np.round(column * self.steps) / np.float32(self.steps) for column in columns]

            return forward


def test_a_plugins_engine_is_registered_checked_and_used(plugin, parts):
    assert registry.find("engines.stepped").summary == "One picture at a time."
    engine = registry.find("stepped").factory(steps=1024)
    assert (engine.key, registry.find("engines.tensorflow").factory()) == ("stepped 1, 1024", TensorFlow())
    made = parts()
    found, exact = (e.compile(made.prefix)(pictures(3)) for e in (engine, TensorFlow()))
    for a, b in zip(found, exact, strict=True):
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, atol=1e-3)

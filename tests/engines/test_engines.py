"""An engine computes a network outside of any graph, and a plugin's is found and used like tlx's own."""

import importlib.util
import inspect
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from tlx import registry
from tlx.engines.engine import Engine, difference
from tlx.engines.litert import LiteRT
from tlx.engines.openvino import OpenVINO
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ConfigError, ModelError
from tlx.lazy import keras, tf

SIZE = (64, 64)


@pytest.mark.parametrize(("unfrozen", "wanted"), [(0, (8, 16, 32)), (0, (32,)), (3, (8, 16, 32)), (9, (32,))])
def test_tensorflow_gives_the_bits_that_the_prefix_gives_in_a_graph(parts, pictures, unfrozen, wanted):
    made = parts(unfrozen, wanted)
    plain = tf.function(lambda batch: made.start(tf.cast(batch, tf.float32)))
    compiled = TensorFlow().compile(made.prefix)
    for count in (16, 16, 5, 1):
        outputs = compiled(pictures(count))
        assert [output.shape for output in outputs] == [(count, *shape) for shape in made.shapes]
        for expected, output in zip(plain(pictures(count)), outputs, strict=True):
            assert output.dtype == np.float32
            np.testing.assert_array_equal(expected.numpy(), output)


def test_a_short_batch_traces_nothing_new(pictures):
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


def test_outputs_are_float32_whatever_the_network_computes_in(pictures):
    image = keras.Input((*SIZE, 3))
    outputs = [keras.layers.AveragePooling2D(2, dtype=dtype)(image) for dtype in ("bfloat16", "float16", "float32")]
    found = TensorFlow().compile(keras.Model(image, outputs))(pictures(2))
    assert [output.dtype for output in found] == [np.float32] * 3
    np.testing.assert_allclose(found[0], found[2], rtol=2**-7)


@pytest.fixture(params=["litert", "openvino"])
def engine(request):
    """Each engine that computes otherwise than TensorFlow, in float32."""
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="openvino is an extra", exc_type=ImportError)
    return registry.find(f"engines.{request.param}").factory()


@pytest.mark.parametrize(("unfrozen", "wanted"), [(0, (32,)), (3, (8, 16, 32))])
def test_an_engine_agrees_with_tensorflow_whatever_the_batch(parts, pictures, engine, unfrozen, wanted):
    model = parts(unfrozen, wanted).prefix
    compiled, exact = engine.compile(model), TensorFlow().compile(model)
    for count in (3, 1, 5):
        found, expected = compiled(pictures(count, count)), exact(pictures(count, count))
        assert [(a.shape, a.dtype) for a in found] == [(a.shape, np.float32) for a in expected]
        assert difference(found, expected) < 5e-6 < engine.tolerance
    # What a picture gives does not hang on those beside it.
    for one, row in zip(compiled(pictures(5, 5)[2:3]), found, strict=True):
        np.testing.assert_array_equal(one[0], row[2])


def test_outputs_of_one_shape_keep_their_order_and_dropout_rests(several, pictures, engine):
    found, expected = (e.compile(several)(pictures(2)) for e in (engine, TensorFlow()))
    assert difference(found, expected) < 5e-6
    np.testing.assert_allclose(found[2], found[0] - found[1], rtol=1e-5)


def test_a_network_of_nothing_but_its_input_gives_the_pictures(pictures, engine):
    image = keras.Input((*SIZE, 3))
    (found,) = engine.compile(keras.Model(image, image))(pictures(2))
    np.testing.assert_array_equal(found, pictures(2).astype(np.float32))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_a_network_of_less_than_float32_is_refused_by_what_computes_in_float32(pictures, engine, precision):
    image = keras.Input((*SIZE, 3))
    inner = keras.Sequential([keras.layers.Conv2D(2, 3, dtype=precision)])
    with pytest.raises(ModelError, match=rf"computes in {precision[6:]}.*run.precision = 'float32', or run.engine = @"):
        engine.compile(keras.Model(image, inner(image)))


def test_a_network_that_cannot_be_converted_says_so(engine):
    image = keras.Input((*SIZE, 3))
    with pytest.raises(ModelError, match=r"cannot be converted to \.tflite"):
        engine.compile(keras.Model(image, Unheard()(image)))


class Unheard(keras.layers.Layer):
    def call(self, inputs):
        return tf.numpy_function(np.sort, [inputs], tf.float32)

    def compute_output_shape(self, shape):
        return shape


def test_the_number_of_threads_makes_no_difference(parts, pictures, engine):
    model = parts(0, (32,)).prefix
    (one,), (two,) = (type(engine)(threads=n).compile(model)(pictures(2)) for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ConfigError, match=r"\.threads = 0 makes no sense"):
        type(engine)(threads=0)


def test_an_engine_that_is_not_installed_says_what_to_install(parts, monkeypatch):
    for name, package in (("litert", "ai_edge_litert"), ("openvino", "openvino")):
        entry = registry.find(f"engines.{name}")
        # As if it were not there, also where it has been imported.
        for module in (package, "ai_edge_litert.interpreter"):
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ModelError, match=r"is not installed .*: pip install"):
            entry.factory().compile(parts().prefix)
        with pytest.raises(ConfigError, match=rf"engines.{name} needs what is not installed: pip install"):
            entry.check(**dict.fromkeys(inspect.signature(entry.check).parameters))


@pytest.mark.parametrize("engine", [TensorFlow(), LiteRT(), OpenVINO()], ids=lambda engine: type(engine).__name__)
def test_pictures_of_another_kind_are_refused(parts, pictures, engine):
    if isinstance(engine, OpenVINO):
        pytest.importorskip("openvino", reason="openvino is an extra", exc_type=ImportError)
    compiled = engine.compile(parts().prefix)
    with pytest.raises(TypeError, match="uint8, not float32"):
        compiled(pictures(1).astype(np.float32))
    with pytest.raises(ValueError, match=r"takes pictures \(64, 64, 3\), not \(32, 64, 3\)"):
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


def test_a_plugins_engine_is_registered_checked_and_used(plugin, parts, pictures):
    assert registry.find("engines.stepped").summary == "One picture at a time."
    engine = registry.find("stepped").factory(steps=1024)
    assert (engine.key, registry.find("engines.tensorflow").factory()) == ("stepped 1, 1024", TensorFlow())
    made = parts()
    found, exact = (e.compile(made.prefix)(pictures(3)) for e in (engine, TensorFlow()))
    for a, b in zip(found, exact, strict=True):
        assert not np.array_equal(a, b)
        np.testing.assert_allclose(a, b, atol=1e-3)

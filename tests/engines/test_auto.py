"""The engine that is chosen is the first that agrees with TensorFlow; what is said of it holds."""

import re
from dataclasses import dataclass
from threading import Thread

import numpy as np
import pytest

from tlx.engines import litert
from tlx.engines.auto import Auto
from tlx.engines.engine import Engine, Settled, difference
from tlx.engines.litert import LiteRT
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ConfigError, ModelError
from tlx.lazy import keras, tf


@dataclass(frozen=True)
class Off(Engine):
    """TensorFlow, but for a share of each output's largest magnitude."""

    share: float
    tolerance = 1e-3

    @property
    def key(self):
        return f"off by {self.share}"

    def compile(self, model):
        exact = TensorFlow().compile(model)
        return lambda pictures: [a + np.float32(self.share) * np.abs(a).max() for a in exact(pictures)]


@dataclass(frozen=True)
class Unable(Off):
    def compile(self, model):
        raise ModelError("this network is too much for me")


@pytest.fixture(scope="module")
def model(parts):
    return parts(0, (16, 32)).prefix


def test_litert_comes_first_and_what_it_compiled_is_kept(model, pictures, monkeypatch):
    chosen = Auto().settle(model, lambda: pictures(4))
    assert chosen.key == LiteRT().key
    assert str(chosen).startswith(f"{LiteRT().key}: differs from TensorFlow by ")
    assert str(chosen).endswith(" of the largest output on 4 pictures, of 1e-04 allowed")
    monkeypatch.setattr(LiteRT, "compile", lambda *_: pytest.fail("compiled twice"))
    assert difference(chosen.compile(model)(pictures(1)), TensorFlow().compile(model)(pictures(1))) < 5e-6


def test_what_a_runtime_refuses_is_computed_by_tensorflow(model, pictures, monkeypatch):
    monkeypatch.setattr(litert, "convert", lambda _: b"no such file")
    chosen = Auto().settle(model, lambda: pictures(2))
    assert chosen.key == TensorFlow().key
    assert "LiteRT cannot compute this network (" in str(chosen)


@pytest.mark.parametrize(
    ("order", "key", "why"),
    [
        ((Off(1e-4), Off(2e-4)), "off by 0.0001", r"differs from TensorFlow by 1.0e-04 .* of 1e-03 allowed"),
        ((Off(0.1), Off(2e-4)), "off by 0.0002", r"off by 0.1 differs from TensorFlow by 1.0e-01 .*; differs from"),
        ((Unable(0.0), Off(0.0)), "off by 0.0", r"too much for me; differs from TensorFlow by \d"),
        ((Off(float("nan")),), TensorFlow().key, r"off by nan differs from TensorFlow by nan of the largest output"),
        ((Unable(0.0), Off(0.1)), TensorFlow().key, r"this network is too much for me; off by 0.1 differs from"),
        ((), TensorFlow().key, "engines.auto.order names no other"),
    ],
)
def test_the_first_that_agrees_is_chosen_and_the_others_told_of(model, pictures, order, key, why):
    chosen = Auto(order).settle(model, lambda: pictures(2))
    assert chosen.key == key
    assert re.search(why, str(chosen))


def test_an_output_of_another_size_counts_by_its_own_magnitude(pictures):
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, [keras.layers.AveragePooling2D(2)(image), image * 1e-6])

    class Rough(Off):
        def compile(self, model):
            exact = TensorFlow().compile(model)
            return lambda pictures: [a + np.float32(1e-6) for a in exact(pictures)]

    assert Auto((Rough(0.0),)).settle(model, lambda: pictures(2)).key == TensorFlow().key


def test_on_a_gpu_it_is_tensorflow_and_no_picture_is_opened(model, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind] if kind == "GPU" else [])
    chosen = Auto().settle(model, lambda: pytest.fail("opened"))
    assert (chosen.key, chosen.why) == (TensorFlow().key, "on the GPU")


def test_a_network_of_less_than_float32_is_computed_by_tensorflow(pictures):
    image = keras.Input((64, 64, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3, dtype="mixed_bfloat16")(image))
    chosen = Auto().settle(model, lambda: pictures(1))
    assert chosen.key == TensorFlow().key
    assert "computes in bfloat16" in chosen.why


def test_it_computes_nothing_before_it_is_settled(model):
    with pytest.raises(ConfigError, match=r"engines\.auto\.order = \(Auto\(.* makes no sense"):
        Auto((Auto(),))
    with pytest.raises(TypeError, match="settle"):
        Auto().key  # noqa: B018
    with pytest.raises(TypeError, match="settle"):
        Auto().compile(model)


def test_threads_take_turns_with_what_is_settled(model, pictures):
    inside, most = [], []

    class Counting(Off):
        def compile(self, model):
            exact = super().compile(model)

            def forward(pictures):
                inside.append(0)
                most.append(len(inside))
                found = exact(pictures)
                inside.pop()
                return found

            return forward

    compiled = Counting(0.0).settle(model, lambda: pictures(1)).compile(model)
    threads = [Thread(target=compiled, args=(pictures(2),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_another_model_is_not_computed_by_what_was_compiled_for_one(model, parts, pictures):
    other = parts(3).prefix
    settled = Settled(TensorFlow(), model, "")
    assert settled.settle(model, lambda: pictures(1)) is settled
    assert [a.shape for a in settled.compile(other)(pictures(1))] == [
        (1, *output.shape[1:]) for output in other.outputs
    ]
    assert settled.settle(other, lambda: pictures(1)).model is other

"""Products in bfloat16: who takes them, when, and how near they come to float32's."""

import numpy as np
import pytest

from tlx.lazy import keras, tf
from tlx.models.products import in_bfloat16, prepare


@pytest.fixture
def model():
    """A network with every kind of layer that matters, its last one a 1x1 convolution."""
    keras.utils.set_random_seed(3)
    image = x = keras.Input((8, 8, 16))
    x = keras.layers.Conv2D(24, 1, name="pointwise")(x)
    x = keras.layers.Conv2D(24, 3, padding="same", name="dense")(x)
    x = keras.layers.SeparableConv2D(24, 3, padding="same", bias_initializer="ones", name="separable")(x)
    x = keras.layers.SeparableConv2D(24, 3, strides=2, padding="same", activation="relu", name="smaller")(x)
    within = keras.Input((None, None, 24))
    inner = keras.Model(within, keras.layers.Conv2D(8, 1, name="inner_last")(keras.layers.Conv2D(24, 1)(within)))
    return keras.Model(image, keras.layers.Conv2D(4, 1, name="last")(inner(x)))


@pytest.fixture
def images():
    return tf.constant(np.random.default_rng(0).normal(size=(3, 8, 8, 16)), tf.float32)


def gradients(model, images):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = model(images)
        loss = tf.reduce_mean(outputs**2)
    variables = [v.value for v in model.trainable_variables]
    return outputs.numpy(), [g.numpy() for g in tape.gradient(loss, [images, *variables])]


def test_nothing_changes_where_bfloat16_is_not_asked_for(model, images):
    before, slopes = gradients(model, images)
    prepare(model)
    after, same = gradients(model, images)
    np.testing.assert_array_equal(before, after)
    for one, other in zip(slopes, same, strict=True):
        np.testing.assert_array_equal(one, other)


def test_products_and_gradients_are_near_those_of_float32_and_not_equal(model, images):
    prepare(model)
    exact, slopes = gradients(model, images)
    with in_bfloat16():
        rounded, near = gradients(model, images)
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.03 * np.abs(exact).max()
    for one, other in zip(slopes, near, strict=True):
        assert np.linalg.norm(one - other) < 0.03 * np.linalg.norm(one)


def test_it_works_in_a_graph_for_batches_of_any_size(model, images):
    prepare(model)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 16])])
    def run(x):
        with in_bfloat16():
            return model(x)

    assert run(images).shape == (3, 4, 4, 4)
    np.testing.assert_array_equal(run(images)[:1].numpy(), run(images[:1]).numpy())


def test_what_a_model_gives_is_not_rounded(model, images):
    prepare(model)
    seen = {}
    for name in ("last", "inner_last", "pointwise"):
        layer = next(one for one in model._flatten_layers() if one.name == name)
        x = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 4, layer.kernel.shape[2])), tf.float32)
        exact = layer(x).numpy()
        with in_bfloat16():
            seen[name] = bool((layer(x).numpy() == exact).all())
    assert seen == {"last": True, "inner_last": True, "pointwise": False}

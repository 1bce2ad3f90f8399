"""The products of 1x1 convolutions in bfloat16, inside of networks that are float32 otherwise.

A CPU with instructions for bfloat16 takes them in about half the time, casts included. A whole network in bfloat16 is
slower there than in float32: its depthwise convolutions and normalizations have no such instructions, and TensorFlow
converts forth and back around each.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial
from typing import Any

from tlx.lazy import keras, tf
from tlx.meanwhile import being

_IN_BFLOAT16: ContextVar[bool] = ContextVar("in_bfloat16", default=False)


def in_bfloat16() -> AbstractContextManager[None]:
    """Let layers of prepared models that are called meanwhile take their products in bfloat16."""
    return being(_IN_BFLOAT16, True)


def prepare(model: Any) -> None:
    """Give the float32 layers of a `keras.Model` that have 1x1 convolutions both ways to take them.

    Layers that give the model's outputs, or those of a model within it, keep to float32: what a head says of scores
    and boxes would be rounded.
    """
    last = {id(output._keras_history.operation) for output in model.outputs}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            prepare(layer)
        elif id(layer) in last or layer.compute_dtype != "float32":
            continue
        elif type(layer) is keras.layers.SeparableConv2D:
            layer.call = partial(_separable, layer)
        elif type(layer) is keras.layers.Conv2D and _is_product(layer):
            layer.convolution_op = partial(_pointwise, type(layer).convolution_op.__get__(layer))


def _is_product(layer: Any) -> bool:
    return (layer.kernel_size, layer.strides, layer.groups) == ((1, 1), (1, 1), 1)


def _pointwise(otherwise: Callable, inputs: Any, kernel: Any) -> Any:
    return _times(inputs, kernel) if _IN_BFLOAT16.get() else otherwise(inputs, kernel)


def _separable(layer: Any, inputs: Any) -> Any:
    if not _IN_BFLOAT16.get():
        return type(layer).call(layer, inputs)
    how = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
    x = _times(keras.ops.depthwise_conv(inputs, layer.depthwise_kernel, **how), layer.pointwise_kernel)
    return layer.activation(x + layer.bias if layer.use_bias else x)


def _times(inputs: Any, kernel: Any) -> Any:
    """Return the 1x1 convolution of `inputs` [b, h, w, c] with `kernel` [1, 1, c, d], float32 like these."""
    kernel = tf.convert_to_tensor(kernel)[0, 0]
    product = tf.custom_gradient(_product)(tf.reshape(inputs, [-1, kernel.shape[0]]), kernel)
    return tf.reshape(product, tf.concat([tf.shape(inputs)[:3], [kernel.shape[1]]], 0))


def _product(x: Any, kernel: Any) -> tuple[Any, Callable]:
    """Return the product of x [n, c] and kernel [c, d], and the function that takes its gradient back to both."""
    x, kernel = tf.cast(x, tf.bfloat16), tf.cast(kernel, tf.bfloat16)

    def gradients(upstream: Any) -> tuple[Any, Any]:
        upstream = tf.cast(upstream, tf.bfloat16)
        of_x, of_kernel = tf.matmul(upstream, kernel, transpose_b=True), tf.matmul(x, upstream, transpose_a=True)
        return tf.cast(of_x, tf.float32), tf.cast(of_kernel, tf.float32)

    return tf.cast(tf.matmul(x, kernel), tf.float32), gradients

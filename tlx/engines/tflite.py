"""A network as a .tflite file, which several engines read."""

from typing import Any

from absl import logging

from tlx.errors import ModelError
from tlx.lazy import tf


def convert(model: Any) -> bytes:
    """Return a functional `keras.Model` in inference mode as a .tflite file: float32, one picture at a time.

    A picture's outputs then do not depend on which others it comes with, and no shape is left open, which would keep
    runtimes from their fast kernels.

    Raises:
      ModelError: the network computes in less than float32, or in a way for which .tflite has no operation.
    """
    # Private, but the only way to the layers within layers.
    precisions = {layer.compute_dtype for layer in model._flatten_layers()} & {"float16", "bfloat16"}
    if precisions:
        raise ModelError(
            f"this network computes in {' and '.join(sorted(precisions))}, and a .tflite file of it in float32 alone:"
            " set run.precision = 'float32', or run.engine = @engines.tensorflow()"
        )

    @tf.function(input_signature=[tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32)])
    def graph(picture: Any) -> list[Any]:
        return tf.nest.flatten(model(picture, training=False))

    # The second argument keeps the variables alive; a Keras 3 model there would lose their values without a word.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], graph)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)  # It tells which of its two ways it takes.
    try:
        return converter.convert()
    except Exception as error:  # The converter's errors have no type in common, and plugins bring any network.
        said = str(error).strip().partition("\n")[0]
        raise ModelError(f"this network cannot be converted to .tflite ({type(error).__name__}: {said})") from error
    finally:
        logging.set_verbosity(verbosity)

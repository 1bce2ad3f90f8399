"""Building a network of keras.applications as a backbone: its preprocessing within, and names that hold anywhere."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.weights import Restored, auto_name, leaves, restore

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """One row: a network of keras.applications and the names of its layers that tlx needs.

    `module` holds its preprocessing; `ends`, `final` and `wide` are those of `tap_table`, `blocks` that of
    `Backbone`. `scalable` networks take a width multiplier. In `merging` ones the layer that names a block closes it
    instead of opening it. `smallest` is the least side in pixels, down to which its own padding leaves something.
    """

    name: str
    module: str
    builder: str
    ends: Mapping[int, str]
    blocks: str
    final: str | None = None
    wide: Mapping[int, str] | None = None
    scalable: bool = False
    merging: bool = False
    smallest: int = 32


def build(
    network: Network,
    path: Path | None,
    imagenet: bool,
    min_restored: float,
    options: dict[str, float],
    size: tuple[int, int],
    pretrained: bool = True,
) -> tuple[Any, Restored | None]:
    """Return the network up to `final` for pictures of `size` (height, width), and what its weights covered.

    Raises:
      ModelError: the download failed, or `path` covers less than `min_restored` of the weights.
    """
    imagenet &= pretrained
    fits = min(size) >= network.smallest
    image = keras.Input((*size, 3) if fits else (None, None, 3), name="image")
    model = _settled(network, _published(network, imagenet, options, image), size)
    if path and pretrained:
        return model, restore(model, path, min_restored)
    return model, Restored(len(model.weights)) if imagenet else None


def _published(network: Network, pretrained: bool, options: dict[str, float], image: Any) -> Any:
    """Return the network as keras.applications builds it, on top of its preprocessing."""
    builder = partial(getattr(keras.applications, network.builder), include_top=False, **options)
    pixels = getattr(keras.applications, network.module).preprocess_input(image)
    if not pretrained:
        return builder(input_tensor=pixels, weights=None)
    try:
        with warnings.catch_warnings():
            # MobileNets say that no file was made for this image size; that of 224 px is what is wanted.
            warnings.filterwarnings("ignore", message=".*input_shape")
            return builder(input_tensor=pixels, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception where its download fails.
        raise ModelError(
            f"backbones.{network.name}: Keras could not load its ImageNet weights: {error}. "
            f"Give a local file (backbones.{network.name}.weights = '/path/to/file.h5') or None for random weights"
        ) from error


def _settled(network: Network, published: Any, size: tuple[int, int]) -> Any:
    """Return a copy, weights included, that is flat, takes `size` and has names that no session changes.

    Keras numbers unnamed layers through a whole session, while freezing, caching and saving need a layer to
    be called the same everywhere. The copy numbers them as a fresh session would, and where blocks are named
    by the layer that closes them, puts the block's name in front.
    """
    names = _stable_names(network, published)
    pairs = []

    def copy(layer: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            return layer
        config = _frozen_statistics(layer) | {"name": names.get(layer.name, layer.name)}
        if config.get("padding") == "valid" and min(size) < network.smallest:
            config["padding"] = "same"  # As published it would leave nothing of so small a picture.
        twin = type(layer).from_config(config)
        pairs.append((layer, twin))
        return twin

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            for inner in layer.layers:
                args = (copy(inner)(*args),)
            return args[0]
        if isinstance(layer, keras.layers.Rescaling) and isinstance(layer.scale, list):
            return args[0]  # EfficientNet's correction, made needless by `_frozen_statistics`.
        if isinstance(layer, keras.layers.ZeroPadding2D) and network.module == "mobilenet":
            layer = _padding_as_same(layer, args[0])
        return layer(*args, **kwargs)

    image = keras.Input((*size, 3), name="image")
    inputs = keras.tree.pack_sequence_as(published.input, [image])
    whole = keras.models.clone_model(published, inputs, clone_function=copy, call_function=call)
    model = keras.Model(image, whole.outputs[0], name=network.name)
    kept = {id(layer) for layer in leaves(model)}
    for layer, twin in pairs:
        if id(twin) in kept and twin.weights:
            for weight, published_weight in zip(twin.weights, layer.weights, strict=True):
                weight.assign(published_weight)
    return model


def _padding_as_same(layer: Any, x: Any) -> Any:
    """Return MobileNet's padding before its 3x3 convolutions of stride 2, so that an odd side loses no pixel.

    As published it is TensorFlow's "same" at even sides only; the other networks look at the side.
    """
    h, w = x.shape[1:3]
    return keras.layers.ZeroPadding2D(((h % 2, 1), (w % 2, 1)), name=layer.name)


def _frozen_statistics(layer: Any) -> dict[str, Any]:
    """Return a layer's configuration, with the ImageNet statistics in a Normalization that has none.

    EfficientNet (version 1) keeps these among its weights, as deviations where variances belong, and corrects
    them by one more layer if and only if asked for "imagenet": its graph would depend on where weights came from.
    """
    config = layer.get_config()
    if isinstance(layer, keras.layers.Normalization) and config["mean"] is None:
        return config | {"mean": _IMAGENET_MEAN, "variance": tuple(x * x for x in _IMAGENET_DEVIATION)}
    return config


def _stable_names(network: Network, model: Any) -> dict[str, str]:
    """Return new names for the layers and operations of a model that Keras named by itself."""
    numbers: dict[str, dict[str, int]] = {}
    for operation in model.operations:
        kind = auto_name(operation)
        if match := re.fullmatch(rf"{kind}(?:_(\d+))?", operation.name):
            numbers.setdefault(kind, {})[operation.name] = int(match[1] or 0)
    names = {}
    for kind, found in numbers.items():
        for i, name in enumerate(sorted(found, key=found.get)):
            names[name] = f"{kind}_{i}" if i else kind
    _name_activations(network, model, names)
    if network.merging:
        block = ""
        for name in [operation.name for operation in reversed(model.operations)]:
            block = match[1] if (match := re.match(network.blocks, name)) else block
            if name in names and block:
                names[name] = f"{block}_{names[name]}"
    return names


def _name_activations(network: Network, model: Any, names: dict[str, str]) -> None:
    """Name the activations that a tap needs and Keras numbers: after their normalizations, and the last of all."""
    last = model.outputs[0]._keras_history.operation
    if last.name in names and not last.weights:
        names[last.name] = "final_activation"
    if network.wide:
        for operation in model.operations:
            if operation.name in names and isinstance(operation, (keras.layers.Activation, keras.layers.ReLU)):
                before = operation.input._keras_history.operation
                if before.name.endswith("_bn") and before.name not in names:
                    names[operation.name] = before.name.removesuffix("bn") + "activation"

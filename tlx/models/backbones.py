"""The networks of keras.applications as backbones: one table, one way to build them."""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.backbone import Backbone
from tlx.models.weights import Restored, auto_name, leaves, restore, weights_file
from tlx.registry import backbones

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """One row: a network of keras.applications and the names of its layers that tlx needs.

    `module` holds its preprocessing; `taps` and `blocks` are those of `Backbone`. `scalable` networks take
    a width multiplier. In `merging` ones the layer that names a block closes it instead of opening it.
    """

    name: str
    module: str
    builder: str
    taps: Mapping[int, str]
    blocks: str
    scalable: bool = False
    merging: bool = False


def _taps(*names: str) -> dict[int, str]:
    return dict(zip((4, 8, 16, 32), names, strict=True))


def _resnet(depth: int, third: int, fourth: int) -> list[Network]:
    ends = f"conv2_block3 conv3_block{third} conv4_block{fourth}".split()
    blocks = r"^(conv1|conv\d_block\d+)_"
    plain = _taps(*(f"{end}_out" for end in ends), "conv5_block3_out")
    # Version 2 shrinks in a stage's last block, so that block's entry is where the stage is complete.
    version2 = _taps(*(f"{end}_preact_relu" for end in ends), "post_relu")
    return [
        Network(f"resnet{depth}", "resnet", f"ResNet{depth}", plain, blocks),
        Network(f"resnet{depth}_v2", "resnet_v2", f"ResNet{depth}V2", version2, blocks),
    ]


def _densenet(depth: int) -> Network:
    taps = _taps("pool2_relu", "pool3_relu", "pool4_relu", "relu")
    return Network(f"densenet{depth}", "densenet", f"DenseNet{depth}", taps, r"^(conv1|conv\d_block\d+|pool\d)_")


def _efficientnet(variant: str, ends: str) -> Network:
    """`ends` names the last block before each halving and the last of all, such as "2b 3b 5c 7a"."""
    module = "efficientnet_v2" if variant.startswith("v2") else "efficientnet"
    builder = "EfficientNet" + variant.upper().replace("_", "")
    # A stage of one block has no shortcut to add.
    taps = _taps(*(f"block{end}_{'project_bn' if end[1] == 'a' else 'add'}" for end in ends.split()))
    return Network(f"efficientnet_{variant}", module, builder, taps, r"^(stem|block\d[a-z])_")


def _convnext(size: str) -> Network:
    name = f"convnext_{size.lower()}"
    taps = _taps(*(f"{name}_downsampling_layernorm_{i}" for i in range(3)), "layer_normalization")
    return Network(name, "convnext", f"ConvNeXt{size}", taps, r"^convnext_[a-z]+_(stem|stage_\d_block_\d+)_")


def _nasnet(size: str, cells: int) -> Network:
    ends = (f"normal_concat_{i}" for i in (cells - 1, 2 * cells, 3 * cells))
    blocks = r"^(?:adjust|normal|reduction|separable)\w*?_(stem_\d|reduce_\d+|\d+)$"
    return Network(f"nasnet_{size.lower()}", "nasnet", f"NASNet{size}", _taps("reduction_concat_stem_1", *ends), blocks)


_VGG = r"^(block\d)_"
_MOBILE_V3 = r"^(expanded_conv_\d+|expanded_conv|conv)(?:_|$)"

NETWORKS = (
    Network("vgg16", "vgg16", "VGG16", _taps("block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"), _VGG),
    Network("vgg19", "vgg19", "VGG19", _taps("block3_conv4", "block4_conv4", "block5_conv4", "block5_pool"), _VGG),
    *_resnet(50, 4, 6),
    *_resnet(101, 4, 23),
    *_resnet(152, 8, 36),
    Network(
        "mobilenet",
        "mobilenet",
        "MobileNet",
        _taps("conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        r"^(?:conv_(?:dw|pw|pad)_)?(conv1|\d+)",
        scalable=True,
    ),
    Network(
        "mobilenet_v2",
        "mobilenet_v2",
        "MobileNetV2",
        _taps("block_2_add", "block_5_add", "block_12_add", "block_16_project_BN"),
        r"^(?:bn_)?(Conv1|expanded_conv|block_\d+)",
        scalable=True,
    ),
    Network(
        "mobilenet_v3_small",
        "mobilenet_v3",
        "MobileNetV3Small",
        _taps("expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "expanded_conv_10_add"),
        _MOBILE_V3,
        scalable=True,
    ),
    Network(
        "mobilenet_v3_large",
        "mobilenet_v3",
        "MobileNetV3Large",
        _taps("expanded_conv_2_add", "expanded_conv_5_add", "expanded_conv_11_add", "expanded_conv_14_add"),
        _MOBILE_V3,
        scalable=True,
    ),
    Network(
        "inception_v3",
        "inception_v3",
        "InceptionV3",
        _taps("mixed0_activation_4", "mixed2", "mixed7", "mixed10"),
        r"^(mixed\d+)(?!_1)",  # The layer mixed9_1 is within mixed10.
        merging=True,
    ),
    Network(
        "inception_resnet_v2",
        "inception_resnet_v2",
        "InceptionResNetV2",
        _taps("mixed_5b_activation_4", "block35_10_ac", "block17_20_ac", "conv_7b_ac"),
        r"^(mixed_\d\w|block\d+_\d+|conv_7b)",
        merging=True,
    ),
    Network(
        "xception",
        "xception",
        "Xception",
        _taps("block3_sepconv1_act", "block4_sepconv1_act", "block13_sepconv1_act", "block14_sepconv2_act"),
        r"^(block\d+)_",
    ),
    *map(_densenet, (121, 169, 201)),
    _efficientnet("b0", "2b 3b 5c 7a"),
    _efficientnet("b1", "2c 3c 5d 7b"),
    _efficientnet("b2", "2c 3c 5d 7b"),
    _efficientnet("b3", "2c 3c 5e 7b"),
    _efficientnet("b4", "2d 3d 5f 7b"),
    _efficientnet("b5", "2e 3e 5g 7c"),
    _efficientnet("b6", "2f 3f 5h 7c"),
    _efficientnet("b7", "2g 3g 5j 7d"),
    _efficientnet("v2_b0", "2b 3b 5e 6h"),
    _efficientnet("v2_b1", "2c 3c 5f 6i"),
    _efficientnet("v2_b2", "2c 3c 5f 6j"),
    _efficientnet("v2_b3", "2c 3c 5g 6l"),
    _efficientnet("v2_s", "2d 3d 5i 6o"),
    _efficientnet("v2_m", "2e 3e 5n 7e"),
    _efficientnet("v2_l", "2g 3g 5s 7g"),
    *map(_convnext, ("Tiny", "Small", "Base", "Large", "XLarge")),
    _nasnet("Mobile", 4),
    _nasnet("Large", 6),
)

_DOC = """{builder} of keras.applications, with taps at strides 4, 8, 16 and 32.

The network's own preprocessing is part of the built model, and what follows its last tap is left out.

Args:
  weights: "imagenet" (downloaded once by Keras), None for random ones, or a local weight file.
  min_restored: the fraction of the weight tensors, 0..1, that a local file must cover.{more}

Raises:
  ModelError: there is no such file, it covers too little, or the download failed.
"""
_ALPHA_DOC = "\n  alpha: the width of the layers, 1.0 as published; ImageNet weights exist for a few widths only."


def _factory(network: Network) -> Callable[..., Backbone]:
    def scaled(weights: str | None = "imagenet", min_restored: float = 0.9, alpha: float = 1.0) -> Backbone:
        return _backbone(network, weights, min_restored, {"alpha": alpha})

    def fixed(weights: str | None = "imagenet", min_restored: float = 0.9) -> Backbone:
        return _backbone(network, weights, min_restored, {})

    factory = scaled if network.scalable else fixed
    factory.__name__ = factory.__qualname__ = network.name
    factory.__doc__ = _DOC.format(builder=network.builder, more=_ALPHA_DOC if network.scalable else "")
    return factory


# The one that takes the least memory of all; what its weights say makes no difference to their size.
_SMALLEST = ["run.backbone = @backbones.mobilenet_v3_small()"], ["backbones.mobilenet_v3_small.weights = None"]

for _network in NETWORKS:
    backbones.register(
        _network.name,
        check=partial(weights_file, f"backbones.{_network.name}"),
        smaller=None if _network.name == "mobilenet_v3_small" else lambda: [_SMALLEST],
    )(_factory(_network))


def _backbone(network: Network, weights: str | None, min_restored: float, options: dict[str, float]) -> Backbone:
    path = weights_file(f"backbones.{network.name}", weights, min_restored)
    build = partial(_build, network, path, weights == "imagenet", min_restored, options)
    return Backbone(network.name, build, network.taps, network.blocks)


def _build(
    network: Network,
    path: Path | None,
    imagenet: bool,
    min_restored: float,
    options: dict[str, float],
    size: tuple[int, int],
    pretrained: bool = True,
) -> tuple[Any, Restored | None]:
    image = keras.Input((*size, 3), name="image")
    imagenet &= pretrained
    model = _settled(network, _published(network, imagenet, options, image))
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


def _settled(network: Network, published: Any) -> Any:
    """Return a copy, weights included, that is flat, ends at the last tap and has names that no session changes.

    Keras numbers unnamed layers through a whole session, while freezing, caching and saving need a layer to
    be called the same everywhere. The copy numbers them as a fresh session would, and where blocks are named
    by the layer that closes them, puts the block's name in front.
    """
    names = _stable_names(network, published)
    pairs = []

    def copy(layer: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            return layer
        twin = type(layer).from_config(_frozen_statistics(layer) | {"name": names.get(layer.name, layer.name)})
        pairs.append((layer, twin))
        return twin

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            for inner in layer.layers:
                args = (copy(inner)(*args),)
            return args[0]
        if isinstance(layer, keras.layers.Rescaling) and isinstance(layer.scale, list):
            return args[0]  # EfficientNet's correction, made needless by `_frozen_statistics`.
        return layer(*args, **kwargs)

    whole = keras.models.clone_model(published, clone_function=copy, call_function=call)
    model = keras.Model(whole.inputs[0], whole.get_layer(network.taps[max(network.taps)]).output, name=network.name)
    kept = {id(layer) for layer in leaves(model)}
    for layer, twin in pairs:
        if id(twin) in kept and twin.weights:
            for weight, published_weight in zip(twin.weights, layer.weights, strict=True):
                weight.assign(published_weight)
    return model


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
    if network.merging:
        block = ""
        for name in [operation.name for operation in reversed(model.operations)]:
            block = match[1] if (match := re.match(network.blocks, name)) else block
            if name in names and block:
                names[name] = f"{block}_{names[name]}"
    return names

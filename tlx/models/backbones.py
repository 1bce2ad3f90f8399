"""The networks of keras.applications as backbones: one table."""

from collections.abc import Callable
from functools import partial

from tlx.models.backbone import Backbone, tap_table
from tlx.models.published import Network, build
from tlx.models.weights import weights_file
from tlx.registry import backbones


def _ends(*names: str) -> dict[int, str]:
    return dict(zip((4, 8, 16, 32), names, strict=True))


def _resnet(depth: int, third: int, fourth: int) -> list[Network]:
    ends = f"conv2_block3 conv3_block{third} conv4_block{fourth}".split()
    blocks = r"^(conv1|conv\d_block\d+)_"
    plain = _ends(*(f"{end}_out" for end in ends), "conv5_block3_out")
    # Version 2 shrinks in a stage's last block, so that block's entry is where the stage is complete.
    version2 = _ends(*(f"{end}_preact_relu" for end in ends), "post_relu")
    return [
        Network(f"resnet{depth}", "resnet", f"ResNet{depth}", plain, blocks),
        Network(f"resnet{depth}_v2", "resnet_v2", f"ResNet{depth}V2", version2, blocks),
    ]


def _densenet(depth: int) -> Network:
    ends = _ends("pool2_relu", "pool3_relu", "pool4_relu", "relu")
    return Network(f"densenet{depth}", "densenet", f"DenseNet{depth}", ends, r"^(conv1|conv\d_block\d+|pool\d)_")


def _efficientnet(variant: str, blocks: str) -> Network:
    """`blocks` names the last block before each halving and the last of all, such as "2b 3b 5c 7a"."""
    module = "efficientnet_v2" if variant.startswith("v2") else "efficientnet"
    builder = "EfficientNet" + variant.upper().replace("_", "")
    # A stage of one block has no shortcut to add.
    ends = _ends(*(f"block{block}_{'project_bn' if block[1] == 'a' else 'add'}" for block in blocks.split()))
    pattern = r"^(stem|block\d[a-z]|top)_"
    return Network(
        f"efficientnet_{variant}", module, builder, ends, pattern, "top_activation", expansion="expand_activation"
    )


def _convnext(size: str) -> Network:
    name = f"convnext_{size.lower()}"
    ends = _ends(*(f"{name}_downsampling_layernorm_{i}" for i in range(3)), "layer_normalization")
    return Network(name, "convnext", f"ConvNeXt{size}", ends, r"^convnext_[a-z]+_(stem|stage_\d_block_\d+)_")


def _nasnet(size: str, cells: int) -> Network:
    ends = _ends("reduction_concat_stem_1", *(f"normal_concat_{i}" for i in (cells - 1, 2 * cells, 3 * cells)))
    blocks = r"^(?:adjust|normal|reduction|separable)\w*?_(stem_\d|reduce_\d+|\d+)$"
    return Network(f"nasnet_{size.lower()}", "nasnet", f"NASNet{size}", ends, blocks, "final_activation")


_VGG = r"^(block\d)_"
_MOBILE_V3 = r"^(expanded_conv_\d+|expanded_conv|conv_1|conv)(?:_|$)"

NETWORKS = (
    Network("vgg16", "vgg16", "VGG16", _ends("block3_conv3", "block4_conv3", "block5_conv3", "block5_pool"), _VGG),
    Network("vgg19", "vgg19", "VGG19", _ends("block3_conv4", "block4_conv4", "block5_conv4", "block5_pool"), _VGG),
    *_resnet(50, 4, 6),
    *_resnet(101, 4, 23),
    *_resnet(152, 8, 36),
    Network(
        "mobilenet",
        "mobilenet",
        "MobileNet",
        _ends("conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"),
        r"^(?:conv_(?:dw|pw|pad)_)?(conv1|\d+)",
        scalable=True,
    ),
    Network(
        "mobilenet_v2",
        "mobilenet_v2",
        "MobileNetV2",
        _ends("block_2_add", "block_5_add", "block_12_add", "block_16_project_BN"),
        r"^(?:bn_)?(Conv1|expanded_conv|block_\d+|Conv_1)",
        "out_relu",
        expansion="expand_relu",
        scalable=True,
    ),
    Network(
        "mobilenet_v3_small",
        "mobilenet_v3",
        "MobileNetV3Small",
        _ends("expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add", "expanded_conv_10_add"),
        _MOBILE_V3,
        "conv_1_activation",
        expansion="expand_activation",
        scalable=True,
    ),
    Network(
        "mobilenet_v3_large",
        "mobilenet_v3",
        "MobileNetV3Large",
        _ends("expanded_conv_2_add", "expanded_conv_5_add", "expanded_conv_11_add", "expanded_conv_14_add"),
        _MOBILE_V3,
        "conv_1_activation",
        expansion="expand_activation",
        scalable=True,
    ),
    Network(
        "inception_v3",
        "inception_v3",
        "InceptionV3",
        _ends("mixed0_activation_4", "mixed2", "mixed7", "mixed10"),
        r"^(mixed\d+)(?!_1)",  # The layer mixed9_1 is within mixed10.
        merging=True,
        smallest=75,
    ),
    Network(
        "inception_resnet_v2",
        "inception_resnet_v2",
        "InceptionResNetV2",
        _ends("mixed_5b_activation_4", "block35_10_ac", "block17_20_ac", "conv_7b_ac"),
        r"^(mixed_\d\w|block\d+_\d+|conv_7b)",
        merging=True,
        smallest=75,
    ),
    Network(
        "xception",
        "xception",
        "Xception",
        _ends("block3_sepconv1_act", "block4_sepconv1_act", "block13_sepconv1_act", "block14_sepconv2_act"),
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

# How many weight layers each has up to its last layer, as `graph.weight_layers` counts them: known without TensorFlow.
_WEIGHT_LAYERS = {
    "convnext_base": 112,
    "convnext_large": 112,
    "convnext_small": 112,
    "convnext_tiny": 58,
    "convnext_xlarge": 112,
    "densenet121": 120,
    "densenet169": 168,
    "densenet201": 200,
    "efficientnet_b0": 81,
    "efficientnet_b1": 115,
    "efficientnet_b2": 115,
    "efficientnet_b3": 130,
    "efficientnet_b4": 160,
    "efficientnet_b5": 194,
    "efficientnet_b6": 224,
    "efficientnet_b7": 273,
    "efficientnet_v2_b0": 91,
    "efficientnet_v2_b1": 111,
    "efficientnet_v2_b2": 116,
    "efficientnet_v2_b3": 136,
    "efficientnet_v2_l": 339,
    "efficientnet_v2_m": 245,
    "efficientnet_v2_s": 170,
    "inception_resnet_v2": 244,
    "inception_v3": 94,
    "mobilenet": 27,
    "mobilenet_v2": 52,
    "mobilenet_v3_large": 62,
    "mobilenet_v3_small": 52,
    "nasnet_large": 268,
    "nasnet_mobile": 196,
    "resnet101": 104,
    "resnet101_v2": 104,
    "resnet152": 155,
    "resnet152_v2": 155,
    "resnet50": 53,
    "resnet50_v2": 53,
    "vgg16": 13,
    "vgg19": 16,
    "xception": 40,
}

_DOC = """{builder} of keras.applications, with taps at strides 4, 8, 16 and 32.

The network's own preprocessing is part of the built model, and its classifier is left out.

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
    whole = partial(build, network, path, weights == "imagenet", min_restored, options)
    taps, final = tap_table(network.ends, network.final, network.expansion)
    return Backbone(network.name, whole, taps, final, network.blocks, _WEIGHT_LAYERS[network.name])

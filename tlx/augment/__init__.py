"""Augmentations: operations that compose. Pictures are combined, moved by one map, coloured by one map, and changed.

A view is drawn from a generator without opening a picture (`draw_view`), and its targets follow from it alone
(`move`, `move_points`); only pixels need pictures (`look`).
"""

from tlx.augment.affine import Resize
from tlx.augment.operation import (
    Augmentation,
    Colour,
    Combination,
    Geometry,
    Operation,
    Pixels,
    arranged,
    draw_view,
    pictures_of,
    whole,
)
from tlx.augment.render import look
from tlx.augment.scene import MIN_VISIBLE, Picture, Scene
from tlx.augment.standard import NoAugmentation, Standard
from tlx.augment.view import Layer, PixelChange, View, move, move_points, restore, restore_points

__all__ = [
    "MIN_VISIBLE",
    "Augmentation",
    "Colour",
    "Combination",
    "Geometry",
    "Layer",
    "NoAugmentation",
    "Operation",
    "Picture",
    "PixelChange",
    "Pixels",
    "Resize",
    "Scene",
    "Standard",
    "View",
    "arranged",
    "draw_view",
    "look",
    "move",
    "move_points",
    "pictures_of",
    "restore",
    "restore_points",
    "whole",
]

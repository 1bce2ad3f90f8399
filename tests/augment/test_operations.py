"""Every augmentation against pixels: a filled box is drawn and augmented, and its moved box must fit its pixels."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx import registry
from tlx.augment import Picture, arranged, draw_view, look, move, pictures_of
from tlx.augment.colours import Brightness, Contrast, Hue, Saturation
from tlx.augment.combinations import CopyPaste, Mixup, Mosaic
from tlx.augment.crops import CropByOverlap, CropKeepingCentres
from tlx.augment.flips import Flip, QuarterTurns, VerticalFlip
from tlx.augment.pixels import Blur, CutOut, Jpeg, Noise
from tlx.augment.standard import NoAugmentation, Photometric, Standard
from tlx.augment.tf_object_detection import (
    RandomAdjustBrightness,
    RandomAdjustContrast,
    RandomAdjustHue,
    RandomAdjustSaturation,
    RandomCropImage,
    RandomHorizontalFlip,
    RandomRotation90,
    RandomVerticalFlip,
    SsdRandomCrop,
)
from tlx.augment.turns import Rotate, Shear
from tlx.augment.zoom import Expand, Zoom
from tlx.registry import augmentations

# One of each, set so that it always does something.
CASES = {
    "none": NoAugmentation(),
    "standard": Standard(),
    "photometric": Photometric(),
    "flip": Flip(1.0),
    "vertical_flip": VerticalFlip(1.0),
    "quarter_turns": QuarterTurns(1.0),
    "zoom": Zoom((0.5, 2.0), 1.5),
    "expand": Expand(3.0, 1.0),
    "rotate": Rotate(180.0),
    "shear": Shear(25.0),
    "crop_by_overlap": CropByOverlap(probability=1.0),
    "crop_keeping_centres": CropKeepingCentres(0.3),
    "brightness": Brightness(0.4),
    "contrast": Contrast(0.4),
    "saturation": Saturation(0.6),
    "hue": Hue(180.0),
    "blur": Blur((0.5, 2.0), 1.0),
    "noise": Noise((1.0, 12.0), 1.0),
    "jpeg": Jpeg((30, 90), 1.0),
    "cut_out": CutOut(1, (0.05, 0.1), 1.0),
    "mosaic": Mosaic(probability=1.0),
    "mixup": Mixup(probability=1.0),
    "copy_paste": CopyPaste(scale=(0.8, 2.0), probability=1.0),
    "random_horizontal_flip": RandomHorizontalFlip(1.0),
    "random_vertical_flip": RandomVerticalFlip(1.0),
    "random_rotation90": RandomRotation90(1.0),
    "random_adjust_brightness": RandomAdjustBrightness(),
    "random_adjust_contrast": RandomAdjustContrast(),
    "random_adjust_hue": RandomAdjustHue(0.5),
    "random_adjust_saturation": RandomAdjustSaturation(),
    "random_crop_image": RandomCropImage(0.3),
    "ssd_random_crop": SsdRandomCrop(random_coef=0.0),
}
TOGETHER = (Rotate(20.0), Zoom((0.7, 1.4), 1.2), Flip(), VerticalFlip(), Shear(10.0), Photometric(), Blur(), Jpeg())
# Smaller boxes than this are off by more than a tenth where each side is off by its last pixel.
SMALLEST = 44


def box_of(share, width, height):
    """A box that takes these shares (x, y, width, height) of what a picture has room for, in whole pixels."""
    side = np.round(np.array([width, height]) * (0.3 + 0.4 * np.array(share[2:])))
    low = np.floor((np.array([width, height]) - side) * share[:2])
    return np.concatenate([low, low + side]).astype(np.float32)


def filled(width, height, box, channel):
    """A dark picture with a box filled in one channel."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    x0, y0, x1, y1 = box.astype(int)
    pixels[y0:y1, x0:x1, channel] = 250
    return Image.fromarray(pixels)


def extent(there):
    y, x = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    assert len(x), "nothing of a box that is in view was found"
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], np.float64)


def strong(values):
    """Where values are above half of the greatest: an edge stays where it is whatever the light."""
    return values > values.max() / 2


def iou(a, b):
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


def check(augment, sizes, shares, size, seed, resize):
    """Draw a view of filled boxes, and compare each that can be seen whole or cut with its pixels."""
    operations = arranged(augment)
    count = pictures_of(operations)
    boxes = [box_of(share, *wh) for share, wh in zip(shares, sizes, strict=True)][:count]
    # Each has a channel of its own, but for the fourth of a mosaic, which is not looked for.
    drawn = {i: filled(*wh, box, min(i, 2)) for i, (box, wh) in enumerate(zip(boxes, sizes, strict=False))}
    if count == 4:
        drawn[3] = Image.new("RGB", sizes[3], (20, 20, 20))
    known = [Picture(i, *sizes[i], boxes[i][None], np.zeros(1, bool)) for i in range(count)]
    if count == 4:
        known[3] = Picture(3, *sizes[3])
    order = [(i + 1) % count for i in range(count)]
    view = draw_view(
        operations, np.random.default_rng(seed), known[order[0]], size, resize, [known[i] for i in order[1:]]
    )
    shown = look(drawn, view).astype(int)
    assert shown.shape == (*size, 3)
    compared = 0
    for number, layer in enumerate(view.layers):
        if layer.picture == 3:
            continue
        (moved,), (visible,) = move(boxes[layer.picture][None], view, number)
        bare = replace(view, layers=view.layers[: number + 1], pixels=())
        uncovered = move(boxes[layer.picture][None], bare, number)[1][0]
        hidden = visible < uncovered - 1e-6 and not any(change.hides for change in view.pixels)
        if (moved[2:] - moved[:2]).min() < SMALLEST or hidden:
            continue
        values = np.ptp(shown, axis=2) if count == 1 else shown[..., layer.picture] - shown.min(2)
        if count == 2 and view.layers[-1].opacity < 1:
            # What is not mixed stands out too far for its half to be a limit.
            values = np.minimum(values, 80)
        overlap = iou(extent(strong(values)), moved)
        assert overlap > 0.9, (overlap, moved, extent(strong(values)), view)
        compared += 1
    return compared


sides = st.tuples(st.integers(100, 500), st.integers(100, 500))
shares = st.tuples(*[st.floats(0, 1)] * 4)
frames = st.tuples(st.integers(160, 320), st.integers(160, 320))
seeds = st.integers(0, 2**32 - 1)
resizes = st.sampled_from(["letterbox", "stretch", "crop"])


def test_every_registered_augmentation_is_checked():
    registry.discover()
    builtin = {e.name for e in augmentations.entries.values() if e.package == "tlx"}
    assert builtin == set(CASES)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25)
@given(st.tuples(*[sides] * 4), st.tuples(*[shares] * 4), frames, seeds, resizes)
def test_boxes_move_with_their_pixels(name, sizes, shares, size, seed, resize):
    assume(check(CASES[name], sizes, shares, size, seed, resize))


@settings(max_examples=100)
@given(st.tuples(*[sides] * 4), st.tuples(*[shares] * 4), frames, seeds, resizes)
def test_boxes_move_with_their_pixels_through_several_operations(sizes, shares, size, seed, resize):
    assume(check(TOGETHER, sizes, shares, size, seed, resize))

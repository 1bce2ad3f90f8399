"""What happens to pixels must happen to boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.augment import NoAugmentation, Standard, View, letterbox, look, move, restore

sides = st.integers(40, 700)
inputs = st.tuples(st.integers(64, 320), st.integers(64, 320))
seeds = st.integers(0, 2**32 - 1)


def green(shown):
    """The extent of what was drawn in green, on a dark picture."""
    there = (shown[..., 1].astype(int) - shown[..., 0]) > 80
    y, x = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], np.float64)


def picture(width, height, box):
    pixels = np.full((height, width, 3), 20, np.uint8)
    x0, y0, x1, y1 = (int(v) for v in box)
    pixels[y0:y1, x0:x1] = (20, 250, 20)
    return Image.fromarray(pixels)


def iou(a, b):
    inner = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner)


def placed(width, height, share):
    """A box that covers these shares (x, y, width, height) of what a picture has room for."""
    low = np.floor(np.array([width, height]) * share[:2] * 0.6)
    high = np.minimum(low + np.ceil(np.array([width, height]) * (0.2 + 0.3 * np.array(share[2:]))), (width, height))
    return np.array([[*low, *high]], np.float32)


shares = st.tuples(*[st.floats(0, 1)] * 4)


@settings(max_examples=150, deadline=None)
@given(sides, sides, inputs, seeds, shares)
def test_pixels_and_boxes_move_alike(width, height, size, seed, share):
    boxes = placed(width, height, np.array(share))
    view = Standard(brightness=0.0, contrast=0.0, saturation=0.0)(np.random.default_rng(seed), width, height, size)
    moved, _ = move(boxes, view, size)
    extent = moved[0, 2:] - moved[0, :2]
    if extent.min() < 4:
        return
    found = green(look(picture(width, height, boxes[0]), view, size))
    # A side may be off by the pixel that it runs through; a reduced picture's last pixel overhangs by part of one more.
    assert np.abs(found - moved[0]).max() <= 1.7
    assert iou(found, moved[0]) > 1 - 4 / extent.min()


def test_large_boxes_move_with_their_pixels_nearly_exactly():
    overlaps = []
    for seed in range(60):
        boxes = np.array([[30, 60, 460, 330]], np.float32)
        view = Standard(brightness=0.0, contrast=0.0, saturation=0.0)(np.random.default_rng(seed), 501, 375, (320, 320))
        moved, _ = move(boxes, view, (320, 320))
        overlaps.append(iou(green(look(picture(501, 375, boxes[0]), view, (320, 320))), moved[0]))
    assert min(overlaps) > 0.97


def test_a_much_reduced_picture_is_not_shifted():
    # 1999 is no multiple of the reduction, which is where a shift would come from.
    boxes = np.array([[1700, 900, 1990, 1300]], np.float32)
    view = letterbox(1999, 1333, (128, 128))
    shown = look(picture(1999, 1333, boxes[0]), view, (128, 128)).astype(float)
    weight = np.clip(shown[..., 1] - shown[..., 0], 0, None)
    y, x = np.mgrid[:128, :128] + 0.5
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    moved = move(boxes, view, (128, 128))[0][0]
    np.testing.assert_allclose(centre, (moved[:2] + moved[2:]) / 2, atol=0.05)


def test_reduction_takes_a_mean_of_all_pixels():
    rng = np.random.default_rng(0)
    stripes = np.repeat(rng.integers(0, 2, (1, 1024, 1), np.uint8) * 255, 1024, 0).repeat(3, 2)
    shown = look(Image.fromarray(stripes), letterbox(1024, 1024, (64, 64)), (64, 64)).astype(float)
    # Every pixel counts, by how near it is to the middle of the one that it goes into.
    distance = np.abs((np.arange(64) + 0.5)[:, None] * 16 - np.arange(1024) - 0.5)
    weights = np.maximum(0, 1 - distance / 16)
    expected = (weights / weights.sum(1, keepdims=True)) @ stripes[0].astype(float)
    assert np.abs(shown.mean(0) - expected).max() < 20


@settings(max_examples=100, deadline=None)
@given(sides, sides, inputs, seeds, shares)
def test_restore_is_the_inverse_of_move(width, height, size, seed, share):
    boxes = placed(width, height, np.array(share))
    view = Standard()(np.random.default_rng(seed), width, height, size)
    moved, visible = move(boxes, view, size)
    back = restore(moved, view, width, height)
    if visible[0] > 1 - 1e-9:
        np.testing.assert_allclose(back, boxes, atol=max(width, height) * 1e-4)
    elif visible[0] > 0:
        # What was cut off does not come back.
        assert (back[0, :2] >= boxes[0, :2] - 0.1).all()
        assert (back[0, 2:] <= boxes[0, 2:] + 0.1).all()


def test_restore_clips_to_the_picture():
    back = restore(np.array([[-50, -50, 400, 400]], np.float32), letterbox(100, 50, (200, 200)), 100, 50)
    assert back.tolist() == [[0, 0, 100, 50]]


@pytest.mark.parametrize("size", [(96, 96), (64, 128), (128, 64)])
def test_a_letterbox_shows_the_whole_picture_undistorted_and_centred(size):
    view = letterbox(300, 200, size)
    (x0, y0, x1, y1), visible = move(np.array([[0, 0, 300, 200]], np.float32), view, size)[0][0], 1.0
    assert (x1 - x0) / (y1 - y0) == pytest.approx(1.5)
    assert (x0 + x1, y0 + y1) == pytest.approx((size[1], size[0]))
    assert max((x1 - x0) / size[1], (y1 - y0) / size[0]) == pytest.approx(1.0)
    assert visible == 1.0


def test_outside_the_picture_is_grey_and_inside_is_as_it_was():
    shown = look(Image.new("RGB", (100, 50), (200, 10, 10)), letterbox(100, 50, (100, 100)), (100, 100))
    assert (shown[:24] == (124, 116, 104)).all()
    assert (shown[26:74] == (200, 10, 10)).all()


def test_visible_is_the_share_that_is_left():
    view = View(np.array([[1.0, 0, -10], [0, 1, 0]]))
    moved, visible = move(np.array([[0, 0, 20, 20], [0, 0, 10, 10], [30, 0, 50, 20]], np.float32), view, (60, 60))
    np.testing.assert_allclose(visible, [0.5, 0, 1])
    assert moved[0].tolist() == [0, 0, 10, 20]
    assert moved.dtype == np.float32


def test_no_boxes_are_no_trouble():
    moved, visible = move(np.zeros((0, 4), np.float32), letterbox(10, 10, (64, 64)), (64, 64))
    assert moved.shape == (0, 4)
    assert visible.shape == (0,)


def test_colours_change_within_what_is_asked():
    picture = Image.new("RGB", (32, 32), (100, 100, 100))
    for seed in range(30):
        view = Standard(contrast=0.0, saturation=0.0, brightness=0.25)(np.random.default_rng(seed), 32, 32, (32, 32))
        shown = look(picture, View(letterbox(32, 32, (32, 32)).matrix, view.colour), (32, 32))
        assert 74 <= shown.min() <= shown.max() <= 126
    flat = View(letterbox(32, 32, (32, 32)).matrix, Standard(saturation=1.0)._colour(np.random.default_rng(0)))
    grey = look(picture, flat, (32, 32))[0, 0].astype(int)
    assert np.ptp(grey) <= 1


def test_a_view_depends_on_the_generator_alone_and_mirrors_half_the_time():
    views = [Standard()(np.random.default_rng(seed), 100, 80, (64, 64)) for seed in range(200)]
    again = [Standard()(np.random.default_rng(seed), 100, 80, (64, 64)) for seed in range(200)]
    assert all((a.matrix == b.matrix).all() and (a.colour == b.colour).all() for a, b in zip(views, again, strict=True))
    mirrored = sum(view.matrix[0, 0] < 0 for view in views)
    assert 70 < mirrored < 130
    assert len({view.matrix.tobytes() for view in views}) == 200


def test_zoom_is_bounded_relative_to_the_letterbox():
    fit = letterbox(100, 80, (64, 64)).matrix[0, 0]
    scales = [abs(Standard(stretch=1.0)(np.random.default_rng(s), 100, 80, (64, 64)).matrix[0, 0]) for s in range(300)]
    assert 0.6 * fit <= min(scales) < 0.7 * fit
    assert 1.45 * fit < max(scales) <= 1.6 * fit


def test_what_views_depend_on_is_in_the_repr():
    assert repr(Standard(zoom=(0.5, 2.0))) != repr(Standard())
    assert repr(NoAugmentation()) != repr(Standard())

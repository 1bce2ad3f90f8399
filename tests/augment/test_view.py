"""What becomes of boxes, points and pixels in a given view."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.augment import (
    Layer,
    NoAugmentation,
    Picture,
    Standard,
    View,
    arranged,
    draw_view,
    look,
    move,
    move_points,
    restore,
    restore_points,
    whole,
)
from tlx.augment.colours import Brightness, Saturation
from tlx.augment.flips import QuarterTurns
from tlx.augment.pixels import Cut
from tlx.augment.turns import Rotate, Shear
from tlx.augment.view import _extent
from tlx.errors import ConfigError

sides = st.integers(40, 700)
frames = st.tuples(st.integers(64, 320), st.integers(64, 320))
seeds = st.integers(0, 2**32 - 1)
resizes = st.sampled_from(["letterbox", "stretch", "crop"])
shares = st.tuples(*[st.floats(0, 1)] * 4)


def placed(width, height, share):
    low = np.floor(np.array([width, height]) * share[:2] * 0.6)
    high = np.minimum(low + np.ceil(np.array([width, height]) * (0.2 + 0.3 * np.array(share[2:]))), (width, height))
    return np.array([[*low, *high]], np.float32)


def plain(width, height, size, resize="letterbox"):
    return whole(Picture(0, width, height), size, resize)


def drawn(augment, seed, width, height, size, resize="letterbox"):
    return draw_view(arranged(augment), np.random.default_rng(seed), Picture(0, width, height), size, resize)


def mapped(matrix, size=(60, 60), crop=(0.0, 0.0, 100.0, 100.0), **more):
    return View(size, (Layer(0, np.array(matrix, np.float64), crop),), **more)


def test_a_much_reduced_picture_is_not_shifted():
    # 1999 is no multiple of the reduction, which is where a shift would come from.
    box = np.array([[1700, 900, 1990, 1300]], np.float32)
    pixels = np.full((1333, 1999, 3), 20, np.uint8)
    pixels[900:1300, 1700:1990, 1] = 250
    for view in (plain(1999, 1333, (128, 128)), drawn(Rotate(10.0), 1, 1999, 1333, (128, 128))):
        shown = look({0: Image.fromarray(pixels)}, view).astype(float)
        weight = np.clip(shown[..., 1] - shown[..., 0] - 30, 0, None)
        y, x = np.mgrid[:128, :128] + 0.5
        centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
        moved = move(box, view)[0][0]
        np.testing.assert_allclose(centre, (moved[:2] + moved[2:]) / 2, atol=0.1)


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_reduction_takes_a_mean_of_all_pixels(degrees):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 2, (1024, 1024, 1), np.uint8).repeat(3, 2) * 255)
    view = plain(1024, 1024, (64, 64)) if degrees == 0 else drawn(Rotate(degrees), 5, 1024, 1024, (64, 64))
    shown = look({0: noise}, view)[20:44, 20:44].astype(float)
    # Single pixels deviate by 127 from the mean; means of some hundreds by a twentieth of that.
    assert abs(shown.mean() - 127.5) < 3
    assert shown.std() < 16


@settings(max_examples=100, deadline=None)
@given(sides, sides, frames, seeds, shares, resizes)
def test_restore_is_the_inverse_of_move(width, height, size, seed, share, resize):
    boxes = placed(width, height, np.array(share))
    view = drawn(Standard(), seed, width, height, size, resize)
    moved, visible = move(boxes, view)
    back = restore(moved, view)
    if visible[0] > 1 - 1e-9:
        np.testing.assert_allclose(back, boxes, atol=max(width, height) * 1e-4)
    elif visible[0] > 0:
        # What was cut off does not come back.
        assert (back[0, :2] >= boxes[0, :2] - 0.1).all()
        assert (back[0, 2:] <= boxes[0, 2:] + 0.1).all()


@settings(max_examples=50, deadline=None)
@given(sides, sides, frames, seeds, st.lists(shares, min_size=1, max_size=5))
def test_points_go_where_boxes_go_and_come_back(width, height, size, seed, at):
    points = np.array(at, np.float64).reshape(-1, 2, 2) * (width, height)
    view = drawn((Standard(), Rotate(90.0), Shear(20.0)), seed, width, height, size)
    moved, inside = move_points(points, view)
    assert (moved.shape, inside.shape, moved.dtype) == (points.shape, points.shape[:2], np.float32)
    np.testing.assert_allclose(restore_points(moved, view), points, atol=max(width, height) * 1e-4)
    tiny = np.concatenate([points, points], axis=2).reshape(-1, 4)
    centres = move(tiny, view)[0].reshape(points.shape[0], 2, 2, 2)[..., 0, :]
    np.testing.assert_allclose(centres[inside], moved[inside], atol=1e-3)


def test_points_outside_of_what_is_shown_are_not_in_view():
    view = mapped([[1, 0, 0], [0, 1, 0]], crop=(10.0, 10.0, 40.0, 80.0))
    inside = move_points(np.array([[[20.0, 20.0], [5.0, 20.0], [20.0, 70.0]]]), view)[1]
    assert inside.tolist() == [[True, False, False]]


def test_restore_clips_to_the_picture():
    back = restore(np.array([[-50, -50, 400, 400]], np.float32), plain(100, 50, (200, 200)))
    assert back.tolist() == [[0, 0, 100, 50]]


@pytest.mark.parametrize("size", [(96, 96), (64, 128), (128, 64)])
def test_a_letterbox_shows_the_whole_picture_undistorted_and_centred(size):
    (x0, y0, x1, y1) = move(np.array([[0, 0, 300, 200]], np.float32), plain(300, 200, size))[0][0]
    assert (x1 - x0) / (y1 - y0) == pytest.approx(1.5)
    assert (x0 + x1, y0 + y1) == pytest.approx((size[1], size[0]))
    assert max((x1 - x0) / size[1], (y1 - y0) / size[0]) == pytest.approx(1.0)


@pytest.mark.parametrize("size", [(96, 96), (64, 128), (128, 64)])
def test_stretch_and_crop_fill_the_input(size):
    picture = Image.new("RGB", (300, 200), (200, 10, 10))
    for resize in ("stretch", "crop"):
        assert (look({0: picture}, plain(300, 200, size, resize)) == (200, 10, 10)).all()
    stretched = move(np.array([[0, 0, 300, 200]], np.float32), plain(300, 200, size, "stretch"))
    assert stretched[0].tolist() == [[0, 0, size[1], size[0]]]
    assert stretched[1].tolist() == pytest.approx([1.0])
    matrix = plain(300, 200, size, "crop").matrix
    assert matrix[0, 0] == matrix[1, 1] == max(size[1] / 300, size[0] / 200)
    middle = move(np.array([[140, 90, 160, 110]], np.float32), plain(300, 200, size, "crop"))[0][0]
    assert (middle[:2] + middle[2:]).tolist() == pytest.approx([size[1], size[0]])


@given(sides, sides, frames)
def test_no_line_of_grey_is_left_by_rounding(width, height, size):
    shown = look({0: Image.new("RGB", (width, height), (200, 10, 10))}, plain(width, height, size, "stretch"))
    assert (shown == (200, 10, 10)).all()


def test_outside_the_picture_is_grey_and_inside_is_as_it_was():
    shown = look({0: Image.new("RGB", (100, 50), (200, 10, 10))}, plain(100, 50, (100, 100)))
    assert (shown[:24] == (124, 116, 104)).all()
    assert (shown[26:74] == (200, 10, 10)).all()


def test_visible_is_the_share_that_is_left():
    boxes = np.array([[0, 0, 20, 20], [0, 0, 10, 10], [30, 0, 50, 20]], np.float32)
    moved, visible = move(boxes, mapped([[1, 0, -10], [0, 1, 0]]))
    np.testing.assert_allclose(visible, [0.5, 0, 1])
    assert moved[0].tolist() == [0, 0, 10, 20]
    assert moved.dtype == np.float32


def test_what_lies_above_and_what_is_cut_out_is_not_visible():
    boxes = np.array([[0, 0, 20, 20], [40, 40, 60, 60]], np.float32)
    below, above = (Layer(i, np.eye(3)[:2], (0.0, 0.0, side, side)) for i, side in ((0, 100.0), (1, 10.0)))
    view = View((60, 60), (below, above), pixels=(Cut(((40.0, 40.0, 50.0, 60.0),)),))
    moved, visible = move(boxes, view)
    np.testing.assert_allclose(visible, [0.75, 0.5])
    assert moved.tolist() == boxes.tolist()
    # What is half transparent covers nothing.
    faint = View((60, 60), (below, Layer(1, above.matrix, above.crop, 0.5)))
    assert move(boxes, faint)[1].tolist() == [1.0, 1.0]


def test_a_box_beside_what_is_shown_is_not_visible_however_the_view_is_turned():
    boxes = np.array([[50, 5, 60, 80], [40, 5, 60, 80], [10, 10, 20, 20]], np.float32)
    for degrees in (0, 12, 45, 90):
        turn = np.radians(degrees)
        matrix = [[np.cos(turn), -np.sin(turn), 30], [np.sin(turn), np.cos(turn), 0]]
        assert move(boxes, mapped(matrix, (200, 200), (0.0, 0.0, 40.0, 100.0)))[1] == pytest.approx([0, 0, 1])


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_the_box_around_a_turned_box_in_the_frame_is_that_of_its_pixels(seed):
    rng = np.random.default_rng(seed)
    matrix = np.hstack([rng.normal(0, 1, (2, 2)), rng.uniform(-40, 80, (2, 1))])
    assume(np.linalg.cond(matrix[:, :2]) < 2.5)
    box = np.array([[5.0, 10.0, 45.0, 70.0]])
    y, x = np.mgrid[:240, :240] / 4 + 0.125
    back = np.linalg.inv(matrix[:, :2])
    source = (np.stack([x, y], -1) - matrix[:, 2]) @ back.T
    there = ((source > box[0, :2]) & (source < box[0, 2:])).all(-1)
    found = _extent(matrix, box, 60.0, 60.0)[0]
    if there.any():
        rows, columns = np.flatnonzero(there.any(1)) / 4, np.flatnonzero(there.any(0)) / 4
        expected = [columns[0], rows[0], columns[-1] + 0.25, rows[-1] + 0.25]
        assert (found[:2] <= np.array(expected[:2]) + 0.25).all()
        assert (found[2:] >= np.array(expected[2:]) - 0.25).all()
        assert np.abs(found - expected).max() < 1.5
    else:
        assert (found[2:] - found[:2]).min() < 3


def test_no_boxes_are_no_trouble():
    for view in (plain(10, 10, (64, 64)), drawn(Rotate(40.0), 0, 10, 10, (64, 64))):
        moved, visible = move(np.zeros((0, 4), np.float32), view)
        assert moved.shape == (0, 4)
        assert visible.shape == (0,)


def test_a_vertical_flip_and_a_quarter_turn_are_exact():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    flipped = mapped([[1, 0, 0], [0, -1, 40]], (40, 60), (0.0, 0.0, 60.0, 40.0))
    assert (look({0: Image.fromarray(pixels)}, flipped) == pixels[::-1]).all()
    for seed in range(6):
        view = drawn(QuarterTurns(1.0), seed, 60, 60, (60, 60))
        square = np.random.default_rng(1).integers(0, 255, (60, 60, 3), np.uint8)
        shown = look({0: Image.fromarray(square)}, view)
        assert any((shown == np.rot90(square, turns)).all() for turns in (1, 2, 3))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"matrix": [[1, 0, np.nan], [0, 1, 0]]}, "finite"),
        ({"matrix": [[1, 0], [0, 1]]}, "2 x 3"),
        ({"matrix": [[1, 2, 0], [2, 4, 0]]}, "to a line"),
        ({"matrix": [[0, 0, 0], [0, 0, 0]]}, "to a line"),
        ({"matrix": [[1, 0, 0], [0, 1, 0]], "crop": (5.0, 0.0, 5.0, 9.0)}, "it shows"),
        ({"matrix": [[1, 0, 0], [0, 1, 0]], "colour": np.full((3, 4), np.inf)}, "map of colours"),
    ],
)
def test_a_view_that_cannot_be_drawn_is_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        mapped(**change)
    with pytest.raises(ConfigError, match="no picture"):
        View((60, 60), ())


def test_colours_change_within_what_is_asked():
    grey = Image.new("RGB", (32, 32), (100, 100, 100))
    levels = [look({0: grey}, drawn(Brightness(0.25), seed, 32, 32, (32, 32))) for seed in range(30)]
    assert 74 <= min(map(np.min, levels)) < 85
    assert 115 < max(map(np.max, levels)) <= 126
    red = Image.new("RGB", (32, 32), (200, 50, 20))
    spans = [int(np.ptp(look({0: red}, drawn(Saturation(1.0), seed, 32, 32, (32, 32)))[0, 0])) for seed in range(60)]
    assert min(spans) < 30
    assert max(spans) > 200


def test_a_view_depends_on_the_generator_alone_and_mirrors_half_the_time():
    first, again = ([drawn(Standard(), seed, 100, 80, (64, 64)) for seed in range(200)] for _ in range(2))
    assert all((a.matrix == b.matrix).all() and (a.colour == b.colour).all() for a, b in zip(first, again, strict=True))
    assert 70 < sum(view.matrix[0, 0] < 0 for view in first) < 130
    assert len({view.matrix.tobytes() for view in first}) == 200


def test_zoom_is_bounded_relative_to_the_letterbox():
    fit = plain(100, 80, (64, 64)).matrix[0, 0]
    scales = [abs(drawn(Standard(stretch=1.0), seed, 100, 80, (64, 64)).matrix[0, 0]) for seed in range(300)]
    assert 0.6 * fit <= min(scales) < 0.7 * fit
    assert 1.45 * fit < max(scales) <= 1.6 * fit


def test_a_zoomed_picture_lies_in_the_input_or_covers_it():
    for seed in range(200):
        view = drawn(Standard(), seed, 100, 80, (64, 64))
        low, high = np.sort(np.array([[0, 0], [100, 80]]) * view.matrix[[0, 1], [0, 1]] + view.matrix[:, 2], axis=0)
        for a, b in zip(low, high, strict=True):
            assert (a >= -1e-9 and b <= 64 + 1e-9) or (a <= 1e-9 and b >= 64 - 1e-9)


def test_what_views_depend_on_is_in_the_repr():
    assert repr(Standard(zoom=(0.5, 2.0))) != repr(Standard())
    assert repr(NoAugmentation()) != repr(Standard())

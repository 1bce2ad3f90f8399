import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_tools

from tlx.data.formats.masks import is_polygon_text, pixel_bounds, polygon_bounds, run_bounds, text_bounds


@st.composite
def drawn_masks(draw):
    height, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    pixels = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.asfortranarray(np.array(pixels, np.uint8).reshape(height, width))


@given(drawn_masks())
def test_bounds_of_masks_agree_with_the_pixels(mask):
    ys, xs = np.nonzero(mask)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
    flat = mask.ravel(order="F")
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    plain = [0] * int(flat[0]) + np.diff(edges).tolist()
    packed = mask_tools.encode(mask)
    assert run_bounds(plain, mask.shape) == expected
    assert run_bounds(packed["counts"].decode(), packed["size"]) == expected
    assert pixel_bounds(mask) == expected
    assert pixel_bounds(np.repeat(mask[..., None], 3, 2)) == expected


@given(st.text(max_size=40) | st.lists(st.integers()), st.lists(st.integers(), max_size=3))
def test_runs_of_any_kind_are_bounds_or_a_value_error(counts, size):
    try:
        box = run_bounds(counts, size)
    except ValueError:
        return
    assert box is None or 0 <= box[0] < box[2] <= size[1]


@pytest.mark.parametrize("counts", ["o" * 100_000, "0" * 100_000, [2**70], [5001, -1], [], "P" * 100_000])
def test_absurd_runs_are_refused(counts):
    with pytest.raises(ValueError, match="mask"):
        run_bounds(counts, [50, 100])


def test_bounds_of_polygons():
    assert polygon_bounds([[1, 2, 3, 4, 1, 4], [0, 9, 1, 9, 1, 5], [-9, -9, 99, 99]]) == (0, 2, 3, 9)
    assert polygon_bounds([[1, 2, 3, 4], []]) is None
    with pytest.raises(ValueError, match="7 coordinates"):
        polygon_bounds([[1, 2, 3, 4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("POLYGON ((1 2, 3 2.5, 3e0 4, 1 2))", [(1, 2, 3, 4)]),
        ("polygon((1 2 0,3 2 0,3 4 0))", [(1, 2, 3, 4)]),
        ("MULTIPOLYGON (((1 2, 3 4), (0 0, 9 9)),\n ((5 -6, 7 8)))", [(1, 2, 3, 4), (5, -6, 7, 8)]),
        ("MULTIPOLYGON EMPTY", []),
    ],
)
def test_bounds_of_text(text, boxes):
    assert is_polygon_text(text)
    assert text_bounds(text) == boxes


@pytest.mark.parametrize(
    "text",
    ["POLYGON", "POLYGON ((1 2", "POLYGON ((a b, c d))", "POLYGON ((1, 2))", "POLYGON (())", "POLYGON ((1 2), (3 4)"],
)
def test_text_that_is_no_polygon(text):
    with pytest.raises(ValueError, match="in WKT"):
        text_bounds(text)


@given(st.text("POLYGN( ),1.-e", max_size=60))
def test_any_text_is_boxes_or_a_value_error(text):
    try:
        text_bounds(text)
    except ValueError:
        return


@pytest.mark.parametrize("filler", ["1", " ", "(", ",", "((", ", (", "1 ", ")"])
def test_long_text_takes_no_long_time(filler):
    try:
        text_bounds("POLYGON ((" + filler * 300_000)
    except ValueError:
        return

"""What labels are sound, when two agree, and what they are told by."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.data.targets import ANY_CLASS, NO_BOXES, UNLABELLED, Boxes, ImageClass, iou


def boxes(*rows):
    """Return rows (x0, y0, x1, y1, label, ignore) as targets; what is left away is label 0, not ignored."""
    table = np.array([(*row, 0, False)[:6] for row in rows], np.float64).reshape(-1, 6)
    return Boxes(table[:, :4].astype(np.float32), table[:, 4].astype(np.int32), table[:, 5].astype(np.bool_))


def test_sound_boxes_have_no_fault():
    assert boxes((0, 0, 40, 30), (1.5, 2, 2, 30, 7, True), (0, 0, 1, 1, ANY_CLASS, True)).fault(40, 30) is None
    assert NO_BOXES.fault(40, 30) is None


@pytest.mark.parametrize(
    "box",
    [
        (5, 5, 5, 9),
        (5, 9, 9, 9),
        (9, 5, 5, 9),
        (5, 9, 9, 5),
        (-0.5, 5, 9, 9),
        (5, -0.5, 9, 9),
        (5, 5, 40.5, 9),
        (5, 5, 9, 30.5),
        *((*(5, 5, 9, 9)[:i], value, *(5, 5, 9, 9)[i + 1 :]) for i in range(4) for value in (np.nan, np.inf, -np.inf)),
    ],
)
def test_a_box_is_within_its_picture(box):
    assert boxes((0, 0, 9, 9), box).fault(40, 30) == "a box is empty, not finite or outside the image"


def test_only_ignored_boxes_have_no_class():
    fault = boxes((0, 0, 9, 9, ANY_CLASS, True), (0, 0, 9, 9, ANY_CLASS, False)).fault(40, 30)
    assert fault == "a box of no class is not marked as ignored"


@pytest.mark.parametrize(
    ("name", "wrong", "told"),
    [
        ("boxes", np.zeros((2, 4)), "float64"),
        ("boxes", np.zeros((3, 4), np.float32), r"\(3, 4\)"),
        ("boxes", np.zeros((2, 5), np.float32), r"\(2, 5\)"),
        ("boxes", np.zeros(8, np.float32), r"\(8,\)"),
        ("labels", np.zeros(2, np.int64), "int64"),
        ("labels", np.zeros((2, 1), np.int32), r"\(2, 1\)"),
        ("ignore", np.zeros(2, np.int32), "int32.*int32"),
        ("ignore", np.zeros(1, np.bool_), r"\(1,\)"),
    ],
)
def test_shapes_and_dtypes_of_boxes_are_told(name, wrong, told):
    sound = {"boxes": np.float32([[0, 0, 9, 9]] * 2), "labels": np.zeros(2, np.int32), "ignore": np.zeros(2, np.bool_)}
    assert Boxes(**sound).fault(40, 30) is None
    fault = Boxes(**sound | {name: wrong}).fault(40, 30)
    assert re.match(f"boxes, labels and ignore have .*{told}", fault)


@pytest.mark.parametrize("label", [ANY_CLASS, -7])
def test_a_picture_has_a_class(label):
    assert ImageClass(label).fault(40, 30) == "the image has no class"
    assert ImageClass(0).fault(40, 30) is None


def test_arrays_cannot_be_changed_by_accident():
    targets = boxes((0, 0, 9, 9))
    for array in targets.arrays.values():
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_what_counts_is_what_is_not_ignored():
    targets = boxes((0, 0, 9, 9, 2), (0, 0, 8, 9, 1, True), (0, 0, 9, 8, 2), (0, 0, 9, 9, ANY_CLASS, True))
    assert targets.counted.tolist() == [2, 2]
    assert (len(targets), targets.labels.tolist()) == (4, [2, 1, 2, ANY_CLASS])
    assert ImageClass(3).counted.tolist() == ImageClass(3).labels.tolist() == [3]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ([(0, 0, 10, 10)], [(0, 1, 10, 11)], True),
        # Half of each box and of both together: IoU 1/3; two thirds of each: IoU 1/2, which is enough.
        ([(0, 0, 12, 10)], [(6, 0, 18, 10)], False),
        ([(0, 0, 12, 10)], [(4, 0, 16, 10)], True),
        ([(0, 0, 10, 10)], [(0, 0, 10, 10, 1)], False),
        ([(0, 0, 10, 10)], [], False),
        ([], [], True),
        ([(0, 0, 10, 10), (20, 20, 30, 30, 1)], [(20, 20, 30, 30, 1), (0, 0, 10, 10)], True),
        # As many of each class, but with the classes exchanged; and one box in place of two.
        ([(0, 0, 10, 10), (20, 20, 30, 30, 1)], [(0, 0, 10, 10, 1), (20, 20, 30, 30)], False),
        ([(0, 0, 10, 10), (0, 0, 10, 10)], [(0, 0, 10, 10)], False),
        ([(0, 0, 10, 10), (0, 0, 10, 10)], [(0, 0, 10, 10), (20, 20, 30, 30)], False),
        ([(0, 0, 10, 10, 0, True)], [(0, 0, 10, 10, 0, True)], True),
        ([(0, 0, 10, 10, 0, True)], [(0, 0, 10, 10)], False),
        ([(0, 0, 10, 10, 0, True)], [], False),
    ],
)
def test_boxes_agree_on_the_same_objects_in_about_the_same_places(one, other, agree):
    one, other = boxes(*one), boxes(*other)
    assert one.agrees(other) is agree
    assert other.agrees(one) is agree
    assert one.agrees(one)


def test_classes_of_pictures_agree_where_they_are_the_same():
    assert ImageClass(2).agrees(ImageClass(2))
    assert not ImageClass(2).agrees(ImageClass(1))
    assert UNLABELLED.agrees(UNLABELLED)


def test_relabelling_takes_each_label_through_the_table_and_leaves_the_rest():
    before = boxes((0, 0, 9, 9, 2), (1, 1, 8, 9, ANY_CLASS, True), (2, 2, 9, 8, 0, True))
    # The last place is what the index ANY_CLASS finds.
    table = np.array([4, 5, 0, ANY_CLASS], np.int32)
    after = before.relabelled(table)
    assert after.labels.tolist() == [0, ANY_CLASS, 4]
    assert (after.boxes.tolist(), after.ignore.tolist()) == (before.boxes.tolist(), before.ignore.tolist())
    assert after.fault(40, 30) is None
    assert before.labels.tolist() == [2, ANY_CLASS, 0]
    assert ImageClass(2).relabelled(table).label == 0
    assert ImageClass(2).relabelled(table).fault(40, 30) is None
    assert UNLABELLED.relabelled(table) is UNLABELLED


def test_a_class_of_a_picture_is_one_box_over_all_of_it():
    whole = ImageClass(3).as_boxes(40, 30)
    assert (whole.boxes.tolist(), whole.labels.tolist(), whole.ignore.tolist()) == ([[0, 0, 40, 30]], [3], [False])
    assert whole.fault(40, 30) is None
    targets = boxes((0, 0, 9, 9))
    assert targets.as_boxes(40, 30) is targets
    assert len(UNLABELLED.as_boxes(40, 30)) == 0


def test_the_bytes_are_those_of_the_arrays_in_order():
    # Fingerprints of splits, and features that are cached under them, depend on these very bytes.
    targets = boxes((1, 2, 3, 4, 1, True), (0, 0, 1, 1, ANY_CLASS, True))
    numbers = b"\0\0\x80?\0\0\0@\0\0@@\0\0\x80@" + b"\0" * 8 + b"\0\0\x80?" * 2
    assert targets.tobytes() == numbers + b"\1\0\0\0\xff\xff\xff\xff" + b"\1\1"
    assert ImageClass(258).tobytes() == b"\2\1\0\0"
    assert UNLABELLED.tobytes() == b""
    assert list(targets.arrays) == ["boxes", "labels", "ignore"]


side = st.integers(0, 12)


@given(st.lists(st.tuples(side, side, st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=8))
def test_iou_is_the_share_of_whole_pixels(corners):
    rows = [(x, y, x + w, y + h) for x, y, w, h in corners]
    pixels = [{(x, y) for x in range(x0, x1) for y in range(y0, y1)} for x0, y0, x1, y1 in rows]
    table = np.array(rows, np.float64)
    shares = [len(pixels[0] & other) / len(pixels[0] | other) for other in pixels]
    np.testing.assert_allclose(iou(table[0], table), shares)

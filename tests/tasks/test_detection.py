"""Boxes become arrays for a head, and what a head finds becomes detections."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from tlx.augment import Layer, Picture, View, whole
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ANY_CLASS, NO_BOXES, UNLABELLED, Boxes
from tlx.errors import DataError, ModelError
from tlx.models.boxes import suppress
from tlx.report.pictures import colour_of
from tlx.tasks.detection import PADDING, Detection, Detections
from tlx.tasks.task import task_of

TASK = Detection()


def layer(shift=0.0, crop=(0.0, 0.0, 100.0, 100.0), **more):
    """Return a picture as large as the input, moved to the right."""
    return Layer(0, np.array([[1.0, 0, shift], [0, 1, 0]]), crop, **more)


def view_of(*layers):
    return View((100, 100), layers)


SHIFT, STILL = view_of(layer(-50)), view_of(layer())


def truth(boxes, labels=None, ignore=None):
    n = len(boxes)
    return Boxes(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([0] * n if labels is None else labels, np.int32),
        np.array([False] * n if ignore is None else ignore, np.bool_),
    )


def found(*rows, **extra):
    """Return rows (x0, y0, x1, y1, score, label) as detections."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    scores, labels = table[:, 4].astype(np.float32), table[:, 5].astype(np.int32)
    return Detections(table[:, :4].astype(np.float32), scores, labels, extra)


def example(targets=NO_BOXES, size=(100, 100)):
    return Example(Path("none.png"), *size, targets)


def test_padding_and_boxes_that_leave_the_frame():
    boxes = [[0, 0, 40, 40], [40, 0, 60, 20], [20, 0, 60, 20], [60, 0, 90, 20], [0, 0, 100, 100]]
    targets = truth(boxes, [0, 1, 0, 1, ANY_CLASS], [False, False, False, False, True])
    arrays = TASK.arrays([targets], SHIFT, 5)
    # The first is gone; of the second half is left; of the third a quarter, too little to be learnt or punished.
    assert arrays["boxes"][:4].tolist() == [[0, 0, 10, 20], [0, 0, 10, 20], [10, 0, 40, 20], [0, 0, 50, 100]]
    assert arrays["labels"].tolist() == [1, 0, 1, ANY_CLASS, PADDING]
    assert arrays["ignore"].tolist() == [False, True, False, True, False]
    assert (arrays["boxes"][4] == 0).all()


def test_a_picture_without_boxes_is_all_padding():
    arrays = TASK.arrays([NO_BOXES], SHIFT, 5)
    assert arrays["boxes"].shape == (5, 4)
    assert (arrays["labels"] == PADDING).all()
    assert not arrays["ignore"].any()


def test_slivers_of_less_than_a_pixel_are_left_out():
    assert TASK.arrays([truth([[0, 0, 50.5, 40]])], SHIFT, 1)["labels"].tolist() == [PADDING]
    assert TASK.arrays([truth([[0, 0, 51, 40]])], SHIFT, 1)["labels"].tolist() == [0]


def test_there_is_room_for_the_fullest_picture_and_for_one_box_at_least():
    full = example(truth([[0, 0, 9, 9]] * 3))
    dataset = Dataset("full", ("a",), (example(), full, example(truth([[0, 0, 9, 9]]))))
    # Of pictures that are combined, there is room for the fullest, one of each, and again from the first on.
    assert [TASK.room(dataset, pictures) for pictures in (1, 2, 3, 4, 5)] == [3, 4, 4, 7, 8]
    assert TASK.room(Dataset("empty", (), (example(),)), 1) == TASK.room(Dataset("none", (), ()), 4) == 1
    assert TASK.room(Dataset("unlabelled", (), (example(UNLABELLED),)), 1) == 1


def test_several_pictures_bring_the_objects_that_come_with_them():
    one, two = truth([[0, 0, 40, 40], [50, 50, 90, 90]], [0, 1]), truth([[10, 10, 30, 30], [60, 0, 90, 20]], [1, 0])
    view = view_of(layer(objects=(1,)), layer(20, opacity=0.5))
    arrays = TASK.arrays([one, two], view, 5)
    assert arrays["boxes"][:3].tolist() == [[50, 50, 90, 90], [30, 10, 50, 30], [80, 0, 100, 20]]
    assert arrays["labels"].tolist() == [1, 1, 0, PADDING, PADDING]
    # What lies beneath a picture that covers it is no object to be found.
    beneath = TASK.arrays([one, two], view_of(layer(), layer(crop=(0.0, 0.0, 50.0, 100.0))), 4)
    assert beneath["labels"].tolist() == [1, 1, PADDING, PADDING]
    assert beneath["boxes"][:2].tolist() == [[50, 50, 90, 90], [10, 10, 30, 30]]


side = st.floats(0, 60, width=32)


@given(st.lists(st.tuples(side, side), max_size=6), st.integers(6, 9), st.integers(20, 200), st.integers(20, 200))
def test_arrays_have_one_shape_and_sound_boxes(corners, room, height, width):
    targets = truth([(x, y, x + 30, y + 20) for x, y in corners])
    view = whole(Picture(0, 90, 80), (height, width))
    arrays = TASK.arrays([targets], view, room)
    kinds = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    assert kinds == {name: (a.shape[1:], a.dtype) for name, a in TASK.worst(2, (height, width), room).items()}
    used = arrays["labels"] != PADDING
    # A letterbox shows all of every box.
    assert used.sum() == len(corners)
    assert not arrays["ignore"].any()
    assert Boxes(*(array[used] for array in arrays.values())).fault(width, height) is None


def test_the_worst_case_fills_every_place_with_a_sound_box():
    arrays = TASK.worst(3, (60, 90), 7)
    assert {array.shape[:2] for array in arrays.values()} == {(3, 7)}
    for row in range(3):
        targets = Boxes(*(array[row] for array in arrays.values()))
        assert targets.fault(90, 60) is None
        assert len(targets.counted) == 7


def head(*rows, **extra):
    table = np.array(rows, np.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "scores": table[:, 4], "labels": table[:, 5].astype(np.int64), **extra}


def test_a_prediction_is_in_pixels_of_its_picture():
    # 200 x 100 pixels are halved to 100 x 50, with 25 rows above and below.
    arrays = head((10, 30, 30, 60, 0.9, 1), (0, 0, 100, 100, 0.8, 0))
    seen = TASK.prediction(arrays, whole(Picture(0, 200, 100), (100, 100)), example(size=(200, 100)))
    assert seen.boxes.tolist() == [[20, 10, 60, 70], [0, 0, 200, 100]]
    assert seen.scores.tolist() == [np.float32(0.9), np.float32(0.8)]
    assert (seen.labels.tolist(), seen.labels.dtype, seen.extra) == ([1, 0], np.int32, {})


def test_empty_places_and_boxes_beside_the_picture_are_no_predictions():
    masks = np.arange(12).reshape(4, 3)
    arrays = head((0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0, 0), (101, 0, 120, 9, 0.8, 0), (5, 5, 9, 9, 0.7, 1), masks=masks)
    seen = TASK.prediction(arrays, STILL, example())
    assert seen.labels.tolist() == [0, 1]
    assert seen.extra["masks"].tolist() == masks[[0, 3]].tolist()


@given(st.lists(st.tuples(side, side), min_size=1, max_size=5), st.booleans(), st.integers(30, 300))
def test_what_is_shown_at_a_place_is_found_there(corners, mirrored, edge):
    targets = truth([(x, y, x + 30, y + 20) for x, y in corners])
    view = whole(Picture(0, 90, 80), (edge, 2 * edge))
    if mirrored:
        (scale, _, shift), lower = view.matrix
        matrix = np.array([[-scale, 0, 2 * edge - shift], lower])
        view = View(view.size, (replace(view.layers[0], matrix=matrix),))
    arrays = TASK.arrays([targets], view, len(corners))
    arrays["scores"] = np.full(len(corners), 0.5, np.float32)
    del arrays["ignore"]
    seen = TASK.prediction(arrays, view, example(size=(90, 80)))
    np.testing.assert_allclose(seen.boxes, targets.boxes, atol=1e-3)


def test_joined_are_all_detections_best_first():
    one = found((0, 0, 9, 9, 0.5, 0), (1, 1, 9, 9, 0.2, 1), masks=np.array([[1], [2]]))
    other = found((2, 2, 9, 9, 0.9, 2), (3, 3, 9, 9, 0.2, 3), masks=np.array([[3], [4]]))
    both = TASK.join([one, other])
    assert both.scores.tolist() == [np.float32(score) for score in (0.9, 0.5, 0.2, 0.2)]
    # Of equal ones, the first comes first.
    assert both.labels.tolist() == [2, 0, 1, 3]
    assert both.boxes[:, 0].tolist() == [2, 0, 1, 3]
    assert both.extra["masks"].tolist() == [[3], [1], [2], [4]]
    assert len(TASK.join([found(), found()])) == 0
    assert TASK.join([one]).boxes.tolist() == one.boxes.tolist()


LEFT, RIGHT = (0, 0, 60, 100), (40, 0, 100, 100)


def seen_in(window, *rows, **extra):
    return replace(found(*rows, **extra), window=window)


def test_what_two_windows_saw_is_joined_once_and_the_best_is_kept():
    one = seen_in(LEFT, (45, 10, 55, 30, 0.5, 0), (5, 5, 30, 30, 0.25, 0), masks=np.array([1, 2]))
    other = seen_in(RIGHT, (44, 10, 55, 30, 0.75, 0), (45, 10, 55, 30, 0.125, 1), masks=np.array([3, 4]))
    both = TASK.join([one, other])
    assert both.boxes.tolist() == [[44, 10, 55, 30], [5, 5, 30, 30], [45, 10, 55, 30]]
    assert (both.scores.tolist(), both.labels.tolist()) == ([0.75, 0.25, 0.125], [0, 0, 1])
    assert both.extra["masks"].tolist() == [3, 2, 4]


@pytest.mark.parametrize("scores", [(0.5, 0.25), (0.25, 0.5)])
def test_what_a_window_cuts_off_of_a_box_is_taken_from_the_others(scores):
    cut, full = seen_in(LEFT, (20, 10, 60, 30, scores[0], 0)), seen_in(RIGHT, (40, 10, 90, 30, scores[1], 0))
    joined = TASK.join([cut, full])
    assert (joined.boxes.tolist(), joined.scores.tolist()) == ([[20, 10, 90, 30]], [0.5])
    # A box that is whole stays as it is: the other only shows less of it, or missed it by a little.
    inside, sliver = seen_in(LEFT, (20, 10, 50, 30, 0.5, 0)), seen_in(RIGHT, (40, 9, 52, 31, 0.25, 0))
    assert TASK.join([sliver, inside]).boxes.tolist() == [[20, 10, 50, 30]]


def test_neighbours_and_what_one_window_saw_stay_apart():
    # Two objects that touch the part which both windows show, and one that reaches into it.
    one = seen_in(LEFT, (10, 10, 44, 30, 0.5, 0), (20, 50, 60, 90, 0.5, 0), (21, 50, 60, 90, 0.25, 0))
    other = seen_in(RIGHT, (50, 10, 90, 30, 0.5, 0), (70, 50, 90, 90, 0.5, 0))
    assert sorted(TASK.join([one, other]).boxes.tolist()) == sorted([*one.boxes.tolist(), *other.boxes.tolist()])


def test_a_box_that_no_window_cuts_is_compared_as_a_whole():
    # In the strip that both windows show they look alike, and yet each window saw all of its own.
    one = seen_in(LEFT, (42, 10, 56, 30, 0.875, 0))
    other = seen_in(RIGHT, (44, 10, 56, 30, 0.75, 0), (45, 10, 95, 30, 0.5, 0))
    assert TASK.join([one, other]).boxes.tolist() == [[42, 10, 56, 30], [45, 10, 95, 30]]
    whole, neighbour = seen_in(LEFT, (30, 10, 53, 30, 0.875, 0)), seen_in(RIGHT, (40, 10, 60, 30, 0.25, 0))
    assert TASK.join([whole, neighbour]).boxes.tolist() == [[30, 10, 53, 30]]


@pytest.mark.parametrize("scores", [(0.5, 0.25), (0.25, 0.5)])
@pytest.mark.parametrize("end", [60, 58, 56])
def test_a_piece_that_ends_short_of_its_windows_end_is_of_the_object_that_goes_on(end, scores):
    piece, whole = seen_in(LEFT, (30, 10, end, 40, scores[0], 0)), seen_in(RIGHT, (40, 12, 90, 42, scores[1], 0))
    assert len(TASK.join([piece, whole])) == 1
    # What is placed loosely and seen whole by both is compared as it is.
    small, other = seen_in(LEFT, (41, 10, 53, 22, scores[0], 0)), seen_in(RIGHT, (45, 13, 57, 25, scores[1], 0))
    assert len(TASK.join([small, other])) == 2


@pytest.mark.parametrize("scores", list(itertools.permutations((0.25, 0.5, 0.75))))
def test_an_object_across_three_windows_is_one(scores):
    parts = [(0, 100), (80, 180), (160, 260)]
    seen = [
        replace(found((max(low, 20), 10, min(high, 240), 60, score, 0)), window=(low, 0, high, 100))
        for (low, high), score in zip(parts, scores, strict=True)
    ]
    joined = TASK.join(seen)
    assert (joined.boxes.tolist(), joined.scores.tolist()) == ([[20, 10, 240, 60]], [0.75])


clusters = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(10, 16), st.integers(10, 16), st.integers(0, 2)),
    min_size=1,
    max_size=20,
)


@given(clusters)
def test_of_whole_views_as_many_are_joined_as_postprocessing_keeps(rows):
    rows = [(x, y, x + w, y + h, 1 - i / 32, label) for i, (x, y, w, h, label) in enumerate(rows)]
    alone = found(*rows)
    kept = suppress(alone.boxes[None], alone.labels[None], 0.5).numpy()[0]
    joined = TASK.join([found(row) for row in reversed(rows)])
    assert joined.scores.tolist() == alone.scores[kept].tolist()
    assert joined.boxes.tolist() == alone.boxes[kept].tolist()


def test_json_has_a_row_for_each_detection_with_what_else_was_found():
    more = {"masks": np.array([[1, 0], [0, 1]]), "angle": np.float32([3, 4])}
    seen = found((0, 0.5, 9, 9, 0.5, 1), (1, 1, 9, 9, 0.25, 0), **more)
    told = TASK.to_json(seen, ("cat", "dog"))
    assert json.loads(json.dumps(told, allow_nan=False)) == {
        "detections": [
            {"class": "dog", "score": 0.5, "box": [0, 0.5, 9, 9], "masks": [1, 0], "angle": 3},
            {"class": "cat", "score": 0.25, "box": [1, 1, 9, 9], "masks": [0, 1], "angle": 4},
        ]
    }
    assert TASK.to_json(found(), ("cat", "dog")) == {"detections": []}


def test_results_are_cocos_with_the_names_of_picture_and_class():
    rows = TASK.results("there/none.png", 7, found((1, 2, 4, 8.5, 0.5, 1), (0, 0, 9, 9, 0.25, 0)), ("cat", "dog"))
    assert json.loads(json.dumps(rows, allow_nan=False)) == [
        {
            "image_id": 7,
            "file_name": "there/none.png",
            "category_id": 2,
            "category": "dog",
            "bbox": [1, 2, 3, 6.5],
            "score": 0.5,
        },
        {
            "image_id": 7,
            "file_name": "there/none.png",
            "category_id": 1,
            "category": "cat",
            "bbox": [0, 0, 9, 9],
            "score": 0.25,
        },
    ]
    assert TASK.results("none.png", 0, found(), ("cat", "dog")) == []


def test_a_drawing_shows_what_scores_enough_over_the_truth():
    picture = Image.new("RGB", (640, 480), (90, 90, 90))
    seen = found((100, 200, 300, 400, 0.9, 1), (400, 200, 600, 400, 0.2, 2))
    drawn = TASK.draw(picture, seen, None, "abc")
    assert (drawn.getpixel((100, 300)), drawn.getpixel((400, 300))) == (colour_of(1), (90, 90, 90))
    assert TASK.draw(picture, seen, None, "abc", min_score=0.1).getpixel((400, 300)) == colour_of(2)
    beside = TASK.draw(picture, seen, truth([(10, 10, 60, 60)]), "abc")
    x0, y0, x1, y1 = ImageChops.difference(drawn, beside).getbbox()
    # Dashes are a few pixels wide, and lie on the edge.
    assert max(abs(x0 - 10), abs(y0 - 10), abs(x1 - 60), abs(y1 - 60)) <= 2


def test_shapes_and_dtypes_are_checked_when_made():
    with pytest.raises(ModelError, match="expected float32"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int32))
    with pytest.raises(ModelError, match="float64"):
        Detections(np.zeros((2, 4)), np.zeros(2, np.float32), np.zeros(2, np.int32))
    with pytest.raises(ModelError, match=r"there are 1 boxes, and of other arrays \{'masks': 2\}"):
        found((0, 0, 9, 9, 0.5, 0), masks=np.zeros(2), angle=np.zeros(1))


def test_a_task_is_found_by_its_name():
    assert isinstance(task_of("detection"), Detection)
    with pytest.raises(DataError, match=r"no task 'detecton'; did you mean 'detection'\? \(there are classification, "):
        task_of("detecton")

"""The class of a whole picture: its label, its scores, and how they are told and shown."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from tlx.augment import Picture, Standard, arranged, draw_view, whole
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ImageClass
from tlx.errors import ModelError
from tlx.report.pictures import GREEN, GREY, RED, caption
from tlx.tasks.classification import Classification, ClassScores
from tlx.tasks.task import task_of

TASK = Classification()
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


SIZE = (64, 64)
PICTURE = Picture(0, 40, 30)


def scores(*values):
    return ClassScores(np.array(values, np.float32))


def test_the_label_is_the_same_in_every_view():
    rng = np.random.default_rng(0)
    for view in (whole(PICTURE, SIZE), draw_view(arranged(Standard()), rng, PICTURE, SIZE)):
        arrays = TASK.arrays([ImageClass(5)], view, 1)
        assert {name: (array.shape, array.dtype, int(array)) for name, array in arrays.items()} == {
            "label": ((), np.int32, 5)
        }


def test_the_worst_case_has_the_shapes_of_a_batch():
    one = TASK.arrays([ImageClass(5)], whole(PICTURE, SIZE), 1)
    batch = {name: np.stack([array] * 3) for name, array in one.items()}
    worst = TASK.worst(3, SIZE, 1)
    assert {name: (a.shape, a.dtype) for name, a in worst.items()} == {n: (a.shape, a.dtype) for n, a in batch.items()}
    examples = tuple(Example(Path(f"{i}.png"), 40, 30, ImageClass(i)) for i in range(3))
    assert TASK.room(Dataset("made", CLASSES, examples, task="classification"), 1) == 1


def test_a_prediction_holds_the_scores_of_all_classes():
    values = np.array([0.25, 0.5, 0.25], np.float32)
    example = Example(Path("a.png"), 40, 30, ImageClass(0))
    seen = TASK.prediction({"scores": values}, whole(PICTURE, SIZE), example)
    assert seen.scores.tolist() == values.tolist()
    assert seen.best == 1


def test_joined_are_the_means():
    joined = TASK.join([scores(1, 0, 0), scores(0, 0.5, 0.5), scores(0.5, 0.25, 0.25)])
    assert joined.scores.tolist() == [0.5, 0.25, 0.25]
    assert joined.scores.dtype == np.float32
    assert TASK.join([scores(0.25, 0.75)]).scores.tolist() == [0.25, 0.75]


def test_json_has_the_five_most_likely_classes_best_first():
    told = TASK.to_json(scores(0, 0.125, 0.5, 0.0625, 0.25, 0.03125, 0.03125), CLASSES)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert (told["class"], told["score"]) == ("cat", 0.5)
    # Of the last two, which are equal, the first is told.
    assert list(told["scores"].items()) == [
        *(("cat", 0.5), ("eel", 0.25), ("bee", 0.125), ("dog", 0.0625), ("fox", 0.03125))
    ]
    assert TASK.to_json(scores(0.25, 0.75), CLASSES[:2])["scores"] == {"bee": 0.75, "ant": 0.25}


def test_results_have_a_row_for_each_picture():
    seen = scores(0.25, 0.75)
    (row,) = TASK.results("there/a.png", 4, seen, CLASSES[:2])
    assert row == {"image": "there/a.png", **TASK.to_json(seen, CLASSES[:2])}


@pytest.mark.parametrize(
    ("targets", "text", "right", "ground"),
    [
        (None, "bee 75%", None, GREY),
        (ImageClass(1), "bee 75%", True, GREEN),
        (ImageClass(0), "bee 75%, is ant", False, RED),
    ],
)
def test_a_drawing_says_what_the_picture_was_taken_for_and_what_it_is(targets, text, right, ground):
    picture = Image.new("RGB", (640, 480), (90, 90, 90))
    drawn = TASK.draw(picture, scores(0.25, 0.75), targets, CLASSES[:2])
    assert drawn.getpixel((639, drawn.height - 1)) == ground
    assert ImageChops.difference(drawn, caption(picture, text, right)).getbbox() is None
    assert ImageChops.difference(drawn, caption(picture, f"{text}!", right)).getbbox() is not None


def test_a_view_is_shown_with_the_name_of_its_class():
    picture = Image.new("RGB", (64, 64), (90, 90, 90))
    arrays = TASK.arrays([ImageClass(3)], whole(Picture(0, 64, 64), (64, 64)), 1)
    drawn = TASK.draw_arrays(picture, arrays, CLASSES)
    assert ImageChops.difference(drawn, caption(picture, "dog", None)).getbbox() is None


@pytest.mark.parametrize("wrong", [np.zeros((1, 3), np.float32), np.zeros((), np.float32), np.zeros(3)])
def test_shape_and_dtype_are_checked_when_made(wrong):
    with pytest.raises(ModelError, match=r"class scores: have \(.*\) float\d\d; expected float32 \[classes\]"):
        ClassScores(wrong)


def test_a_task_is_found_by_its_name():
    assert isinstance(task_of("classification"), Classification)

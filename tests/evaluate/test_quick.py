"""hotcoco against pycocotools: a look at a run says what the end of it says."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.errors import ModelError, TrainingError
from tlx.evaluate.classification import ClassificationEvaluator
from tlx.evaluate.coco import Coco
from tlx.tasks.detection import Detections

SIDE = 400


def flat(metrics):
    values = {("values", name): value for name, value in metrics["values"].items()}
    by_class = {(name, key): value for name, of in metrics["per_class"].items() for key, value in of.items()}
    return {**values, **by_class}


def assert_alike(evaluator, data, predictions):
    quick, record = evaluator.quick(data, predictions), evaluator(data, predictions)
    assert quick["counts"] == record["counts"]
    assert quick["primary"] == record["primary"]
    mine, its = flat(quick), flat(record)
    assert {key for key, value in mine.items() if value is None} == {key for key, value in its.items() if value is None}
    numbers = [key for key, value in its.items() if value is not None]
    assert [mine[key] for key in numbers] == pytest.approx([its[key] for key in numbers], rel=0, abs=1e-9)


def boxes(rng, n, grid):
    """Draw boxes; those on a coarse grid often agree, and tie in their IoU."""
    low = rng.uniform(0, SIDE / 2, (n, 2))
    sides = np.exp(rng.uniform(np.log(4), np.log(SIDE / 2), (n, 2)))
    if grid:
        low, sides = low // grid * grid, np.maximum(sides // grid, 1) * grid
    return np.concatenate([low, low + sides], axis=1).astype(np.float32)


def guesses(rng, truth, n, grid, classes):
    """Draw `n` detections: many near a true box, some of them the same twice, some empty, some partly outside."""
    guessed, labels = boxes(rng, n, grid), rng.integers(0, classes, n).astype(np.int32)
    if len(truth):
        near, of = rng.random(n) < 0.7, rng.integers(0, len(truth), n)
        shift = rng.normal(0, 8, (n, 4)) if not grid else rng.integers(-2, 3, (n, 4)) * grid
        moved = truth.boxes[of] + shift * (rng.random((n, 1)) < 0.8)
        guessed = np.where(near[:, None], moved, guessed)
        labels = np.where(near & (truth.labels[of] >= 0), truth.labels[of], labels).astype(np.int32)
    low, high = guessed[:, :2], guessed[:, 2:]
    guessed = np.concatenate([low, np.maximum(low, high)], axis=1).astype(np.float32)
    scores = rng.random(n, np.float32)
    return Detections(guessed, np.round(scores, 1) if grid else scores, labels)


def drawn(seed, truths, found, classes, grid):
    """Draw a dataset with so many true boxes in each picture, some of them ignored, and so many detections."""
    rng = np.random.default_rng(seed)
    examples, predictions = [], []
    for i, (n, count) in enumerate(zip(truths, found, strict=True)):
        ignore = rng.random(n) < 0.25
        labels = np.where(ignore & (rng.random(n) < 0.4), ANY_CLASS, rng.integers(0, classes, n)).astype(np.int32)
        truth = Boxes(boxes(rng, n, grid), labels, ignore)
        examples.append(Example(Path(f"{i}.jpg"), SIDE, SIDE, truth))
        predictions.append(guesses(rng, truth, count, grid, classes))
    return Dataset("drawn", tuple("abcd"[:classes]), tuple(examples)), predictions


COUNTS = st.tuples(st.sampled_from([0, 1, 3, 8, 30]), st.sampled_from([0, 1, 5, 20, 150]))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.lists(COUNTS, min_size=1, max_size=8),
    classes=st.integers(1, 4),
    grid=st.sampled_from([0, 5, 20]),
    most=st.sampled_from([1, 10, 100, 300]),
)
def test_a_quick_look_says_what_the_record_says(seed, counts, classes, grid, most):
    truths, found = zip(*counts, strict=True)
    assert_alike(Coco(most), *drawn(seed, truths, found, classes, grid))


NO_BOX = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
ONE_BOX = Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
NO_TRUTH = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool))
ONE_TRUTH = Boxes(ONE_BOX.boxes.copy(), np.zeros(1, np.int32), np.zeros(1, bool))


@pytest.mark.parametrize(
    ("truths", "found", "classes"),
    [
        ([], [], "ab"),
        ([NO_TRUTH], [NO_BOX], ""),
        ([NO_TRUTH, NO_TRUTH], [NO_BOX, ONE_BOX], "a"),
        ([ONE_TRUTH, ONE_TRUTH], [NO_BOX, NO_BOX], "ab"),
        ([NO_TRUTH, ONE_TRUTH], [ONE_BOX, ONE_BOX], "ab"),
    ],
    ids=["no picture", "no class", "no truth", "nothing found", "an empty picture first"],
)
def test_what_is_empty_is_judged_alike(truths, found, classes):
    examples = tuple(Example(Path(f"{i}.jpg"), SIDE, SIDE, truth) for i, truth in enumerate(truths))
    assert_alike(Coco(), Dataset("few", tuple(classes), examples), found)


@pytest.mark.parametrize("extent", [1e-30, 1e-3, 1e5, 1e30])
def test_extreme_sizes_are_judged_alike(extent):
    """hotcoco and pycocotools count areas alike, however far beyond any picture, and empty boxes too."""
    whole = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 1, 0.5], [0, 0, 0, 1]], np.float32) * np.float32(extent)
    found = Detections(whole, np.array([0.5, 0.5, 0.25, 0.75], np.float32), np.zeros(4, np.int32))
    for crowd in (False, True):
        regions = np.array([[0, 0, min(extent, SIDE), min(extent, SIDE)], [100, 100, 200, 200]], np.float32)
        truth = Boxes(regions, np.zeros(2, np.int32), np.array([crowd, False]))
        assert_alike(Coco(), Dataset("one", ("a",), (Example(Path("0.jpg"), SIDE, SIDE, truth),)), [found])


def test_a_quick_look_prints_nothing_and_refuses_what_the_record_refuses(capfd):
    data = Dataset("one", ("a",), (Example(Path("rex.jpg"), SIDE, SIDE, ONE_TRUTH),))
    Coco().quick(data, [ONE_BOX])
    Coco(7).quick(*drawn(3, [30, 0, 8], [150, 20, 0], classes=3, grid=20))
    assert capfd.readouterr() == ("", "")
    broken = Detections(ONE_BOX.boxes, np.array([np.nan], np.float32), ONE_BOX.labels)
    with pytest.raises(TrainingError, match=r"rex\.jpg: detection 0 is not finite"):
        Coco().quick(data, [broken])
    with pytest.raises(ModelError, match="2 predictions for 1 images"):
        Coco().quick(data, [ONE_BOX, ONE_BOX])


def test_what_decides_is_named_in_a_quick_look_too():
    data = Dataset("one", ("a",), (Example(Path("rex.jpg"), SIDE, SIDE, ONE_TRUTH),))
    assert Coco().judge(data, [ONE_BOX], "AR", quick=True) == Coco().judge(data, [ONE_BOX], "AR")
    # An evaluator that knows no quicker way judges as ever.
    empty = Dataset("none", ("a",), (), task="classification")
    assert ClassificationEvaluator().quick(empty, []) == ClassificationEvaluator()(empty, [])

"""How often the class of a picture is right: worked out by hand, and against what the scores say."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ImageClass
from tlx.errors import ModelError, TrainingError
from tlx.evaluate.classification import ClassificationEvaluator
from tlx.tasks.classification import ClassScores

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def evaluated(labels, rows, classes=CLASSES):
    examples = tuple(Example(Path(f"{i}.png"), 40, 30, ImageClass(label)) for i, label in enumerate(labels))
    predictions = [ClassScores(np.array(row, np.float32)) for row in rows]
    return ClassificationEvaluator()(Dataset("pets", classes, examples, task="classification"), predictions)


def test_accuracies_and_what_was_taken_for_what():
    rows = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]]
    metrics = evaluated([0, 1, 2, 0, 0], rows, CLASSES[:3])
    assert metrics["values"] == {
        "accuracy": 3 / 5,
        "top5_accuracy": 1.0,
        "balanced_accuracy": pytest.approx((2 / 3 + 1 + 0) / 3),
    }
    assert (metrics["primary"], metrics["counts"]) == ("accuracy", {"images": 5})
    assert metrics["confusion"] == [[2, 0, 1], [0, 1, 0], [0, 1, 0]]
    assert metrics["per_class"] == {
        "ant": {"accuracy": 2 / 3, "images": 3},
        "bee": {"accuracy": 1.0, "images": 1},
        "cat": {"accuracy": 0.0, "images": 1},
    }


def test_a_class_without_pictures_counts_in_no_mean():
    metrics = evaluated([0, 0], [[0.9, 0.1], [0.2, 0.8]], CLASSES[:2])
    assert metrics["values"]["balanced_accuracy"] == 0.5
    assert metrics["per_class"]["bee"] == {"accuracy": None, "images": 0}


def test_the_five_most_likely_classes_hold_the_right_one():
    scores = [0.3, 0.25, 0.2, 0.1, 0.08, 0.05, 0.02]
    metrics = evaluated(range(7), [scores] * 7)
    assert metrics["values"]["top5_accuracy"] == 5 / 7
    assert metrics["values"]["accuracy"] == 1 / 7


def test_of_equal_scores_the_first_class_is_the_more_likely():
    assert evaluated([0, 1], [[0.5, 0.5]] * 2, CLASSES[:2])["confusion"] == [[1, 0], [1, 0]]
    assert evaluated(range(7), [[0.125] * 7] * 7)["values"]["top5_accuracy"] == 5 / 7


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, 4), min_size=7, max_size=7)), min_size=1))
def test_values_are_what_a_plain_count_gives(pictures):
    labels, rows = zip(*pictures, strict=True)
    values = evaluated(labels, rows)["values"]
    ranked = [sorted(range(7), key=lambda i, row=row: -row[i]) for row in rows]
    right = [order[0] == label for label, order in zip(labels, ranked, strict=True)]
    assert values["accuracy"] == pytest.approx(np.mean(right))
    in_five = [label in order[:5] for label, order in zip(labels, ranked, strict=True)]
    assert values["top5_accuracy"] == pytest.approx(np.mean(in_five))
    by_class = [np.mean([r for r, other in zip(right, labels, strict=True) if other == own]) for own in set(labels)]
    assert values["balanced_accuracy"] == pytest.approx(np.mean(by_class))


def test_scores_that_are_not_sound_name_the_picture():
    with pytest.raises(ModelError, match=r"1\.png: 3 scores for 2 classes"):
        evaluated([0, 1], [[0.5, 0.5], [0.2, 0.2, 0.6]], CLASSES[:2])
    with pytest.raises(TrainingError, match=r"0\.png: a score is not finite.*learning_rate"):
        evaluated([0], [[np.nan, 0.5]], CLASSES[:2])


def test_the_table_shows_what_a_class_is_mostly_taken_for():
    metrics = evaluated([0] * 40 + [1], [[0.2, 0.8]] * 41, ("[ant]", "bee"))
    out = io.StringIO()
    Console(file=out, width=120).print(ClassificationEvaluator().table(metrics))
    rows = [[cell.strip() for cell in line.split("\u2502")[1:-1]] for line in out.getvalue().splitlines()]
    assert ["[ant]", "40", "0.000", "bee (40)"] in rows
    assert ["bee", "1*", "1.000", ""] in rows

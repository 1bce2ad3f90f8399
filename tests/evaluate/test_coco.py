import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.errors import ConfigError, ModelError, TrainingError
from tlx.evaluate.coco import Coco, check
from tlx.registry import evaluators
from tlx.tasks.detection import Detections

VALUES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR")


def example(boxes=(), labels=None, ignore=None, name="a.jpg"):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int32) if labels is None else np.array(labels, np.int32)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore, bool)
    return Example(Path(name), 1000, 1000, Boxes(boxes, labels, ignore))


def found(boxes=(), scores=None, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    scores = np.full(len(boxes), 0.9) if scores is None else scores
    labels = np.zeros(len(boxes)) if labels is None else labels
    return Detections(boxes, np.array(scores, np.float32), np.array(labels, np.int32))


def dataset(*examples, classes=("cat",)):
    return Dataset("pets", tuple(classes), tuple(examples))


def perfect(data):
    found = []
    for truth in (e.objects for e in data.examples):
        counts = ~truth.ignore
        found.append(Detections(truth.boxes[counts], np.ones(counts.sum(), np.float32), truth.labels[counts]))
    return found


@st.composite
def scenes(draw, classes=3):
    """Draw a dataset and predictions: true boxes, moved by up to their size, plus strays; all scores distinct."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    examples, predictions = [], []
    for i in range(draw(st.integers(1, 5))):
        truths, strays = draw(st.integers(0, 6)), draw(st.integers(0, 4))
        boxes = _random_boxes(rng, truths)
        labels = rng.integers(0, classes, truths).astype(np.int32)
        truth = Boxes(boxes, labels, rng.random(truths) < 0.2)
        examples.append(Example(Path(f"{i}.jpg"), 1000, 1000, truth))
        near = boxes + rng.normal(0, 0.15, (truths, 4)) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], axis=1)
        moved = np.concatenate([near, _random_boxes(rng, strays)]).astype(np.float32)
        guesses = np.concatenate([labels, rng.integers(0, classes, strays)]).astype(np.int32)
        predictions.append(Detections(moved, rng.random(len(moved), np.float32), guesses))
    return Dataset("random", tuple("abc"[:classes]), tuple(examples)), predictions


def _random_boxes(rng, n):
    low = rng.uniform(0, 700, (n, 2))
    return np.concatenate([low, low + rng.uniform(5, 250, (n, 2))], axis=1).astype(np.float32)


def plain_ap50(data, predictions, label):
    """Average precision at IoU 0.5, written from its definition for one class without ignored boxes."""
    ranked = []
    for i, d in enumerate(predictions):
        mine = d.labels == label
        ranked += [(score, i, box) for score, box in zip(d.scores[mine], d.boxes[mine], strict=True)]
    ranked.sort(key=lambda row: -row[0])
    free = [list(e.objects.boxes[e.objects.labels == label]) for e in data.examples]
    total = sum(map(len, free))
    if not total:
        return None
    hits = []
    for _, i, box in ranked:
        overlaps = [_iou(box, truth) for truth in free[i]]
        hit = bool(overlaps) and max(overlaps) >= 0.5
        if hit:
            free[i].pop(int(np.argmax(overlaps)))
        hits.append(hit)
    points = [(h / total, h / n) for n, h in enumerate(itertools.accumulate(hits), start=1)]
    # COCO's recall steps, which differ from hundredths in their last bit.
    steps = np.linspace(0, 1, 101)
    return float(np.mean([max((p for r, p in points if r >= step), default=0.0) for step in steps]))


def _iou(a, b):
    a, b = [float(v) for v in a], [float(v) for v in b]
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_perfect_predictions_score_one():
    data = dataset(
        example([[10, 10, 20, 20], [100, 100, 150, 150], [300, 300, 500, 500]], [0, 1, 1]),
        example([[0, 0, 1000, 1000]], [0], name="b.jpg"),
        classes=("cat", "dog"),
    )
    metrics = Coco()(data, perfect(data))
    assert metrics["values"] == pytest.approx(dict.fromkeys(VALUES, 1.0))
    sizes = {"boxes_small": 1, "boxes_medium": 1, "boxes_large": 2}
    assert metrics["counts"] == {"images": 2, "boxes": 4, **sizes}
    assert metrics["per_class"]["dog"] == {"AP": pytest.approx(1.0), "AP50": pytest.approx(1.0), "boxes": 2}


def test_iou_decides_at_which_thresholds_a_box_is_found():
    # 100 of 100 rows, 80 of 100 columns: IoU 0.8, hence found at 0.50, 0.55 ... 0.80, seven of ten thresholds.
    data = dataset(example([[0, 0, 100, 100]]))
    values = Coco()(data, [found([[0, 0, 80, 100]])])["values"]
    assert (values["AP50"], values["AP75"]) == pytest.approx((1, 1))
    assert values["AP"] == pytest.approx(0.7)
    assert values["AR"] == pytest.approx(0.7)


def test_false_alarm_above_a_hit_halves_precision():
    data = dataset(example([[0, 0, 100, 100]]))
    values = Coco()(data, [found([[500, 500, 600, 600], [0, 0, 100, 100]], [0.9, 0.8])])["values"]
    assert values["AP"] == pytest.approx(0.5)
    assert values["AR"] == pytest.approx(1)


def test_missed_box_ends_recall_at_half():
    # Precision is 1 at the recall steps 0, 0.01 ... 0.50: 51 of 101.
    data = dataset(example([[0, 0, 100, 100], [200, 200, 300, 300]]))
    assert Coco()(data, [found([[0, 0, 100, 100]])])["values"]["AP"] == pytest.approx(51 / 101)


def test_second_detection_of_one_object_is_a_false_alarm():
    data = dataset(example([[0, 0, 100, 100], [200, 200, 300, 300]]))
    twice = found([[0, 0, 100, 100], [0, 0, 100, 100], [200, 200, 300, 300]], [0.9, 0.8, 0.7])
    assert Coco()(data, [twice])["values"]["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_right_box_of_the_wrong_class_counts_for_neither():
    data = dataset(example([[0, 0, 100, 100]], [0]), classes=("cat", "dog"))
    metrics = Coco()(data, [found([[0, 0, 100, 100]], labels=[1])])
    assert metrics["per_class"]["cat"] == {"AP": 0.0, "AP50": 0.0, "boxes": 1}
    assert metrics["per_class"]["dog"] == {"AP": None, "AP50": None, "boxes": 0}


def test_absent_class_is_none_and_left_out_of_the_mean():
    data = dataset(example([[0, 0, 100, 100]], [0]), classes=("cat", "dog"))
    metrics = Coco()(data, perfect(data))
    assert metrics["values"]["AP"] == pytest.approx(1.0)
    assert metrics["per_class"]["dog"]["AP"] is None
    assert metrics["values"]["AP_small"] is None
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(
    "data", [dataset(), dataset(example()), dataset(classes=())], ids=["no image", "no box", "no class"]
)
def test_no_ground_truth_is_undefined(data):
    metrics = Coco()(data, [found() for _ in data.examples])
    assert metrics["values"] == dict.fromkeys(VALUES)
    assert metrics["counts"]["boxes"] == 0


def test_detections_without_ground_truth_are_undefined_too():
    assert Coco()(dataset(example()), [found([[0, 0, 10, 10]])])["values"]["AP"] is None


def test_no_detections_score_zero():
    values = Coco()(dataset(example([[0, 0, 100, 100]])), [found()])["values"]
    assert (values["AP"], values["AR"]) == (0.0, 0.0)


@pytest.mark.parametrize(("region_label", "expected"), [(0, 1), (ANY_CLASS, 1), (1, 1 / 3)])
def test_detections_inside_an_ignore_region_of_their_class_are_not_punished(region_label, expected):
    data = dataset(
        example([[500, 500, 900, 900], [0, 0, 100, 100]], [region_label, 0], [True, False]), classes=("cat", "dog")
    )
    # Smaller than the region by far, so that plain IoU would not do, and two of them.
    inside = found([[510, 510, 560, 560], [700, 700, 800, 800], [0, 0, 100, 100]], [0.9, 0.8, 0.7])
    cat = Coco()(data, [inside])["per_class"]["cat"]
    assert cat["boxes"] == 1
    assert cat["AP"] == pytest.approx(expected)


def test_ignored_objects_are_not_missed():
    data = dataset(example([[0, 0, 100, 100], [200, 200, 300, 300]], ignore=[False, True]))
    assert Coco()(data, [found([[0, 0, 100, 100]])])["values"]["AP"] == pytest.approx(1.0)


def test_detection_mostly_outside_an_ignore_region_is_punished():
    data = dataset(example([[500, 500, 600, 600], [0, 0, 100, 100]], ignore=[True, False]))
    outside = found([[560, 500, 700, 600], [0, 0, 100, 100]], [0.9, 0.8])
    assert Coco()(data, [outside])["values"]["AP50"] == pytest.approx(0.5)


def test_ignore_region_does_not_take_the_match_of_an_object_inside_it():
    data = dataset(example([[0, 0, 500, 500], [100, 100, 200, 200]], [ANY_CLASS, 0], [True, False]))
    metrics = Coco()(data, [found([[100, 100, 200, 200]])])
    assert metrics["values"]["AP"] == pytest.approx(1.0)


def test_only_the_best_detections_of_an_image_and_class_count():
    data = dataset(example([[0, 0, 100, 100]]))
    late = found([[500, 500, 600, 600], [0, 0, 100, 100]], [0.9, 0.8])
    assert Coco(max_detections=1)(data, [late])["values"]["AR"] == 0.0
    assert Coco(max_detections=2)(data, [late])["values"]["AR"] == 1.0


@settings(max_examples=25)
@given(scenes())
def test_ap50_equals_a_plain_implementation(scene):
    data, predictions = scene
    plain = [replace(e, targets=replace(e.targets, ignore=np.zeros_like(e.targets.ignore))) for e in data.examples]
    data = Dataset(data.name, data.classes, tuple(plain))
    per_class = Coco()(data, predictions)["per_class"]
    for label, name in enumerate(data.classes):
        assert per_class[name]["AP50"] == pytest.approx(plain_ap50(data, predictions, label), abs=1e-9)


@settings(max_examples=25)
@given(scenes(), st.randoms(use_true_random=False))
def test_order_of_images_and_boxes_does_not_matter(scene, random):
    data, predictions = scene
    order = random.sample(range(len(data)), len(data))
    examples, shuffled = [], []
    for i in order:
        e, d = data.examples[i], predictions[i]
        boxes, dets = (random.sample(range(len(these)), len(these)) for these in (e.objects, d))
        truth = Boxes(*(array[boxes] for array in e.targets.arrays.values()))
        examples.append(replace(e, targets=truth))
        shuffled.append(Detections(d.boxes[dets], d.scores[dets], d.labels[dets]))
    assert _flat(Coco()(dataset(*examples, classes=data.classes), shuffled)) == pytest.approx(
        _flat(Coco()(data, predictions))
    )


@settings(max_examples=25)
@given(scenes())
def test_metrics_are_clean_bounded_and_ordered(scene):
    data, predictions = scene
    metrics = Coco()(data, predictions)
    json.dumps(metrics, allow_nan=False)
    values = metrics["values"]
    overall = [values[key] for key in ("AP", "AP50", "AP75", "AR")]
    assert all(value is None for value in overall) or all(0 <= value <= 1 for value in overall)
    if values["AP"] is not None:
        assert values["AP75"] <= values["AP50"] + 1e-9
        assert values["AP"] <= values["AP50"] + 1e-9
    assert metrics["counts"]["boxes"] == sum(of_class["boxes"] for of_class in metrics["per_class"].values())


@settings(max_examples=30)
@given(scenes())
def test_detections_in_a_new_ignore_region_change_nothing(scene):
    data, predictions = scene
    score = np.float32(1)
    # Scenes lie within 0..950, so this corner is free of them; its detections outrank all others.
    corner, region = np.array([[960, 960, 980, 980]], np.float32), np.array([[955, 955, 1000, 1000]], np.float32)
    examples = [_with_region(e, region) for e in data.examples]
    noisy = [
        Detections(np.concatenate([d.boxes, corner]), np.append(d.scores, score), np.append(d.labels, np.int32(1)))
        for d in predictions
    ]
    before, after = Coco()(data, predictions), Coco()(dataset(*examples, classes=data.classes), noisy)
    assert _flat(after) == pytest.approx(_flat(before))


def _with_region(one, region):
    truth = one.objects
    labels, ignore = np.append(truth.labels, np.int32(ANY_CLASS)), np.append(truth.ignore, True)
    return replace(one, targets=Boxes(np.concatenate([truth.boxes, region]), labels, ignore))


def _flat(metrics):
    """Return the metrics as one flat dict of floats, None as -1, which approx can compare."""
    flat = metrics["values"] | metrics["counts"]
    flat |= {(name, key): value for name, of in metrics["per_class"].items() for key, value in of.items()}
    return {key: -1.0 if value is None else float(value) for key, value in flat.items()}


def test_evaluation_prints_nothing(capfd):
    data = dataset(example([[0, 0, 100, 100]]))
    Coco()(data, perfect(data))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_predictions_that_are_not_finite_stop_the_run_and_name_the_image(value):
    data = dataset(example([[0, 0, 100, 100]], name="pets/rex.jpg"))
    with pytest.raises(TrainingError, match=r"rex\.jpg: detection 1 is not finite"):
        Coco()(data, [found([[0, 0, 10, 10], [0, 0, 10, value]])])
    with pytest.raises(TrainingError, match=r"rex\.jpg: detection 0 is not finite"):
        Coco()(data, [found([[0, 0, 10, 10]], [value])])


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (found([[10, 0, 5, 10]]), "box has its maximum below its minimum"),
        (found([[0, 0, 5, 5]], [1.5]), "score is outside 0..1"),
        (found([[0, 0, 5, 5]], labels=[1]), "label is outside the 1 classes"),
        (found([[0, 0, 5, 5]], labels=[-1]), "label is outside the 1 classes"),
    ],
)
def test_check_names_image_and_fault(detections, message):
    with pytest.raises(ModelError, match=rf"rex\.jpg: detection 0: its {message}"):
        check(detections, Path("rex.jpg"), 1)


def test_at_least_one_detection_must_count():
    with pytest.raises(ConfigError, match=r"max_detections is 0; it must be at least 1"):
        Coco(max_detections=0)


def test_every_value_is_a_declared_metric_and_the_primary_one_is_named():
    metrics = Coco()(dataset(example()), [found()])
    assert tuple(metric.name for metric in Coco.metrics) == tuple(metrics["values"]) == VALUES
    assert metrics["primary"] == Coco.primary == "AP"


def test_registered_as_coco():
    assert evaluators.entries["coco"].factory is Coco


def test_the_table_shows_every_class_with_its_boxes():
    many = example([[i, 0, i + 200, 200] for i in range(40)])
    data = dataset(many, classes=("cat", "[dog]"))
    console = Console(width=100, no_color=True)
    with console.capture() as captured:
        console.print(Coco().table(Coco()(data, perfect(data))))
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in _cells(captured.get())}
    assert rows["all"] == ["40", "1.000", "1.000", "1.000", "1.000"]
    assert rows["cat"] == ["40", "1.000", "1.000", "", ""]
    assert rows["[dog]"] == ["0*", "-", "-", "", ""]
    assert rows["small"] == ["0*", "-", "", "", ""]


def _cells(text):
    return (line.split("│") for line in text.splitlines() if line.startswith("│"))

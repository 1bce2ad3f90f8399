"""Every check of the doctor: what it finds, what it says, and what it leaves alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.doctor import examine, grouped, worst
from tlx.data.doctor.boxes import iou, twins
from tlx.data.readers.coco import coco
from tlx.data.readers.kitti import kitti
from tlx.data.readers.voc import voc
from tlx.data.splits.policies import Splits, ratio
from tlx.data.targets import ANY_CLASS, Boxes, ImageClass
from tlx.tasks.task import task_of

DATA = Path(__file__).parents[3] / "../shared/data"
CLASSES = ("cat", "dog")


def noise(path, seed, size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def example(tmp_path):
    """Return a function that makes a picture with boxes (x0, y0, x1, y1, label, ignore)."""
    made = []

    def example(*boxes, name=None, seed=None, size=(64, 48), split=""):
        made.append(name)
        path = noise(tmp_path / (name or f"{len(made)}.png"), len(made) if seed is None else seed, size)
        table = np.array([(*box, 0, False)[:6] for box in boxes], np.float64).reshape(-1, 6)
        labels, ignore = table[:, 4].astype(np.int32), table[:, 5].astype(np.bool_)
        record = f"labels.json (image {len(made)})"
        boxes = Boxes(table[:, :4].astype(np.float32), labels, ignore)
        return Example(path, *size, boxes, record, split=split)

    return example


def examined(data, size):
    return examine(data, size, task_of(data.task if isinstance(data, Dataset) else data.train.task).check)


def found(*examples, code=None, size=(320, 320), findings=()):
    """Return what the doctor finds: all with one code, or all codes but those that few pictures bring along."""
    task = examples[0].targets.task
    seen = examined(Dataset("drawn", CLASSES, examples, tuple(findings), task), size)
    if code:
        return [finding for finding in seen if finding.code == code]
    return [finding.code for finding in seen if finding.code not in ("few-examples", "class-imbalance")]


def test_a_sound_dataset_has_no_findings(example):
    boxes = [(4 + label, 4, 30 + 9 * label, 30, label) for label in (0, 1)]
    data = Dataset("drawn", CLASSES, tuple(example(*boxes, seed=i) for i in range(10)))
    assert examined(data, (64, 64)) == ()


def test_bad_pictures_are_all_reported_with_their_place(example):
    one, two = example((4, 4, 30, 30)), example((4, 4, 30, 30))
    one.image.write_bytes(one.image.read_bytes()[:-200])
    two.image.write_text("no picture")
    seen = found(one, two, code="unreadable-image")
    assert [(f.severity, f.file) for f in seen] == [("error", "1.png"), ("error", "2.png")]
    assert worst(seen) == 2


def test_a_lying_suffix_is_a_note_and_no_suffix_is_no_lie(example, tmp_path):
    liar = example((4, 4, 30, 30))
    noise(tmp_path / "real.png", 5).rename(tmp_path / "liar.jpg")
    noise(tmp_path / "bare.png", 6).rename(tmp_path / "bare")
    examples = [replace(liar, image=tmp_path / name) for name in ("liar.jpg", "bare")]
    assert [(f.severity, f.file) for f in found(*examples, code="image-format")] == [("info", "liar.jpg")]
    told = [Finding("image-format", "info", "liar.jpg", "", "")]
    assert found(*examples, code="image-format", findings=told) == []


@pytest.mark.parametrize("transposed", [False, True])
def test_a_turned_picture_is_a_warning_where_its_labels_are_of_the_stored_one(example, transposed):
    turned = example((4, 4, 30, 30), size=(48, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48), "red").save(turned.image, exif=exif)
    message = "the annotation says 64 x 48 px; was it turned after it was labelled?"
    known = [Finding("annotated-size", "warning", "labels.json", "image 1", message)] if transposed else []
    (finding,) = found(turned, code="exif-rotated", findings=known)
    assert finding.severity == ("warning" if transposed else "info")
    assert "64 x 48 picture into 48 x 64 px" in finding.message
    assert ("most likely misplaced" in finding.message) == transposed


@pytest.mark.parametrize(
    ("mode", "suffix", "code"),
    [("L", "jpg", "grayscale-image"), ("CMYK", "jpg", "cmyk-image"), ("RGBA", "png", "alpha-image")],
)
def test_unusual_colours_are_named(example, mode, suffix, code):
    odd = example((4, 4, 30, 30))
    path = odd.image.with_suffix(f".{suffix}")
    Image.open(odd.image).convert(mode).save(path)
    assert found(replace(odd, image=path)) == [code]


def test_sixteen_bits_are_named(example):
    odd = example((4, 4, 30, 30))
    Image.fromarray((np.arange(48 * 64).reshape(48, 64) * 20).astype(np.uint16)).save(odd.image)
    assert found(odd) == ["grayscale-image", "deep-image"]


def test_a_box_that_covers_everything_is_named_unless_it_is_the_label_of_the_picture(example):
    covering = example((0, 0.2, 63.8, 48))
    (finding,) = found(covering, code="box-covers-image")
    assert (finding.severity, finding.file, finding.record) == ("warning", "1.png", "labels.json (image 1), box 1")
    assert found(replace(covering, targets=ImageClass(0))) == []
    assert found(example((0, 0, 63, 40))) == []
    assert found(example((0, 0, 64, 48, 0, True))) == []


def test_nearly_the_same_box_twice(example):
    twice = example((10, 10, 40, 40), (0, 0, 5, 9), (10, 10.5, 40, 40))
    (finding,) = found(twice, code="near-duplicate-box", size=(640, 640))
    assert finding.record == "labels.json (image 1), box 3"
    assert "cat (10, 10.5, 40, 40) is almost the same box as cat (10, 10, 40, 40)" in finding.message
    assert found(example((10, 10, 40, 40), (10, 10, 40, 40, 1))) == ["box-of-two-classes"]
    assert found(example((10, 10, 40, 40), (10, 10, 40, 40, ANY_CLASS, True))) == []
    assert found(example((10, 10, 40, 40), (12, 12, 40, 40))) == []


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2), max_size=30))
def test_twins_are_the_pairs_that_overlap_so_much(corners):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.float32).reshape(-1, 4)
    boxes[::2] += np.float32(0.05)
    pairs = {(i, j) for i in range(len(boxes)) for j in range(i + 1, len(boxes)) if iou(boxes[i], boxes[[j]])[0] > 0.95}
    assert sorted(twins(boxes)) == sorted(pairs)


def test_boxes_are_measured_at_the_size_that_is_trained_at(example):
    small = example((0, 0, 30, 8), (0, 0, 10, 10), (40, 40, 41, 41, 0, True))
    assert found(small, size=(64, 64)) == found(small, size=(24, 320)) == []
    (finding,) = found(small, code="tiny-box", size=(320, 28))
    assert finding.message.startswith("1 of 2 boxes are less than 4 px wide or high once the image is 28 x 320 px")
    assert "cat (0, 0, 30, 8) with 3.5 px" in finding.message


def test_a_picture_without_boxes_is_background_unless_its_reader_said_so(example):
    assert found(example()) == ["no-boxes"]
    assert found(example(), findings=[Finding("background-row", "info", "x.json", "", "1 row")]) == []


def test_classes_are_counted_where_they_are_learnt(example):
    train = [example((4, 4, 30, 30), split="train") for _ in range(12)]
    other = [example((4, 4, 30, 30, 1), split="validation")]
    seen = {f.code: f for f in examined(Dataset("drawn", CLASSES, (*train, *other)), (64, 64))}
    assert set(seen) == {"class-not-in-training", "class-not-in-validation"}
    assert "1 x 'dog' in other parts" in seen["class-not-in-training"].message
    assert "none of 'cat'" in seen["class-not-in-validation"].message


def test_few_examples_and_imbalance(example):
    many = example(*[(x, y, x + 6, y + 6) for x in range(0, 50, 8) for y in range(0, 40, 8)])
    seen = {f.code: f for f in examined(Dataset("drawn", CLASSES, (many, example((4, 4, 30, 30, 1)))), (64, 64))}
    assert {code: f.severity for code, f in seen.items()} == {"few-examples": "warning", "class-imbalance": "info"}
    assert seen["few-examples"].record == "class dog"
    assert "35.0 to 1" in seen["class-imbalance"].message


def test_copies_within_and_across_parts(example):
    parts = [example((4, 4, 30, 30), seed=7, split=split) for split in ("train", "train", "validation")]
    seen = {f.code: f for f in examined(Dataset("drawn", CLASSES, tuple(parts)), (64, 64))}
    assert (seen["duplicate-image"].severity, seen["duplicate-image"].file) == ("info", "1.png")
    across = seen["duplicate-image-across-splits"]
    assert across.severity == "warning"
    assert "has the same bytes as 3.png (validation), while it is in train" in across.message


@pytest.mark.parametrize(
    ("boxes", "other", "how"),
    [
        ([(4, 4, 30, 30)], [(4, 4, 30, 30, 1)], "labelled 1 x cat and that one 1 x dog"),
        ([(4, 4, 30, 30)], [(31, 31, 60, 47)], "boxes are elsewhere"),
        ([(4, 4, 30, 30)], [], "labelled 1 x cat and that one without objects"),
        ([(4, 4, 30, 30)], [(4, 5, 30, 31)], ""),
        ([(4, 4, 30, 30), (30, 30, 60, 40, 1)], [(30, 30, 60, 40, 1), (4, 4, 30, 30)], ""),
    ],
)
def test_the_same_picture_with_other_labels(example, boxes, other, how):
    seen = found(example(*boxes, seed=7), example(*other, seed=7), code="contradicting-labels")
    assert len(seen) == bool(how)
    assert all(how in finding.message and finding.severity == "warning" for finding in seen)


def test_look_alikes_contradict_only_with_nothing_in_common(example, tmp_path):
    one, same = example((4, 4, 30, 30), seed=7), example((4, 4, 30, 30, 1), seed=7)
    Image.open(same.image).resize((32, 24)).save(same.image)
    half = replace(same.targets, boxes=np.array([[2, 2, 15, 15]], np.float32))
    same = replace(same, width=32, height=24, targets=half)
    assert "looks like 2.png" in found(one, same, code="contradicting-labels")[0].message
    agreed = replace(same, targets=replace(half, labels=np.array([0], np.int32)))
    assert found(one, agreed, code="contradicting-labels") == []


def test_what_splitting_found_is_not_said_again(example):
    examples = tuple(example((4, 4, 30, 30), seed=seed) for seed in (1, 1, 2, 3, 4, 5))
    parts = ratio(Dataset("drawn", CLASSES, examples))
    assert isinstance(parts, Splits)
    assert Counter(f.code for f in parts.findings)["duplicate-image"] == 1
    assert "duplicate-image" not in {f.code for f in examined(parts, (64, 64))}


def test_findings_are_grouped_worst_first():
    cases = [("a", "info"), ("b", "error"), ("c", "warning"), ("a", "warning")]
    findings = [Finding(code, severity, "", "", "") for code, severity in cases]
    groups = grouped(findings)
    assert [(code, [f.severity for f in seen]) for code, seen in groups.items()] == [
        ("b", ["error"]),
        ("c", ["warning"]),
        ("a", ["warning", "info"]),
    ]
    assert (worst(findings), worst(findings[2:]), worst(findings[:1]), worst([])) == (2, 1, 0, 0)


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data in ../shared/data is absent")
@pytest.mark.parametrize(
    ("folder", "reader", "codes"),
    [
        ("voc_raccoon", voc, {"duplicate-image": 4, "near-duplicate-image": 3, "grayscale-image": 3}),
        ("voc_bccd", voc, {"zero-area-box": 2, "class-imbalance": 1, "near-duplicate-image-across-splits": 1}),
        ("voc_star_wars", voc, {"near-miss-class": 1, "duplicate-image": 1, "contradicting-labels": 2}),
        ("kitti", kitti, {"clipped-box": 1, "few-examples": 5}),
        ("coco_tiny", coco, {"no-boxes": 2}),
    ],
)
def test_real_folders_show_what_is_odd_about_them(folder, reader, codes):
    dataset = reader(DATA / folder)
    seen = (*dataset.findings, *examined(dataset, (320, 320)))
    counts = Counter(finding.code for finding in seen)
    assert {code: counts[code] for code in codes} == codes
    assert [finding for finding in seen if finding.severity == "error"] == []

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlx.data.assemble import Object, Record, assemble, unlabelled_records
from tlx.data.targets import ANY_CLASS
from tlx.errors import DataError

INF, NAN = float("inf"), float("nan")


def record(*objects, name="a", size=(100, 50), **more):
    return Record(Path(f"/data/{name}.jpg"), f"{name}.xml", objects, size=size, **more)


def build(*records, classes=None, merge=None, findings=None, **more):
    return assemble("voc", records, Path("/data"), classes, merge, [] if findings is None else findings, **more)


def cup(*box, name="cup", **more):
    return Object(name, box, **more)


def test_classes_are_the_names_found_in_order():
    dataset = build(record(cup(1, 2, 3, 4), cup(5, 6, 7, 8, name="bottle"), Object(None, (0, 0, 9, 9), True)))
    (example,) = dataset.examples
    assert dataset.classes == ("bottle", "cup")
    assert example.objects.labels.tolist() == [1, 0, ANY_CLASS]
    assert example.objects.ignore.tolist() == [False, False, True]
    assert example.objects.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]]
    assert (example.width, example.height, example.record) == (100, 50, "a.xml")
    assert dataset.findings == ()


@pytest.mark.parametrize(
    ("box", "kept", "code"),
    [
        ((10, 10, 20, 20), (10, 10, 20, 20), None),
        ((-1, 0, 101, 51), (0, 0, 100, 50), None),
        ((-1.5, 0, 20, 20), (0, 0, 20, 20), "clipped-box"),
        ((90, 40, INF, 50), None, "non-finite-box"),
        ((NAN, 10, 20, 20), None, "non-finite-box"),
        ((20, 10, 10, 20), None, "inverted-box"),
        ((200, 10, 110, 20), None, "inverted-box"),
        ((10, 10, 10, 20), None, "zero-area-box"),
        ((10, 10, 10 + 1e-12, 20), None, "zero-area-box"),
        ((100, 10, 120, 20), None, "box-outside"),
        ((10, -20, 20, 0), None, "box-outside"),
    ],
)
def test_odd_boxes_are_clipped_or_left_out_and_located(box, kept, code):
    dataset = build(record(cup(*box, where="object 7"), cup(1, 1, 2, 2)))
    assert dataset.examples[0].objects.boxes.tolist() == [list(b) for b in (kept, (1, 1, 2, 2)) if b]
    assert [(f.code, f.severity, f.file, f.record) for f in dataset.findings] == (
        [(code, "warning", "a.xml", "object 7")] if code else []
    )


coordinate = st.floats() | st.floats(-200, 200) | st.integers(-2, 102).map(float)


@given(st.lists(st.tuples(coordinate, coordinate, coordinate, coordinate), max_size=5))
def test_any_numbers_give_a_valid_example(boxes):
    dataset = build(record(cup(1, 1, 2, 2), *(cup(*box) for box in boxes)))
    assert len(dataset.examples[0].objects.boxes) >= 1


def test_expected_clipping_is_counted_once():
    dataset = build(record(cup(0, 0, 200, 10), cup(0, 0, 300, 10)), clipping="expected")
    assert [(f.code, f.severity) for f in dataset.findings] == [("clipped-box", "info")]
    assert dataset.findings[0].message.startswith("2 boxes")


def test_an_exact_duplicate_is_left_out_and_reported():
    dataset = build(record(cup(1, 1, 5, 5, where="object 1"), cup(1, 1, 5, 5, where="object 2"), cup(1, 1, 5, 6)))
    assert len(dataset.examples[0].objects.boxes) == 2
    assert [(f.code, f.record) for f in dataset.findings] == [("duplicate-box", "object 2")]


def test_merge_renames_and_misspelt_keys_are_told():
    records = record(cup(1, 1, 5, 5), cup(2, 2, 5, 5, name="mug"))
    assert build(records, merge={"mug": "cup"}).counts() == {"cup": 2}
    findings = []
    assert build(records, merge={"mugg": "cup"}, findings=findings).counts() == {"mug": 1, "cup": 1}
    (finding,) = findings
    assert (finding.code, finding.severity) == ("unused-merge", "warning")
    assert re.search(r"readers\.voc\.merge.*'mugg'.*did you mean 'mug'", finding.message)


def test_given_classes_set_the_order_and_leave_others_out():
    records = record(cup(1, 1, 5, 5), cup(2, 2, 5, 5, name="bowl"), Object(None, (0, 0, 9, 9), True))
    dataset = build(records, classes=("cup",))
    assert dataset.examples[0].objects.labels.tolist() == [0, ANY_CLASS]
    assert [(f.code, f.severity) for f in dataset.findings] == [("other-class", "info")]
    assert build(records, classes=("cup", "bowl")).classes == ("cup", "bowl")
    with pytest.raises(DataError, match="did you mean 'cup'"):
        build(records, classes=("cups",))
    with pytest.raises(DataError, match="twice"):
        build(records, classes=("cup", "cup"))
    assert build(records, classes=("cup", "fork"), declared={"fork"}).classes == ("cup", "fork")


def test_a_near_miss_tells_the_line_for_the_gin_file():
    dataset = build(record(*(cup(i, 1, i + 2, 5) for i in range(9)), cup(1, 1, 9, 9, name="Cup", where="object 10")))
    (finding,) = dataset.findings
    assert (finding.code, finding.record) == ("near-miss-class", "object 10")
    assert "readers.voc.merge = {'Cup': 'cup'}" in finding.message


def test_objects_without_a_name_are_reported():
    dataset = build(record(cup(1, 1, 5, 5), cup(1, 1, 6, 6, name="", where="object 2")))
    assert dataset.classes == ("cup",)
    assert [(f.code, f.record) for f in dataset.findings] == [("unnamed-object", "object 2")]


def test_two_records_of_one_image_are_put_together():
    dataset = build(record(cup(1, 1, 5, 5)), record(cup(2, 2, 5, 5)))
    assert len(dataset) == 1
    assert len(dataset.examples[0].objects.boxes) == 2
    assert dataset.findings[0].code == "image-twice"


def test_an_unreadable_image_is_an_error_finding(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (30, 20)).save(tmp_path / "good.png")
    records = [Record(tmp_path / name, "x.xml", [cup(1, 1, 5, 5)]) for name in ("bad.jpg", "good.png")]
    dataset = assemble("voc", records, tmp_path, None, None, [])
    assert [(f.code, f.severity, f.file) for f in dataset.findings] == [("unreadable-image", "error", "bad.jpg")]
    assert (dataset.examples[0].width, dataset.examples[0].height) == (30, 20)


def test_nothing_left_says_why():
    with pytest.raises(DataError, match="no image with labels is left in /data"):
        build()
    with pytest.raises(DataError, match=r"no box to learn from.*1 x zero-area-box"):
        build(record(cup(1, 1, 1, 1)))
    with pytest.raises(DataError, match="no box to learn from"):
        build(record(cup(1, 1, 5, 5, ignore=True)))


@pytest.mark.parametrize(("policy", "count"), [("skip", 0), ("background", 2)])
def test_unlabelled_images_are_counted_and_treated_as_asked(policy, count):
    findings = []
    images = [Path("/data/b.jpg"), Path("/data/c.jpg")]
    assert len(unlabelled_records("voc", images, Path("/data"), policy, findings)) == count
    assert findings[0].code == "unlabelled-image"
    assert findings[0].message.startswith("2 images")


def test_unlabelled_images_can_be_refused():
    with pytest.raises(DataError, match=r"b\.jpg: 1 images have no annotation"):
        unlabelled_records("voc", [Path("/data/b.jpg")], Path("/data"), "error", [])
    assert unlabelled_records("voc", [], Path("/data"), "error", []) == []


def test_arrays_have_the_canonical_types():
    example = build(record(cup(1, 1, 5, 5)), record(name="b")).examples[1]
    assert (example.objects.boxes.shape, example.objects.boxes.dtype) == ((0, 4), np.float32)
    assert (example.objects.labels.dtype, example.objects.ignore.dtype) == (np.int32, np.bool_)


def test_an_image_none_of_whose_boxes_is_sound_is_no_background():
    dataset = build(record(cup(20, 10, 10, 20), name="bad"), record(cup(1, 1, 2, 2)), record(name="empty"))
    assert [e.image.stem for e in dataset.examples] == ["a", "empty"]
    assert [(f.code, f.file) for f in dataset.findings] == [("inverted-box", "bad.xml"), ("no-sound-box", "bad.xml")]


@pytest.mark.parametrize(("wrong", "refused"), [(12, True), (9, False), (0, False)])
def test_boxes_most_of_which_do_not_fit_are_an_error(wrong, refused):
    records = [record(cup(90, 10, 190, 40), name=f"wrong{i}") for i in range(wrong)]
    records += [record(cup(10, 10, 20, 20), name=f"right{i}") for i in range(8)]
    errors = [f for f in build(*records).findings if f.severity == "error"]
    assert [f.code for f in errors] == ["boxes-do-not-fit"] * refused
    assert not refused or "12 of 20 boxes" in errors[0].message
    # Where a format's boxes may pass the edge, they say nothing.
    assert not any(f.severity == "error" for f in build(*records, clipping="expected").findings)

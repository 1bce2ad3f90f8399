import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tlx_open_images.reader import _sniff, open_images

from tlx.errors import DataError

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
CLASSES = {"/m/02jvh9": "Mug", "/m/02p5f1q": "Coffee cup", "/m/04yx4": "Man", "/m/03bt1vf": "Woman"}


def row(image="a1", label="/m/02jvh9", box=(0.1, 0.4, 0.2, 0.7), group=0, depiction=0):
    return f"{image},xclick,{label},1,{','.join(map(str, box))},0,0,{group},{depiction},0"


def put(root, rows, images=("train/a1.jpg",), name="train-annotations-bbox.csv", header=HEADER, classes=CLASSES):
    for path in (root / image for image in images):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(path)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join([header, *rows]) + "\n")
    (root / "class-descriptions-boxable.csv").write_text("".join(f"{k},{v}\r\n" for k, v in classes.items()))
    return root


def codes(dataset):
    return [(f.code, f.severity, f.file, f.record) for f in dataset.findings]


def test_fractions_become_pixels_and_groups_are_ignored(tmp_path):
    dataset = open_images(put(tmp_path, [row(), row(label="/m/02p5f1q", box=(0, 1, 0.5, 1), group=1), row(group=-1)]))
    assert dataset.classes == ("Coffee cup", "Mug")
    assert dataset.examples[0].objects.boxes.tolist() == [[10, 10, 40, 35], [0, 25, 100, 50]]
    assert dataset.examples[0].objects.labels.tolist() == [1, 0]
    assert dataset.examples[0].objects.ignore.tolist() == [False, True]
    assert dataset.examples[0].split == "train"
    assert [f.code for f in dataset.findings] == ["duplicate-box"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("oidv6-train-annotations-bbox.csv", "train"),
        ("validation-annotations-bbox.csv", "validation"),
        ("csv_folder/test-annotations-bbox.csv", "test"),
        ("validation/labels/detections.csv", "validation"),
        ("annotations/boxes.csv", ""),
    ],
)
def test_each_file_is_a_split(tmp_path, name, split):
    dataset = open_images(put(tmp_path, [row()], ["any/where/a1.jpg"], name))
    assert [e.split for e in dataset.examples] == [split]
    assert _sniff(tmp_path).fits


def test_other_columns_and_another_order(tmp_path):
    header = ",LabelName,ImageID,YMax,YMin,XMax,XMin,IsGroupOf,XClick1X"
    dataset = open_images(
        put(tmp_path, ["0,/m/02jvh9,a1,0.7,0.2,0.4,0.1,1,-1", "1,/m/02jvh9,a1,1,0,1,0,0,-1"], header=header)
    )
    assert dataset.examples[0].objects.boxes.tolist() == [[10, 10, 40, 35], [0, 0, 100, 50]]
    assert dataset.examples[0].objects.ignore.tolist() == [True, False]


def test_classes_are_chosen_by_name_in_their_order(tmp_path):
    put(tmp_path, [row(), row(label="/m/04yx4"), row(label="/m/03bt1vf", box=(0, 1, 0, 1))])
    dataset = open_images(tmp_path, classes=("Person", "Mug"), merge={"Man": "Person"})
    assert dataset.counts() == {"Person": 1, "Mug": 1}
    assert codes(dataset) == [("other-class", "info", "train-annotations-bbox.csv", "line 4")]
    with pytest.raises(DataError, match="no class is named 'Cofee cup'; did you mean 'Coffee cup'"):
        open_images(tmp_path, classes=("Cofee cup",))


@pytest.mark.parametrize(
    ("depictions", "ignore"), [("keep", [False, False]), ("ignore", [False, True]), ("drop", [False])]
)
def test_depictions(tmp_path, depictions, ignore):
    put(tmp_path, [row(), row(box=(0, 1, 0, 1), depiction=1)])
    assert open_images(tmp_path, depictions=depictions).examples[0].objects.ignore.tolist() == ignore


def test_what_is_left_out_is_counted(tmp_path):
    rows = [row("b2"), row("c3"), row(), row(label="/m/nobody")]
    dataset = open_images(put(tmp_path, rows, ["train/a1.jpg", "train/d4.jpg", "validation/e5.jpg"]))
    assert codes(dataset) == [
        ("image-not-here", "info", "train-annotations-bbox.csv", "line 2"),
        ("unknown-label", "warning", "train-annotations-bbox.csv", "line 5"),
        ("unlabelled-image", "info", "train/d4.jpg", ""),
    ]
    assert [f.message[:2] for f in dataset.findings] == ["2 ", "1 ", "2 "]
    background = open_images(tmp_path, unlabelled="background")
    assert [(e.image.name, e.split, len(e.objects.boxes)) for e in background.examples] == (
        [("a1.jpg", "train", 1), ("d4.jpg", "train", 0), ("e5.jpg", "validation", 0)]
    )


def test_copies_of_an_image_in_folders_by_class_are_one(tmp_path):
    put(tmp_path, [row()], ["train/Mug/a1.jpg", "train/Man/a1.jpg"])
    assert [e.image.parent.name for e in open_images(tmp_path).examples] == ["Man"]


def test_images_elsewhere_and_a_file_by_itself(tmp_path):
    put(tmp_path / "csv", [row()], ["../pictures/a1.jpg"])
    assert len(open_images(tmp_path / "csv", images=tmp_path / "pictures")) == 1
    assert len(open_images(tmp_path / "csv/train-annotations-bbox.csv", images=tmp_path / "pictures")) == 1
    assert _sniff(tmp_path / "csv/train-annotations-bbox.csv").fits


def test_class_descriptions_of_version_7(tmp_path):
    put(tmp_path, [row()], classes={"LabelName": "DisplayName", "/m/02jvh9": '"Mug, large"'})
    assert open_images(tmp_path).classes == ("Mug, large",)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("a1,xclick", "2 columns where the header has 13"),
        (row(box=("x", 0, 0, 0)), "must be numbers"),
        (row() + ",", "14 columns"),
        ("a1," + "9" * 9000, "columns"),
    ],
)
def test_a_broken_row_costs_only_itself(tmp_path, bad, why):
    dataset = open_images(put(tmp_path, [bad, "", row()]))
    assert dataset.counts() == {"Mug": 1}
    assert codes(dataset) == [("broken-annotation", "error", "train-annotations-bbox.csv", "line 2")]
    assert why in dataset.findings[0].message


def test_boxes_that_are_no_fractions_are_named(tmp_path):
    boxes = [(0.1, 0.4, 0.2, 0.7), ("nan", 1, 0, 1), (0.5, 0.4, 0, 1), (-1, -1, -1, -1), (30, 40, 10, 20)]
    dataset = open_images(put(tmp_path, [row(box=box) for box in boxes]))
    assert dataset.counts() == {"Mug": 1}
    assert [f.code for f in dataset.findings] == ["non-finite-box", "inverted-box", "zero-area-box", "box-outside"]


def test_a_file_that_is_broken_throughout_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 101\).*100 rows are broken"):
        open_images(put(tmp_path, ["a1,broken"] * 1000))


def test_an_unreadable_image_is_one_finding(tmp_path):
    put(tmp_path, [row(), row("b2")], ["train/a1.jpg", "train/b2.jpg"])
    (tmp_path / "train/b2.jpg").write_bytes(b"x")
    dataset = open_images(tmp_path)
    assert codes(dataset) == [("unreadable-image", "error", "train/b2.jpg", "")]


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"no CSV in .* has the columns ImageID"):
        open_images(tmp_path)
    put(tmp_path, [row()])
    (tmp_path / "class-descriptions-boxable.csv").write_text('/m/1,"open\n' + "x,y\n" * 100_000)
    with pytest.raises(DataError, match=r"class-descriptions-boxable\.csv is damaged"):
        open_images(tmp_path)
    (tmp_path / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(DataError, match=r"no class-descriptions-boxable\.csv"):
        open_images(tmp_path)
    assert not _sniff(tmp_path).fits


def test_sniffing_other_folders(tmp_path):
    assert not _sniff(tmp_path / "nothing").fits
    (tmp_path / "urls.csv").write_text("image_url,label\nhttps://host/1.jpg,cup\n")
    (tmp_path / "data.json").write_text(json.dumps({"images": []}))
    assert "no CSV" in _sniff(tmp_path).why
    assert not _sniff(tmp_path / "data.json").fits
    assert not _sniff(tmp_path / "urls.csv").fits


def test_rows_of_absent_images_take_no_memory(tmp_path):
    put(tmp_path, [row()])
    with (tmp_path / "train-annotations-bbox.csv").open("a") as file:
        file.writelines(f"{i:016x},xclick,/m/02jvh9,1,0.1,0.4,0.2,0.7,0,0,0,0,0\n" for i in range(50_000))
    open_images(tmp_path)
    tracemalloc.start()
    dataset = open_images(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dataset.findings[0].message.startswith("50,000 boxes")
    assert peak < 1_000_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_behind_the_header_are_findings_or_a_data_error(tmp_path, content):
    put(tmp_path, [])
    (tmp_path / "train-annotations-bbox.csv").write_bytes(HEADER.encode() + b"\n" + row().encode() + b"\n" + content)
    try:
        assert len(open_images(tmp_path)) == 1
    except DataError:
        return

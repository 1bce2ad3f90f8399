import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.readers.labelbox import labelbox
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")

BOX = {"top": 20, "left": 10, "height": 15, "width": 30}
POLYGON = [{"x": 10, "y": 20}, {"x": 40, "y": 22}, {"x": 12, "y": 35}]
CUP = {"value": "cup", "title": "Cup", "bbox": BOX, "classifications": [{"value": "colour", "answer": "red"}]}


def v1(label, name="a.png", external=None):
    return {"ID": "1", "Labeled Data": f"https://host/x/{name}?sig=1", "External ID": external, "Label": label}


def v2(*objects, name="a.png", labels=1):
    label = {"annotations": {"objects": list(objects), "classifications": []}}
    row = {"id": "r1", "external_id": None, "row_data": f"https://host/x/{name}?sig=1"}
    media = {"height": 1, "width": 1}
    return {"data_row": row, "media_attributes": media, "projects": {"p": {"name": "n", "labels": [label] * labels}}}


def put(root, rows, *names, lines=False):
    for name in names or ("a.png",):
        (root / "images").mkdir(exist_ok=True)
        Image.new("RGB", (100, 50)).save(root / "images" / name, format="PNG")
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    (root / "export.json").write_text(text)
    return root


def boxes(dataset):
    return [example.boxes.tolist() for example in dataset.examples]


@pytest.mark.parametrize("given", ["folder", "file", "text"])
def test_v1_boxes_and_polygons(tmp_path, given):
    polygon = {"value": "fork", "polygon": POLYGON}
    put(tmp_path, [v1({"objects": [CUP, polygon], "classifications": []})])
    (tmp_path / "labels.json").write_text('{"cup": 0}')
    dataset = labelbox({"folder": tmp_path, "file": tmp_path / "export.json", "text": str(tmp_path)}[given])
    assert dataset.classes == ("cup", "fork")
    assert boxes(dataset) == [[[10, 20, 40, 35], [10, 20, 40, 35]]]
    assert dataset.findings == ()


@pytest.mark.parametrize("lines", [True, False])
def test_v2_takes_the_size_from_the_file(tmp_path, lines):
    put(tmp_path, [v2({"value": "cup", "bounding_box": BOX}, {"name": "mug", "polygon": POLYGON})], lines=lines)
    dataset = labelbox(tmp_path)
    assert dataset.classes == ("cup", "mug")
    assert boxes(dataset) == [[[10, 20, 40, 35], [10, 20, 40, 35]]]
    assert dataset.examples[0].width == 100


@pytest.mark.parametrize(
    ("name", "external", "on_disk"),
    [
        ("k%2Fid-a%20(1).jpg", None, "k%2Fid-a%20(1).jpg"),
        ("k%2Fid-a%20(1).jpg", None, "id-a (1).jpg"),
        ("k%2Fid-a%20(1).jpg", None, "id-a (1).PNG"),
        ("k%2Fid-a%20(1).jpg", "a (1).jpg", "a (1).png"),
        ("..%2F..%2Fsecret.png", "a.png", "a.png"),
    ],
)
def test_images_are_found_by_url_or_external_id(tmp_path, name, external, on_disk):
    put(tmp_path, [v1({"objects": [CUP]}, name, external)], on_disk)
    (tmp_path / "secret.png").write_bytes(b"")
    assert labelbox(tmp_path).examples[0].image.name == on_disk


def test_rows_without_objects(tmp_path):
    rows = [
        v1({"objects": [CUP]}),
        v1("Skip", "b.png"),
        v1({"objects": []}, "c.png"),
        v1(None, "d.png"),
        v1({}, "e.png"),
    ]
    dataset = labelbox(put(tmp_path, rows, "a.png", "b.png", "c.png", "d.png", "e.png"))
    assert [e.image.name for e in dataset.examples] == ["a.png", "c.png", "e.png"]
    assert [(f.code, f.severity, f.record, f.message[:6]) for f in dataset.findings] == [
        ("unlabelled-row", "info", "row 2", "2 rows"),
        ("background-row", "info", "row 3", "2 rows"),
    ]


def test_several_opinions_and_objects_that_are_no_boxes(tmp_path):
    dataset = labelbox(
        put(tmp_path, [v2({"value": "cup", "bounding_box": BOX}, {"value": "tip", "point": {}}, labels=2)])
    )
    assert dataset.counts() == {"cup": 1}
    assert [(f.code, f.record) for f in dataset.findings] == [
        ("several-labels", "row 1"),
        ("no-box", "row 1, object 2"),
    ]


OLD = "MULTIPOLYGON (((10 30, 40 30, 40 15, 10 15, 10 30), (20 20, 21 21, 20 21, 20 20)), ((1 2, 3 2, 3 4, 1 2)))"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (OLD, [[10, 20, 40, 35], [1, 46, 3, 48]]),
        ([{"geometry": "POLYGON ((10 30, 40 30.0, 40 1.5e1, 10 15, 10 30))"}], [[10, 20, 40, 35]]),
        ([{"geometry": [{"x": 10, "y": 30}, {"x": 40, "y": 15}]}], [[10, 20, 40, 35]]),
        (
            [[{"x": 10, "y": 30}, {"x": 40, "y": 15}], [{"x": 1, "y": 2}, {"x": 3, "y": 4}]],
            [[10, 20, 40, 35], [1, 46, 3, 48]],
        ),
    ],
)
def test_2018_dialects_count_y_from_the_bottom(tmp_path, label, expected):
    dataset = labelbox(put(tmp_path, [v1({"cup": label, "weather": "sunny"})]))
    assert (dataset.classes, boxes(dataset)) == (("cup",), [expected])


@pytest.mark.parametrize(
    "row",
    [
        v1({"objects": [{"value": "cup", "bbox": {"top": "x"}}]}, "b.png"),
        v1({"objects": 3}, "b.png"),
        v1({"cup": "POLYGON ((1 2"}, "b.png"),
        v1([], "b.png"),
        7,
        v2({"value": "cup", "bounding_box": None, "polygon": [1]}, name="b.png"),
        {"data_row": {}, "projects": {"p": {"labels": [{"annotations": {"frames": {"1": {}}}}]}}},
    ],
)
@pytest.mark.parametrize("lines", [True, False])
def test_a_broken_row_is_one_located_error(tmp_path, row, lines):
    dataset = labelbox(put(tmp_path, [v1({"objects": [CUP]}), row], "a.png", "b.png", lines=lines))
    assert len(dataset) == 1
    assert [(f.code, f.severity, f.file, f.record) for f in dataset.findings] == (
        [("broken-annotation", "error", "export.json", "row 2")]
    )


def test_an_unreadable_image_of_a_2018_row_is_one_error(tmp_path):
    put(tmp_path, [v1({"objects": [CUP]}), v1({"cup": OLD}, "b.png")])
    (tmp_path / "images/b.png").write_bytes(b"x")
    assert [f.code for f in labelbox(tmp_path).findings] == ["unreadable-image"]


@pytest.mark.parametrize("content", ["", "hello", "[{]", "[" * 100_000])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(DataError, match=r"export\.json is neither a JSON list"):
        labelbox(tmp_path / "export.json")


def test_a_folder_needs_exactly_one_export(tmp_path):
    put(tmp_path, [v1({"objects": [CUP]})])
    (tmp_path / "other.json").write_text((tmp_path / "export.json").read_text())
    with pytest.raises(DataError, match=r"export\.json, other\.json; name the file"):
        labelbox(tmp_path)


@needs_data
def test_sharks():
    dataset = labelbox(DATA / "labelbox_v1_sharks")
    assert (len(dataset), dataset.counts()) == (5, {"person": 6, "shark": 5})
    assert Counter(f.code for f in dataset.findings) == {"missing-image": 23}


@needs_data
def test_vehicles():
    dataset = labelbox(DATA / "labelbox_v2_vehicles")
    assert (len(dataset), dataset.counts()) == (6, {"bus": 2, "truck": 8})
    assert dataset.examples[0].width != 1280
    assert Counter(f.code for f in dataset.findings) == {"missing-image": 2}


@needs_data
@pytest.mark.parametrize(("name", "counts"), [("v2_wkt", {"Car": 2, "Tree": 4}), ("v3_xy", {"Car": 10})])
def test_real_2018_exports(tmp_path, name, counts):
    path = DATA / f"labelbox_2018_dialects/{name}.json"
    for row in json.loads(path.read_text()):
        Image.new("L", (2600, 1800)).save(tmp_path / row["Labeled Data"].rpartition("/")[2], format="PNG")
    assert labelbox(path, images=tmp_path).counts() == counts

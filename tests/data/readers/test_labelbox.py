import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tlx.data.images import read_image
from tlx.data.readers.labelbox import _sniff, labelbox
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")

BOX = {"top": 20, "left": 10, "height": 15, "width": 30}
POLYGON = [{"x": 10, "y": 20}, {"x": 40, "y": 22}, {"x": 12, "y": 35}]
CUP = {"value": "cup", "title": "Cup", "bbox": BOX, "classifications": [{"value": "colour", "answer": "red"}]}


def v1(label, name="a.png", external=None):
    return {"ID": "1", "Labeled Data": f"https://host/x/{name}?sig=1", "External ID": external, "Label": label}


def v2(*objects, name="a.png", labels=1, size=(100, 50), kind="image", skipped=False):
    label = {"annotations": {"objects": list(objects)}, "performance_details": {"skipped": skipped}}
    row = {"id": "r1", "external_id": None, "row_data": f"https://host/x/{name}?sig=1"}
    media = {"width": size[0], "height": size[1], "asset_type": kind, "exif_rotation": "1"}
    return {"data_row": row, "media_attributes": media, "projects": {"p": {"name": "n", "labels": [label] * labels}}}


def put(root, rows, *names, lines=False):
    for name in names or ("a.png",):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(root / "images" / name, format="PNG")
    text = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    (root / "export.json").write_text(text)
    return root


def boxes(dataset):
    return [example.objects.boxes.tolist() for example in dataset.examples]


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
    assert dataset.findings == ()


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
        v1({"objects": [{"value": "cup", "mask": {"url": 5}}]}, "b.png"),
        v1('{"objects": [', "b.png"),
        {"data_row": {}, "projects": []},
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


def test_a_row_may_be_on_many_lines(tmp_path):
    put(tmp_path, [])
    (tmp_path / "export.json").write_text("\ufeff" + json.dumps(v2({"value": "cup", "bounding_box": BOX}), indent=2))
    assert labelbox(tmp_path).counts() == {"cup": 1}


def test_skipped_rows_are_not_background(tmp_path):
    rows = [v1({"objects": [CUP]}), v1({}, "b.png") | {"Skipped": True}]
    assert [e.image.name for e in labelbox(put(tmp_path, rows, "a.png", "b.png")).examples] == ["a.png"]
    rows = [v2({"value": "cup", "bounding_box": BOX}), v2(name="b.png", skipped=True), v2(name="c.png", labels=0)]
    dataset = labelbox(put(tmp_path, rows, "a.png", "b.png", "c.png"))
    assert [e.image.name for e in dataset.examples] == ["a.png"]
    assert [(f.code, f.record, f.message[:6]) for f in dataset.findings] == [("unlabelled-row", "row 2", "2 rows")]


def test_a_label_may_be_text(tmp_path):
    assert labelbox(put(tmp_path, [v1(json.dumps({"objects": [CUP]}))])).counts() == {"cup": 1}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (v2(name="b.png", kind="video"), "'video'"),
        (v2(name="b.png", kind="text"), "'text'"),
        ({"data_row": {}, "projects": {"p": {"labels": [{"annotations": {"frames": {"1": {}}}}]}}}, "a video"),
        (v1({"frames": "https://host/frames/1"}, "b.png"), "a video"),
    ],
)
def test_rows_of_other_things_than_images(tmp_path, row, what):
    dataset = labelbox(put(tmp_path, [v1({"objects": [CUP]}), row], "a.png", "b.png"))
    (finding,) = dataset.findings
    assert (len(dataset), finding.code, finding.record) == (1, "not-an-image", "row 2")
    assert what in finding.message


def test_opinions_of_several_people_in_v1(tmp_path):
    rows = [v1({"objects": [CUP | {"value": name}]}) | {"DataRow ID": "d1"} for name in ("cup", "mug")]
    dataset = labelbox(put(tmp_path, rows))
    assert dataset.counts() == {"cup": 1}
    assert [(f.code, f.record) for f in dataset.findings] == [("several-labels", "row 2")]


@pytest.mark.parametrize("key", ["external_id", "global_key", "id"])
def test_images_are_found_by_any_key_of_a_v2_row(tmp_path, key):
    row = v2({"value": "cup", "bounding_box": BOX}, name="somewhere")
    row["data_row"][key] = "the cup"
    assert labelbox(put(tmp_path, [row], "the cup.jpg")).examples[0].image.name == "the cup.jpg"


def test_global_key_of_v1_and_the_name_before_the_upload(tmp_path):
    prefix = "k%2Fcfae6a3e-b927-814d-2a42-f8b7a9b5d3c4-"
    rows = [v1({"objects": [CUP]}, "x") | {"Global Key": "key 1"}, v1({"objects": [CUP]}, prefix + "cup%201.jpg")]
    dataset = labelbox(put(tmp_path, rows, "key 1.png", "cup 1.jpg"))
    assert [e.image.name for e in dataset.examples] == ["key 1.png", "cup 1.jpg"]


def mask(path, *spots, size=(100, 50), background="black"):
    path.parent.mkdir(exist_ok=True)
    image = Image.new("RGB", size, background)
    for box, colour in spots:
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), colour)
    image.save(path)


@pytest.mark.parametrize(
    ("obj", "file"),
    [
        ({"instanceURI": "https://api.labelbox.com/masks/feature/c1?token=t"}, "c1.png"),
        ({"mask": {"instanceURI": "https://host/m%2Fc%201.png?sig=1/2"}}, "c 1.png"),
        ({"mask": {"url": "https://host/projects/p/annotations/c1/index/1/mask"}}, "c1.png"),
        ({"mask": {"url": "https://host/tasks/t/masks/c1/index/1"}}, "c1.png"),
        ({"mask": {"url": "https://host/mask"}, "feature_id": "c1"}, "c1.PNG"),
        ({"mask": {"url": "https://host/mask"}, "featureId": "c1"}, "c1.png"),
        ({"composite_mask": {"url": "https://host/c1.png", "color_rgb": [0, 200, 0]}}, "c1.png"),
        ({"mask": {"instanceURI": "https://host/c1.png", "colorRGB": [0, 200, 0]}}, "c1.png"),
    ],
)
@pytest.mark.parametrize("version", [v1, v2])
def test_masks_in_local_files(tmp_path, obj, file, version):
    obj = {"value": "cup"} | obj
    put(tmp_path, [version(obj) if version is v2 else v1({"objects": [obj]})])
    many = "colorRGB" in str(obj) or "color_rgb" in str(obj)
    mask(tmp_path / "masks" / file, ((10, 20, 40, 35), (0, 200, 0)), *[((60, 1, 70, 9), "red")] * many)
    dataset = labelbox(tmp_path)
    assert boxes(dataset) == [[[10, 20, 40, 35]]]
    assert dataset.findings == ()


def test_masks_may_be_elsewhere(tmp_path):
    put(tmp_path / "export", [v1({"objects": [{"value": "cup", "instanceURI": "https://host/c1"}]})])
    mask(tmp_path / "drawn/c1.png", ((10, 20, 40, 35), "white"))
    with pytest.raises(DataError, match="1 x broken-mask"):
        labelbox(tmp_path / "export")
    assert boxes(labelbox(tmp_path / "export", masks=tmp_path / "drawn")) == [[[10, 20, 40, 35]]]


def test_an_image_whose_mask_cannot_be_read_is_left_out(tmp_path):
    names = ["missing", "damaged", "white", "empty"]
    cups = [[CUP, {"value": "cup", "instanceURI": f"https://host/{name}"}] for name in names]
    rows = [v1({"objects": objects}, f"{i}.png") for i, objects in enumerate(cups)]
    put(tmp_path, rows, *(f"{i}.png" for i in range(4)))
    mask(tmp_path / "masks/white.png", background="white")
    mask(tmp_path / "masks/empty.png")
    (tmp_path / "masks/damaged.png").write_bytes(b"x")
    dataset = labelbox(tmp_path)
    assert [e.image.name for e in dataset.examples] == ["3.png"]
    assert [(f.code, f.record) for f in dataset.findings] == [
        ("broken-mask", "row 1, object 2"),
        ("broken-mask", "row 2, object 2"),
        ("broken-mask", "row 3, object 2"),
        ("no-box", "row 4, object 2"),
    ]


def test_lines_points_and_the_like_are_named(tmp_path):
    objects = [CUP, {"value": "edge", "line": POLYGON}, {"value": "tip", "point": POLYGON[0]}, {"value": "note"}]
    dataset = labelbox(put(tmp_path, [v1({"objects": objects})]))
    assert [(f.code, f.record, f.message.partition(",")[0]) for f in dataset.findings] == [
        ("no-box", "row 1, object 2", "'edge' is a line"),
        ("no-box", "row 1, object 3", "'tip' is a point"),
        ("no-box", "row 1, object 4", "'note' is of an unknown kind"),
    ]


def test_what_has_no_outline_in_the_2018_dialects_is_named(tmp_path):
    label = {
        "cup": OLD,
        "edge": "LINESTRING (1 2, 3 4)",
        "tip": [{"geometry": {"x": 1, "y": 2}}],
        "segmentationMasksByName": {"cup": "https://host/1"},
        "weather": ["sunny", "warm"],
        "POLYGONAL": "no",
    }
    dataset = labelbox(put(tmp_path, [v1(label)]))
    assert dataset.counts() == {"cup": 2}
    assert [(f.code, f.record, f.message.partition(",")[0]) for f in dataset.findings] == [
        ("no-box", "row 1, object 3", "'edge' is a LINESTRING"),
        ("no-box", "row 1, object 4", "'tip' is a point"),
        ("no-box", "row 1, object 5", "'segmentationMasksByName' is no geometry"),
    ]


def test_resized_images(tmp_path):
    rows = [v2({"value": "cup", "bounding_box": BOX}, size=(200, 100))]
    rows += [v2({"value": "cup", "bounding_box": BOX}, name="b.png", size=(50, 100))]
    dataset = labelbox(put(tmp_path, rows, "a.png", "b.png"))
    assert boxes(dataset) == [[[10, 20, 40, 35]]] * 2
    assert [(f.code, f.record) for f in dataset.findings] == (
        [("resized-image", "row 1"), ("annotated-size", "row 1"), ("annotated-size", "row 2")]
    )
    dataset = labelbox(tmp_path, resized="scale")
    assert boxes(dataset) == [[[5, 10, 20, 17.5]], [[10, 20, 40, 35]]]
    assert [(f.code, f.record) for f in dataset.findings] == [("resized-image", "row 1"), ("annotated-size", "row 2")]


def test_sniffing(tmp_path):
    put(tmp_path, [v1({"objects": [CUP]})])
    assert _sniff(tmp_path) == (True, "Labelbox rows in export.json")
    (tmp_path / "export.json").write_text("{}")
    assert not _sniff(tmp_path / "export.json").fits
    assert "exactly one" in _sniff(tmp_path).why


@needs_data
def test_only_its_own_folders_are_sniffed():
    fitting = [path.name for path in sorted(DATA.iterdir()) if path.is_dir() and _sniff(path).fits]
    assert fitting == ["labelbox_v1_sharks", "labelbox_v2_vehicles"]
    assert all(_sniff(path).fits for path in (DATA / "labelbox_2018_dialects").glob("*.json"))


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
    codes = Counter(f.code for f in dataset.findings)
    assert codes == {"missing-image": 2, "annotated-size": 6, "resized-image": 1}


@needs_data
def test_vehicles_are_in_their_places_once_scaled():
    # Who labelled these drew the boxes into the pictures, so that a box's sides are yellow or green pixels.
    for example in labelbox(DATA / "labelbox_v2_vehicles", resized="scale").examples:
        pixels = read_image(example.image).astype(int)
        for x0, _, x1, y1 in example.objects.boxes:
            strip = pixels[int(y1) - 4 : int(y1) + 5, int(x0) + 4 : int(x1) - 4]
            drawn = (strip[..., :2].max(2) > strip[..., 2] + 60).mean(axis=1)
            assert drawn.max() > 0.6, example.image


@needs_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("labelbox_1", {"Car": 10}),
        ("labelbox_2", {"Car": 4, "Road Sign": 1, "Tree": 2}),
        ("labelbox_xy_1", {"Car": 3, "Person": 1, "Road Sign": 1, "Tree": 2}),
        ("v2_wkt", {"Car": 2, "Tree": 4}),
        ("v3_wkt", {"Car": 10}),
        ("v3_wkt_rectangle", {"Car": 1}),
        ("v3_xy", {"Car": 10}),
    ],
)
def test_real_2018_exports(tmp_path, name, counts):
    path = DATA / f"labelbox_2018_dialects/{name}.json"
    for row in json.loads(path.read_text()):
        Image.new("L", (2600, 1800)).save(tmp_path / row["Labeled Data"].rpartition("/")[2], format="PNG")
    dataset = labelbox(path, images=tmp_path)
    assert dataset.counts() == counts
    assert [f for f in dataset.findings if f.severity == "error"] == []


@needs_data
def test_the_two_ways_of_writing_one_2018_export_agree(tmp_path):
    both = []
    for name in ("v3_wkt", "v3_xy"):
        path = DATA / f"labelbox_2018_dialects/{name}.json"
        for row in json.loads(path.read_text()):
            Image.new("L", (2600, 1800)).save(tmp_path / row["Labeled Data"].rpartition("/")[2], format="PNG")
        both.append(boxes(labelbox(path, images=tmp_path)))
    assert both[0] == both[1]
    # The wheels of the first car, the lowest points of its outline, are where y is least in the export.
    assert both[0][0] == [[368, 1800 - 413, 1196, 1800 - 76]]


@needs_data
def test_skipped_and_empty_rows_of_2018(tmp_path):
    path = DATA / "labelbox_2018_dialects/empty_skipped.json"
    for row in json.loads(path.read_text()):
        Image.new("L", (26, 18)).save(tmp_path / row["Labeled Data"].rpartition("/")[2], format="PNG")
    with pytest.raises(DataError, match=r"no box to learn from.*1 x unlabelled-row, 1 x background-row"):
        labelbox(path, images=tmp_path)

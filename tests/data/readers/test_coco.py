import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlx.data.readers.coco import _sniff, coco
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")

CATEGORIES = [{"id": 7, "name": "cup"}, {"id": 90, "name": "fork"}]


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(path)


def write(root, annotations, images=({"id": 5, "file_name": "a.png"},), name="data.json", categories=CATEGORIES):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    content = {"images": list(images), "annotations": annotations, "categories": categories}
    (root / name).write_text(json.dumps(content))
    for image in images:
        picture(root / "images" / image["file_name"].partition("?")[0].rpartition("/")[2])
    return root / name


def label(bbox=(10, 20, 30, 15), **more):
    return {"id": 1, "image_id": 5, "category_id": 7, "bbox": list(bbox)} | more


def test_boxes_classes_and_gaps(tmp_path):
    annotations = [label(), label((1.5, 2, 3, 4), category_id=90, iscrowd=1)]
    dataset = coco(str(write(tmp_path, annotations)))
    assert dataset.classes == ("cup", "fork")
    assert dataset.examples[0].objects.boxes.tolist() == [[10, 20, 40, 35], [1.5, 2, 4.5, 6]]
    assert dataset.examples[0].objects.labels.tolist() == [0, 1]
    assert dataset.examples[0].objects.ignore.tolist() == [False, True]
    assert dataset.findings == ()


def test_ids_may_be_strings_on_one_side_only(tmp_path):
    images = [{"id": "5", "file_name": "a.png"}]
    assert coco(write(tmp_path, [label(category_id="7")], images)).counts() == {"cup": 1}


def test_images_without_annotations_are_background(tmp_path):
    images = [{"id": 5, "file_name": "a.png"}, {"id": 6, "file_name": "b.png"}]
    assert [len(e.objects.boxes) for e in coco(write(tmp_path, [label()], images)).examples] == [1, 0]


def test_a_url_means_its_last_segment(tmp_path):
    images = [{"id": 5, "file_name": "https://host/o/x%2Fy%2Fpeach%208.png?alt=media&token=1/2"}]
    path = write(tmp_path, [label()], images)
    picture(tmp_path / "images/peach 8.png")
    (tmp_path / "images/x%2Fy%2Fpeach%208.png").unlink()
    assert coco(path).examples[0].image.name == "peach 8.png"


def test_only_classes_with_boxes_are_kept_but_listed_ones_may_be_asked_for(tmp_path):
    path = write(tmp_path, [label()])
    assert coco(path).classes == ("cup",)
    assert coco(path, classes=("fork", "cup")).classes == ("fork", "cup")
    with pytest.raises(DataError, match="did you mean 'fork'"):
        coco(path, classes=("forc",))


@pytest.mark.parametrize("layout", ["images/{}2017", "{}2017", "images"])
def test_a_folder_brings_its_splits(tmp_path, layout):
    for i, split in enumerate(("train", "val", "test")):
        write(tmp_path, [label()], [{"id": 5, "file_name": f"{i}.png"}], f"annotations/instances_{split}2017.json")
        target = tmp_path / layout.format(split) / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"images/{i}.png").rename(target)
    (tmp_path / "annotations/captions_train2017.json").write_text("{}")
    splits = {e.image.stem: e.split for e in coco(tmp_path).examples}
    assert splits == {"0": "train", "1": "validation", "2": "test"}
    assert [e.split for e in coco(tmp_path / "annotations/instances_val2017.json").examples] == ["validation"]


def test_split_folders_with_their_own_json(tmp_path):
    for split in ("train", "valid"):
        write(tmp_path, [label()], [{"id": 5, "file_name": f"{split}.png"}], f"{split}/_annotations.coco.json")
        (tmp_path / f"images/{split}.png").rename(tmp_path / split / f"{split}.png")
    (tmp_path / "images").rmdir()
    assert sorted(e.split for e in coco(tmp_path).examples) == ["train", "validation"]


def test_several_files_that_are_no_splits_are_refused(tmp_path):
    write(tmp_path, [label()], name="one.json")
    write(tmp_path, [label()], name="two.json")
    with pytest.raises(DataError, match=r"one\.json, two\.json"):
        coco(tmp_path)


@pytest.mark.parametrize(
    ("segmentation", "odd"),
    [
        ([[10, 20, 40, 20, 40, 35]], False),
        ([[10, 20, 41.5, 20, 40, 35]], False),
        ([[10, 20, 20, 20, 10, 21], [40, 21, 40, 35, 39, 30]], False),
        ([10, 20, 40, 20, 40, 35], False),
        ([[10, 20, 30, 15]], False),
        ([[]], False),
        ([], False),
        ([[10, 15, 40, 15, 40, 30]], True),
        ([[10, 20, 40, 20, 40, 45]], True),
        ({"size": [50, 100], "counts": [0, 5000]}, True),
    ],
)
def test_a_bbox_is_compared_with_its_segmentation(tmp_path, segmentation, odd):
    findings = coco(write(tmp_path, [label(segmentation=segmentation)])).findings
    assert [(f.code, f.record) for f in findings] == ([("bbox-segmentation", "image 5, annotation 1")] if odd else [])


def test_an_upside_down_bbox_is_found_even_where_it_is_hardly_off(tmp_path):
    images = [{"id": 5, "file_name": "a.png", "height": 50}]
    path = write(tmp_path, [label((10, 15, 30, 21), segmentation=[[10, 14, 40, 14, 40, 35]])], images)
    (finding,) = coco(path).findings
    assert "upside down" in finding.message
    assert "readers.coco.boxes_from = 'segmentation'" in finding.message
    repaired = coco(path, boxes_from="segmentation")
    assert (repaired.examples[0].objects.boxes.tolist(), repaired.findings) == ([[10, 14, 40, 35]], ())


def test_what_one_annotation_lacks_is_located(tmp_path):
    annotations = [label(), label(category_id=8, id=2), label((), id=3), label(image_id=99, id=4), label((1, 2), id=5)]
    findings = coco(write(tmp_path, annotations)).findings
    assert [(f.code, f.severity, f.record) for f in findings] == [
        ("unknown-image", "warning", "image 99"),
        ("broken-annotation", "error", "image 5, annotation 2"),
        ("broken-annotation", "error", "image 5, annotation 3"),
        ("broken-annotation", "error", "image 5, annotation 5"),
    ]
    annotations = [label(segmentation=[[1, 2, 3, 4, 1, 4]]), label(id=2), label(id=0, segmentation={"size": []})]
    findings = coco(write(tmp_path, annotations), boxes_from="segmentation").findings
    assert [f.record for f in findings] == ["image 5, annotation 2", "image 5, annotation 0"]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"bbox": [11', '"bbox": [NaN', "$.bbox[0]"),
        ('"bbox": [11', '"bbox": [-Infinity', "$.bbox[0]"),
        ('"bbox": [11', '"bbox": ["x"', "$.bbox[0]"),
        ('"bbox": [11', '"bbox": [1e999', "$.bbox[0]"),
        ('"image_id": 5, "category_id": 90', '"image_id": null, "category_id": 90', "$.image_id"),
        ('{"id": 2, ', '5, {"id": 2, ', "got `int`"),
    ],
)
def test_a_broken_annotation_costs_only_itself(tmp_path, old, new, where):
    path = write(tmp_path, [label(), label((11, 2, 3, 4), id=2, category_id=90)])
    text = path.read_text()
    head, _, tail = text.rpartition('{"id": 2, ')
    tail = '{"id": 2, ' + tail
    path.write_text(head + tail.replace(old, new, 1))
    dataset = coco(path)
    assert dataset.counts()["cup"] == 1
    (finding,) = [f for f in dataset.findings if f.code == "broken-annotation"]
    assert finding.severity == "error"
    assert finding.record.startswith("annotations[1]")
    assert where in finding.message


def test_numbers_that_no_json_has_do_not_matter_where_nobody_reads_them(tmp_path):
    path = write(tmp_path, [label(area="AREA", note='NaN "Infinity" \\')])
    path.write_text(path.read_text().replace('"AREA"', "NaN"))
    dataset = coco(path)
    assert dataset.counts() == {"cup": 1}
    assert [f.code for f in dataset.findings] == ["not-a-number"]


def test_a_broken_image_or_category_costs_only_itself(tmp_path):
    path = write(tmp_path, [label(), label(image_id=6, id=2), label(category_id=90, id=3)])
    content = json.loads(path.read_text())
    content["images"].append({"id": 6, "file_name": ["b.png"]})
    content["categories"][1]["name"] = None
    path.write_text(json.dumps(content))
    dataset = coco(path)
    assert dataset.counts() == {"cup": 1}
    assert [(f.code, f.record) for f in dataset.findings] == [
        ("broken-annotation", "images[1], id 6"),
        ("broken-annotation", "categories[1], id 90"),
        ("unknown-image", "image 6"),
        ("broken-annotation", "image 5, annotation 3"),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        *("", {}, [[None]], 7, [["x"] * 6]),
        {"size": [50, 100], "counts": [0, 4999]},
        {"size": [10**9, 10**9], "counts": "PP"},
        {"size": [50, 100], "counts": "\u00e9"},
        {"size": [50, 100, 3], "counts": [0, 5000]},
        [[10, 20, 40, 20, 40, 35, 7]],
        [[10, 20, 40, 20, 40, 35], 7],
    ],
)
def test_a_broken_segmentation_costs_no_bbox(tmp_path, broken):
    dataset = coco(write(tmp_path, [label(segmentation=broken)]))
    assert dataset.counts() == {"cup": 1}
    assert [(f.code, f.record) for f in dataset.findings] == [("broken-segmentation", "image 5, annotation 1")]


def test_numbers_as_text_are_numbers(tmp_path):
    images = [{"id": "5", "file_name": "a.png", "width": "100", "height": "50"}]
    path = write(tmp_path, [label(("10", "20", "30", "15"), id=1.0, iscrowd="0", image_id=5.0)], images)
    assert coco(path).examples[0].objects.boxes.tolist() == [[10, 20, 40, 35]]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "truncated"),
        ('{"images": [', "truncated"),
        ("[" * 100_000, "a list of records"),
        ("nonsense", "byte 4"),
        ("7", "got `int`"),
        ("{}", "no 'images', only nothing"),
        ('{"images": [], "annotation": [], "categories": []}', "did you mean 'annotation'"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' is no list"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]', "COCO results"),
        ('[{"Labeled Data": "x"}]', r"readers\.labelbox"),
        ('{"data_row": {}}\n{"data_row": {}}', r"readers\.labelbox"),
        ('{"images": [], "categories": [], "annotations": [{"image_id": 1, "caption": "a cup"}]}', "captions"),
        ('{"images": [], "categories": [], "annotations": [{"image_id": 1, "segments_info": []}]}', "panoptic"),
        ('{"images": [], "categories": [], "annotations": [{"image_id": 1, "category_id": 1}]}', "none of its 1"),
        ("\x00" * 100, "byte 0"),
    ],
)
def test_a_file_that_is_not_coco_says_what_it_is(tmp_path, content, what):
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"data\.json is not a COCO instances file: .*{what}"):
        coco(path)
    assert not _sniff(path).fits or content.startswith('{"images"')


@pytest.mark.parametrize(
    ("name", "on_disk"),
    [
        ("images\\1\\a.png", "a.png"),
        ("/data/upload/3/1f0c2a3b-cup%201.png", "1f0c2a3b-cup%201.png"),
        ("/data/upload/3/1f0c2a3b-cup%201.png", "cup 1.png"),
        ("/data/local-files/?d=some%2Ffolder%2Fcup.png", "cup.png"),
        ("s3://bucket/folder/cup.png", "cup.png"),
        ("cup_png.rf.0123456789abcdef.jpg", "cup_png.rf.0123456789abcdef.jpg"),
        ("./sub/cup.jpeg", "cup.JPG"),
    ],
)
def test_names_as_tools_write_them(tmp_path, name, on_disk):
    path = write(tmp_path, [label()], [{"id": 5, "file_name": "x.png"}])
    path.write_text(path.read_text().replace('"x.png"', json.dumps(name)))
    (tmp_path / "images/x.png").rename(tmp_path / "images" / on_disk)
    assert coco(path).examples[0].image.name == on_disk


def test_lvis_names_images_by_their_address(tmp_path):
    path = write(tmp_path, [label()])
    path.write_text(path.read_text().replace('"file_name": "', '"coco_url": "http://images.cocodataset.org/val2017/'))
    assert coco(path).examples[0].image.name == "a.png"


def test_images_of_one_name_in_several_folders(tmp_path):
    path = write(tmp_path, [label(), label((1, 2, 3, 4), image_id=6, id=2)])
    content = json.loads(path.read_text())
    content["images"] = [{"id": 5, "file_name": "one/a.png"}, {"id": 6, "file_name": "two/a.png"}]
    path.write_text(json.dumps(content))
    (tmp_path / "images/two").mkdir()
    (tmp_path / "images/a.png").rename(tmp_path / "images/two/a.png")
    dataset = coco(path)
    assert [e.objects.boxes.tolist() for e in dataset.examples] == [[[1, 2, 4, 6]]]
    assert [(f.code, f.record) for f in dataset.findings] == [("missing-image", "image 5")]


@pytest.mark.parametrize(("name", "severity"), [("a.png", "warning"), ("b.png", "error")])
def test_two_images_with_one_id(tmp_path, name, severity):
    dataset = coco(write(tmp_path, [label()], [{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": name}]))
    assert [e.image.name for e in dataset.examples] == ["a.png"]
    assert [(f.code, f.severity, f.record) for f in dataset.findings] == [("image-id-twice", severity, "image 5")]


def test_an_id_with_two_names_is_an_error(tmp_path):
    categories = [*CATEGORIES, {"id": 90, "name": "knife"}]
    (finding,) = coco(write(tmp_path, [label()], categories=categories)).findings
    assert (finding.code, finding.severity, finding.record) == ("category-twice", "error", "category 90")


def test_classes_named_by_numbers_and_what_is_marked_ignore(tmp_path):
    categories = [{"id": "x", "name": 0, "supercategory": "none"}]
    annotations = [label(category_id="x"), label((1, 2, 3, 4), category_id="x", id=2, ignore=1)]
    dataset = coco(write(tmp_path, annotations, categories=categories))
    assert dataset.classes == ("0",)
    assert dataset.examples[0].objects.ignore.tolist() == [False, True]


def test_what_has_only_a_segmentation_has_its_bounds(tmp_path):
    mask = {"size": [50, 100], "counts": [10 * 50 + 20, 15, 35, 15, 5000 - 585]}
    annotations = [label(segmentation=[[1, 2, 5, 2, 5, 9]]) | {"bbox": None}, label(segmentation=mask, id=2)]
    del annotations[1]["bbox"]
    dataset = coco(write(tmp_path, annotations))
    assert dataset.examples[0].objects.boxes.tolist() == [[1, 2, 5, 9], [10, 20, 12, 35]]
    assert [(f.code, f.record, f.message[:2]) for f in dataset.findings] == (
        [("bbox-from-segmentation", "image 5, annotation 1", "2 ")]
    )


def test_fractions_of_the_image(tmp_path):
    dataset = coco(write(tmp_path, [label((0.1, 0.2, 0.3, 0.5)), label((0, 0, 1, 1), id=2)]))
    np.testing.assert_allclose(dataset.examples[0].objects.boxes, [[10, 10, 40, 35], [0, 0, 100, 50]], atol=1e-5)
    assert [f.code for f in dataset.findings] == ["boxes-as-fractions"]


def test_the_annotated_size_is_compared(tmp_path):
    images = [{"id": 5, "file_name": "a.png", "width": 50, "height": 100}]
    (finding,) = coco(write(tmp_path, [label()], images)).findings
    assert (finding.code, finding.record) == ("annotated-size", "image 5")


def test_other_json_files_beside_it_do_not_matter(tmp_path):
    write(tmp_path, [label()], name="labels.json")
    (tmp_path / "classes.json").write_text('{"cup": 0}')
    assert len(coco(tmp_path)) == 1
    assert _sniff(tmp_path).fits


def test_bbox_against_segmentation_is_told_of_missing_images_too(tmp_path):
    path = write(tmp_path, [label(segmentation=[[1, 2, 3, 4, 1, 4]])])
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(DataError, match="1 x missing-image, 1 x bbox-segmentation"):
        coco(path)


def test_sniffing_tells_coco_from_other_files(tmp_path):
    path = write(tmp_path, [label()])
    assert _sniff(path).fits
    assert _sniff(tmp_path) == (True, "lists of images, annotations and categories in data.json")
    path.write_text('{"cup": 0}')
    assert _sniff(tmp_path) == (False, "no lists of images, annotations and categories in data.json")
    path.unlink()
    assert "no COCO file" in _sniff(tmp_path).why
    (tmp_path / "data.json").symlink_to("/dev/null")
    assert not _sniff(tmp_path).fits


def test_images_may_be_elsewhere_but_names_do_not_lead_there(tmp_path):
    path = write(tmp_path / "json", [label()], [{"id": 5, "file_name": "../../pictures/a.png"}])
    (tmp_path / "json/images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match="1 x missing-image"):
        coco(path)
    assert len(coco(path, images=tmp_path / "pictures")) == 1


@needs_data
def test_coco_tiny():
    dataset = coco(DATA / "coco_tiny")
    assert Counter(e.split for e in dataset.examples) == {"train": 32, "validation": 6}
    assert sum(len(e.objects.boxes) for e in dataset.examples) == 424
    assert sum(int(e.objects.ignore.sum()) for e in dataset.examples) == 5
    assert sum(not len(e.objects.boxes) for e in dataset.examples) == 2
    assert dataset.findings == ()
    assert _sniff(DATA / "coco_tiny").fits
    assert [path.name for path in sorted(DATA.iterdir()) if path.is_dir() and _sniff(path).fits] == [
        "coco_tiny",
        "labelbox_coco_peaches",
    ]


@needs_data
def test_peaches_are_upside_down_and_repairable(tmp_path):
    source = DATA / "labelbox_coco_peaches"
    path = source / "data/peaches_training_coco.json"
    for i, image in enumerate(json.loads(path.read_text())["images"]):
        name = image["file_name"].rpartition("%2F")[2].partition("?")[0]
        shutil.copy(source / f"images/training_{i}.jpg", tmp_path / name)
    flipped = coco(path, images=tmp_path)
    assert Counter(f.code for f in flipped.findings) == {"bbox-segmentation": 18, "boxes-contradicted": 1}
    assert [f.code for f in flipped.findings if f.severity == "error"] == ["boxes-contradicted"]
    repaired = coco(path, images=tmp_path, boxes_from="segmentation")
    assert repaired.findings == ()
    for wrong, right in zip(flipped.examples, repaired.examples, strict=True):
        turned = wrong.height - wrong.objects.boxes[:, [3, 1]]
        np.testing.assert_allclose(turned, right.objects.boxes[:, [1, 3]], atol=1e-3)

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_tools

from tlx.data.readers.coco import _Mask, _mask_bounds, coco
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
    assert dataset.examples[0].boxes.tolist() == [[10, 20, 40, 35], [1.5, 2, 4.5, 6]]
    assert dataset.examples[0].labels.tolist() == [0, 1]
    assert dataset.examples[0].ignore.tolist() == [False, True]
    assert dataset.findings == ()


def test_ids_may_be_strings_on_one_side_only(tmp_path):
    images = [{"id": "5", "file_name": "a.png"}]
    assert coco(write(tmp_path, [label(category_id="7")], images)).counts() == {"cup": 1}


def test_images_without_annotations_are_background(tmp_path):
    images = [{"id": 5, "file_name": "a.png"}, {"id": 6, "file_name": "b.png"}]
    assert [len(e.boxes) for e in coco(write(tmp_path, [label()], images)).examples] == [1, 0]


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
    assert [e.split for e in coco(tmp_path / "annotations/instances_val2017.json").examples] == [""]


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
        ([[10, 20, 20, 20], [40, 21, 40, 35]], False),
        ([10, 20, 40, 20, 40, 35], False),
        ([], False),
        ([[10, 15, 40, 15, 40, 30]], True),
        ([[10, 20, 40, 20, 40, 45]], True),
        ({"size": [50, 100], "counts": [0, 5000]}, True),
        ({"size": [50, 100], "counts": [0, 4999]}, True),
        ({"size": [10**9, 10**9], "counts": "PP"}, True),
        ({"size": [50, 100], "counts": "\u00e9"}, True),
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
    assert (repaired.examples[0].boxes.tolist(), repaired.findings) == ([[10, 14, 40, 35]], ())


def test_what_one_annotation_lacks_is_located(tmp_path):
    annotations = [label(), label(category_id=8, id=2), label((), id=3), label(image_id=99, id=4)]
    findings = coco(write(tmp_path, annotations)).findings
    assert [(f.code, f.severity, f.record) for f in findings] == [
        ("broken-annotation", "error", "image 5, annotation 2"),
        ("broken-annotation", "error", "image 5, annotation 3"),
        ("unknown-image", "warning", "image 99"),
    ]
    findings = coco(
        write(tmp_path, [label(segmentation=[[1, 2, 3, 4]]), label(id=2)]), boxes_from="segmentation"
    ).findings
    assert [f.record for f in findings] == ["image 5, annotation 2"]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"bbox": [10', '"bbox": [NaN', "byte"),
        ('"bbox": [10', '"bbox": ["x"', r"\$\.annotations\[0\]\.bbox\[0\]"),
        ('"bbox": [10', '"bbox": [1e999', "range"),
        ('"image_id": 5', '"image_id": null', r"\$\.annotations\[0\]\.image_id"),
        ('"annotations"', '"annotation"', "annotations"),
        ('{"images"', "[" * 100_000, "data.json"),
    ],
)
def test_a_file_that_is_not_coco_says_where(tmp_path, old, new, where):
    path = write(tmp_path, [label()])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"data\.json is not a COCO instances file.*{where}|{where}.*is not"):
        coco(path)


def test_images_may_be_elsewhere_but_names_do_not_lead_there(tmp_path):
    path = write(tmp_path / "json", [label()], [{"id": 5, "file_name": "../../pictures/a.png"}])
    (tmp_path / "json/images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match="1 x missing-image"):
        coco(path)
    assert len(coco(path, images=tmp_path / "pictures")) == 1


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_mask_bounds_agree_with_the_pixels(height, width, data):
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.asfortranarray(np.array(pixels, np.uint8).reshape(height, width))
    packed = mask_tools.encode(mask)
    ys, xs = np.nonzero(mask)
    expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else None
    assert _mask_bounds(_Mask(packed["counts"].decode(), [height, width])) == expected


@needs_data
def test_coco_tiny():
    dataset = coco(DATA / "coco_tiny")
    assert Counter(e.split for e in dataset.examples) == {"train": 32, "validation": 6}
    assert sum(len(e.boxes) for e in dataset.examples) == 424
    assert sum(int(e.ignore.sum()) for e in dataset.examples) == 5
    assert sum(not len(e.boxes) for e in dataset.examples) == 2
    assert dataset.findings == ()


@needs_data
def test_peaches_are_upside_down_and_repairable(tmp_path):
    source = DATA / "labelbox_coco_peaches"
    path = source / "data/peaches_training_coco.json"
    for i, image in enumerate(json.loads(path.read_text())["images"]):
        name = image["file_name"].rpartition("%2F")[2].partition("?")[0]
        shutil.copy(source / f"images/training_{i}.jpg", tmp_path / name)
    flipped = coco(path, images=tmp_path)
    assert Counter(f.code for f in flipped.findings) == {"bbox-segmentation": 18}
    repaired = coco(path, images=tmp_path, boxes_from="segmentation")
    assert repaired.findings == ()
    for wrong, right in zip(flipped.examples, repaired.examples, strict=True):
        turned = wrong.height - wrong.boxes[:, [3, 1]]
        np.testing.assert_allclose(turned, right.boxes[:, [1, 3]], atol=1e-3)

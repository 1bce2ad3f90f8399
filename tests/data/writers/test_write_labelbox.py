import json

import numpy as np
from PIL import Image

from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place
from tlx.data.readers.labelbox import labelbox as read
from tlx.data.targets import Boxes
from tlx.data.writers.labelbox import FILE, labelbox


def write(folder):
    Image.new("RGB", (64, 48)).save(folder / "50%25 off#1.png")
    boxes, labels = np.array([(0, 2, 10.5, 40), (1, 1, 9, 9)], np.float32), np.array([1, 0], np.int32)
    truth = Boxes(boxes, labels, np.array([False, True]))
    (folder / "out").mkdir()
    example = Example(folder / "50%25 off#1.png", 64, 48, truth, record="a.xml", split="test")
    return labelbox(Dataset("made", ("cat", "dog"), (example,)), folder / "out", Place())


def test_a_row_has_what_an_export_has(tmp_path):
    write(tmp_path)
    (row,) = map(json.loads, (tmp_path / "out" / FILE).read_text().splitlines())
    assert row["data_row"]["external_id"] == "50%25 off#1.png"
    assert (row["media_attributes"]["width"], row["media_attributes"]["height"]) == (64, 48)
    (project,) = row["projects"].values()
    (thing,) = project["labels"][0]["annotations"]["objects"]
    assert (thing["value"], thing["annotation_kind"]) == ("dog", "ImageBoundingBox")
    assert thing["bounding_box"] == {"top": 2, "left": 0, "height": 38, "width": 10.5}


def test_ignored_boxes_and_splits_are_named(tmp_path):
    split, ignored = write(tmp_path)
    assert "1 images of a declared split" in split.message
    assert "1 ignored boxes; left out" in ignored.message
    assert (ignored.file, ignored.record) == ("a.xml", "box (1, 1, 9, 9)")


def test_an_awkward_file_name_is_found_again(tmp_path):
    write(tmp_path)
    assert read(tmp_path / "out").examples[0].image.name == "50%25 off#1.png"

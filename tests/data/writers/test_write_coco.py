import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.data.writers.coco import coco


def write(folder, splits):
    examples = []
    for number, split in enumerate(splits):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(folder / f"{number}.png")
        boxes = np.array([(0, 2, 10.5, 40), (1, 1, 9, 9), (2, 2, 8, 8)], np.float32)
        truth = Boxes(boxes, np.array([1, 0, ANY_CLASS], np.int32), np.array([False, True, True]))
        examples.append(Example(folder / f"{number}.png", 64, 48, truth, f"{number}.xml", "", split))
    (folder / "coco").mkdir()
    return coco(Dataset("made", ("cat", "ünï"), tuple(examples)), folder / "coco", Place())


def content(folder):
    return {path.name: json.loads(path.read_bytes()) for path in (folder / "coco/annotations").iterdir()}


def test_ids_count_from_one_and_ignored_boxes_are_crowds(tmp_path):
    (finding,) = write(tmp_path, ["", ""])
    assert finding.message.startswith("COCO cannot hold 2 ignore regions of no class")
    one = content(tmp_path)["instances.json"]
    assert [image["id"] for image in one["images"]] == [1, 2]
    assert one["images"][0] | {"id": 0} == {"id": 0, "file_name": "0.png", "width": 64, "height": 48}
    assert [a["id"] for a in one["annotations"]] == [1, 2, 3, 4]
    assert [a["iscrowd"] for a in one["annotations"]] == [0, 1, 0, 1]
    assert one["annotations"][0]["bbox"] == [0, 2, 10.5, 38]
    assert one["annotations"][0]["area"] == 10.5 * 38
    assert {c["id"]: c["name"] for c in one["categories"]} == {1: "cat", 2: "ünï"}
    assert one["annotations"][0]["category_id"] == 2


def test_the_reference_implementation_reads_it(tmp_path):
    write(tmp_path, [""])
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(tmp_path / "coco/annotations/instances.json")
    assert len(api.getAnnIds(iscrowd=0)) == 1
    assert len(api.getAnnIds(iscrowd=1)) == 1


@pytest.mark.parametrize(
    ("splits", "files"),
    [
        (["train", "validation", "train"], {"instances_train.json": 2, "instances_val.json": 1}),
        (["train", "", "test"], {"instances_train.json": 1, "instances.json": 1, "instances_test.json": 1}),
        (["test", "test"], {"instances_test.json": 2}),
        (["", ""], {"instances.json": 2}),
    ],
)
def test_there_is_a_file_for_each_split(tmp_path, splits, files):
    write(tmp_path, splits)
    written = content(tmp_path)
    assert {name: len(part["images"]) for name, part in written.items()} == files
    ids = [a["id"] for part in written.values() for a in part["annotations"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))

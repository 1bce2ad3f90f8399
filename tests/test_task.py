"""Data for classification and data for detection do not get mixed up."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tlx.data.dataset import Dataset, Example
from tlx.data.splits.policies import Splits, given
from tlx.data.targets import UNLABELLED, Boxes, ImageClass
from tlx.errors import DataError
from tlx.models.heads.fcos import Fcos
from tlx.run import Run


def dataset(task, folder, boxes=1):
    table = np.array([(0, 0, 9 + i, 9) for i in range(boxes)], np.float32).reshape(-1, 4)
    truth = Boxes(table, np.zeros(boxes, np.int32), np.zeros(boxes, np.bool_))
    targets = ImageClass(0) if task == "classification" else truth
    return Dataset("pets", ("cat",), (Example(folder / "1.png", 40, 30, targets, "1.xml"),), task=task)


def experiment(data):
    other = SimpleNamespace()
    return Run(Splits(data, data, None), other, Fcos(), other, other, other)


def test_a_detector_head_refuses_data_without_boxes(tmp_path):
    with pytest.raises(DataError, match=r"pets is labelled for classification.*Fcos.*run\.data"):
        experiment(dataset("classification", tmp_path))
    assert experiment(dataset("detection", tmp_path)).head.task == "detection"


def test_a_subset_keeps_the_task(tmp_path):
    assert dataset("classification", tmp_path).subset([0], "part").task == "classification"
    assert dataset("detection", tmp_path).of_whole_images().subset([0], "part").task == "classification"


@pytest.mark.parametrize("boxes", [0, 2])
def test_an_image_has_one_class(tmp_path, boxes):
    data = dataset("detection", tmp_path, boxes)
    with pytest.raises(DataError, match=r"1\.xml: is labelled for detection, not for classification"):
        replace(data, task="classification")
    if boxes:
        with pytest.raises(DataError, match=rf"1\.xml: has {boxes} boxes where a classified image has one"):
            data.of_whole_images()
    else:
        assert len(data.of_whole_images()) == 0


def test_boxes_are_not_labelled_by_a_class(tmp_path):
    with pytest.raises(DataError, match=r"1\.xml: is labelled for classification, not for detection"):
        replace(dataset("classification", tmp_path), task="detection")


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_an_unlabelled_picture_fits_any_task(tmp_path, task):
    data = Dataset("pets", (), (Example(tmp_path / "1.png", 40, 30, UNLABELLED),), task=task)
    assert (data.counts(), len(data.examples[0].objects)) == ({}, 0)


def test_parts_are_for_one_task(tmp_path):
    with pytest.raises(DataError, match="classification"):
        given(dataset("detection", tmp_path), dataset("classification", tmp_path))

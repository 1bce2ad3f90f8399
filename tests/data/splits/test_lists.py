"""Split lists given back: those of a run, and those that people write."""

import json

import numpy as np
import pytest
from PIL import Image

from tlx.data.dataset import Dataset, Example
from tlx.data.splits import policies as split
from tlx.data.targets import Boxes
from tlx.errors import DataError


def dataset(folder, names):
    examples = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
        truth = Boxes(np.float32([[1, 2, 9, 8]]), np.array([0], np.int32), np.array([False]))
        examples.append(Example(path, 16, 12, truth, name))
    return Dataset("made", ("cat",), tuple(examples))


@pytest.fixture
def data(tmp_path):
    return dataset(tmp_path / "data", ["a.png", "deep/a.png", "b.jpg", "c.PNG", "d.png", "e.png"])


def written(folder, **lists):
    folder.mkdir(exist_ok=True)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("given", ["folder", "file"])
def test_the_lists_of_a_run_give_its_parts_back(tmp_path, data, given):
    before = split.ratio(data, seed=3)
    (tmp_path / "run").mkdir()
    file = tmp_path / "run/data.json"
    file.write_text(json.dumps({"fingerprint": "x", "classes": ["cat"], "splits": before.lists(), "findings": []}))
    after = split.lists(data, file if given == "file" else file.parent)
    assert after.lists() == before.lists()
    assert after.fingerprint() == before.fingerprint()
    assert after.findings == ()


def test_text_files_may_name_images_as_people_do(tmp_path, data):
    lists = {
        "train": ["./deep/a.png", "", str(tmp_path / "data/b.jpg"), "data/d.png"],
        "val": ["\ufeffa.png", "c"],
        "test": ["deep\\..\\e.png", "e"][1:],
    }
    parts = split.lists(data, written(tmp_path / "lists", **lists))
    assert parts.lists() == {
        "train": ["deep/a.png", "b.jpg", "d.png"],
        "validation": ["a.png", "c.PNG"],
        "test": ["e.png"],
    }


def test_images_in_no_list_are_counted(tmp_path, data):
    parts = split.lists(data, written(tmp_path / "lists", train=["b", "b"], validation=["d"]))
    assert parts.test is None
    assert len(parts.train) == 1
    assert [(f.code, f.severity) for f in parts.findings] == [("in-no-split", "warning"), ("listed-twice", "warning")]
    assert parts.findings[0].message.startswith("4 of 6 images are in no part")


def test_one_image_in_two_lists_is_leakage_unless_it_is_meant(tmp_path, data):
    folder = written(tmp_path / "lists", train=["b", "d"], validation=["c"], test=["d"])
    with pytest.raises(DataError, match=r"d\.png \(test\) .*allow_leakage = True"):
        split.lists(data, folder)
    assert split.lists(data, folder, allow_leakage=True).lists()["test"] == ["d.png"]


WRONG = {
    "an unknown image": (
        {"train": ["b", "deap/a.png"], "val": ["c"]},
        r"train\.txt names 'deap/a\.png'.*'deep/a\.png'",
    ),
    "an image of two": ({"train": ["b"], "val": ["c"], "test": ["a"]}, r"test\.txt names 'a', which several images"),
    "no validation": ({"train": ["b"], "test": ["c"]}, "lists no validation images"),
    "an empty list": ({"train": ["b"], "val": [""]}, "lists no validation images"),
    "nothing": ({}, "lists no train and no validation images; name a run folder"),
    "two lists for one part": ({"train": ["b"], "val": ["c"], "valid": ["d"]}, r"val\.txt and .*valid\.txt both list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_lists_that_cannot_be_meant_are_refused(tmp_path, data, case):
    lists, message = WRONG[case]
    if case == "an image of two":
        data = dataset(tmp_path / "data", ["x/a.png", "y/a.png", "b.jpg", "c.PNG"])
    with pytest.raises(DataError, match=message):
        split.lists(data, written(tmp_path / "lists", **lists))


@pytest.mark.parametrize("content", ["", "[]", '{"splits": 3}', '{"splits": {"train": [1]}}', "[" * 100_000, "\xff"])
def test_a_broken_run_file_is_one_error_that_names_it(tmp_path, data, content):
    (tmp_path / "data.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"data\.json"):
        split.lists(data, tmp_path)

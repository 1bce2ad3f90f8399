import numpy as np
import pytest
from PIL import Image

from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place
from tlx.data.readers.folder import folder as read
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.data.writers.folder import folder as write

CLASSES = ("cat", "dog")
WHOLE = ((0, 0, 40, 30),)


@pytest.fixture
def example(tmp_path):
    def example(name, labels, boxes=None, ignore=None, split=""):
        path = tmp_path / "source" / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), (len(list(path.parent.iterdir())), 9, 9)).save(path)
        boxes = np.array(boxes or [(0, 0, 9 + i, 9) for i in range(len(labels))], np.float32).reshape(-1, 4)
        flags = np.array(ignore or [False] * len(labels), np.bool_)
        return Example(path, 40, 30, Boxes(boxes, np.array(labels, np.int32), flags), split=split)

    return example


@pytest.fixture
def written(tmp_path):
    """Return a function that writes examples; it returns the tree, the findings and what was reported."""

    def written(examples, classes=CLASSES, whole=False):
        target, done = tmp_path / "target", []
        target.mkdir()
        boxes = Dataset("made", classes, tuple(examples))
        dataset = boxes.of_whole_images() if whole else boxes
        found = write(dataset, target, Place(True, len(examples), lambda *at: done.append(at)))
        assert done == [(i, len(examples)) for i in range(1, len(examples) + 1)]
        return {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}, found

    return written


@pytest.mark.parametrize("splits", [("", "", ""), ("train", "validation", "test"), ("train", "", "test")])
def test_the_reader_returns_what_was_written(tmp_path, example, written, splits):
    examples = [example(f"{i}.png", [i % 2], WHOLE, split=split) for i, split in enumerate(splits)]
    assert written(examples, whole=True)[1] == []
    back = read(tmp_path / "target")
    assert (back.task, back.classes, back.findings) == ("classification", CLASSES, ())
    assert {e.image.name: (e.split, int(e.objects.labels[0])) for e in back.examples} == {
        f"{i}.png": (split, i % 2) for i, split in enumerate(splits)
    }
    assert all(e.image.read_bytes() == (tmp_path / "source" / e.image.name).read_bytes() for e in back.examples)


def test_classes_called_like_splits_stay_classes(tmp_path, example, written):
    tree, _ = written([example("1.png", [0], WHOLE), example("2.png", [1], WHOLE)], ("test", "train"), whole=True)
    assert tree == {"unsplit/test/1.png", "unsplit/train/2.png"}
    assert read(tmp_path / "target").counts() == {"test": 1, "train": 1}


def test_an_image_with_boxes_goes_to_the_class_of_all_that_count(example, written):
    examples = [
        example("one.png", [0, 0]),
        example("ignored.png", [1, 0, ANY_CLASS], ignore=[False, True, True]),
        example("both.png", [0, 1]),
        example("none.png", []),
        example("uncounted.png", [0], ignore=[True]),
    ]
    tree, found = written(examples)
    assert tree == {"cat/one.png", "dog/ignored.png"}
    assert {finding.code for finding in found} == {"cannot-hold"}
    told = " ".join(finding.message for finding in found)
    assert "1 images with boxes of several classes; left out" in told
    assert "2 images with no box that counts; left out" in told
    assert "8 boxes; left out" in told


def test_class_names_become_names_of_folders(tmp_path, example, written):
    classes = ("../up", ".hidden", "a/b", "a_b", "c\0\n", "x" * 300, "__MACOSX")
    examples = [example(f"{i}.png", [i], WHOLE) for i in range(len(classes))]
    tree, (finding,) = written(examples, classes, whole=True)
    assert len({path.split("/")[0] for path in tree}) == len(classes)
    assert not any(part.startswith(".") for path in tree for part in path.split("/"))
    assert "a_b/3.png" in tree
    assert "'a/b' as 'a_b_2'" in finding.message
    assert len(read(tmp_path / "target").classes) == len(classes)

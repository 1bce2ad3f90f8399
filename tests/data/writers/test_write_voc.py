import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.data.dataset import ANY_CLASS, Dataset, Example
from tlx.data.readers.voc import voc
from tlx.data.writers.voc import write_voc
from tlx.errors import DataError

CLASSES = ("R2-D2 & <friends>", "chat noir", "ünïcode")


def example(image, boxes=((1, 2, 30, 40),), labels=None, ignore=None, split=""):
    n = len(boxes)
    return Example(
        image=image,
        width=64,
        height=48,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels if labels is not None else [0] * n, np.int32),
        ignore=np.array(ignore if ignore is not None else [False] * n, np.bool_),
        split=split,
    )


def picture(folder, name, level=0):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (level % 256, level // 256, 9)).save(folder / name)
    return folder / name


def side(size):
    """Two ends more than a pixel apart, whole or not."""
    whole = st.integers(0, size - 2).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 2, size)))
    low = st.floats(0, size - 2, width=32)
    split = low.flatmap(lambda low: st.tuples(st.just(low), st.floats(float(np.float32(low + 1.0625)), size, width=32)))
    return st.one_of(whole, split.map(lambda ends: (np.float32(ends[0]), np.float32(ends[1]))))


objects = st.tuples(side(64), side(48), st.integers(0, 2), st.booleans())
pictures = st.lists(
    st.tuples(
        st.lists(objects, min_size=1, max_size=4, unique_by=lambda thing: thing[:3]),
        st.sampled_from(["train", "validation", "test", ""]),
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=50)
@given(pictures)
def test_the_reader_returns_what_was_written(drawn):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # The reader refuses data without any box that counts.
        examples = [example(picture(folder / "source", "anchor.png", 99))]
        for number, (things, split) in enumerate(drawn):
            boxes = [(x[0], y[0], x[1], y[1]) for x, y, _, _ in things]
            image = picture(folder / "source", f"é {number}.png", number)
            labels, ignore = [thing[2] for thing in things], [thing[3] for thing in things]
            examples.append(example(image, boxes, labels, ignore, split))
        write_voc(Dataset("made", CLASSES, tuple(examples)), folder / "voc")
        back = voc(folder / "voc")
        assert len(back) == len(examples)
        for before, after in zip(examples, back.examples, strict=True):
            assert after.image.read_bytes() == before.image.read_bytes()
            assert after.image.name == before.image.name
            assert (after.width, after.height, after.split) == (64, 48, before.split)
            assert np.abs(after.boxes - before.boxes).max() < 1e-3
            assert [back.classes[i] for i in after.labels] == [CLASSES[i] for i in before.labels]
            assert after.ignore.tolist() == before.ignore.tolist()


def test_coordinates_count_from_one_and_whole_ones_have_no_decimals(tmp_path):
    image = picture(tmp_path, "a.png")
    write_voc(Dataset("made", CLASSES, (example(image, [(0, 2, 10.5, 40)]),)), tmp_path / "voc")
    text = (tmp_path / "voc/Annotations/a.xml").read_text()
    assert "<xmin>1</xmin><ymin>3</ymin><xmax>10.5</xmax><ymax>40</ymax>" in text


def test_an_image_without_boxes_stays(tmp_path):
    labelled, empty = picture(tmp_path, "a.png"), picture(tmp_path, "b.png", 1)
    write_voc(Dataset("made", CLASSES, (example(labelled), example(empty, []))), tmp_path / "voc")
    assert [len(e.boxes) for e in voc(tmp_path / "voc").examples] == [1, 0]


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_nothing_is_overwritten(tmp_path, taken):
    target = tmp_path / "voc"
    if taken == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="nothing is overwritten"):
        write_voc(Dataset("made", CLASSES, (example(picture(tmp_path, "a.png")),)), target)
    assert (target if taken == "file" else target / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "voc").mkdir()
    write_voc(Dataset("made", CLASSES, (example(picture(tmp_path, "a.png")),)), tmp_path / "voc")
    assert len(voc(tmp_path / "voc")) == 1


def refused(tmp_path):
    good = example(picture(tmp_path / "x", "a.png"))
    yield "the same VOC name 'a'", (good, example(picture(tmp_path / "y", "a.jpg")))
    yield (
        "no ignore region without a class",
        (replace(good, labels=np.array([ANY_CLASS], np.int32), ignore=np.array([True])),),
    )
    yield "at most one pixel", (example(good.image, [(5, 5, 6, 20)]),)


def test_what_voc_cannot_say_is_refused_and_leaves_nothing(tmp_path):
    for message, examples in refused(tmp_path):
        with pytest.raises(DataError, match=message):
            write_voc(Dataset("made", CLASSES, examples), tmp_path / "voc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]

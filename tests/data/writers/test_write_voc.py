import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place
from tlx.data.readers.voc import voc as read
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.data.writers.voc import voc

CLASSES = ("R2-D2 & <friends>", "chat noir")


def dataset(folder, boxes, labels=None, ignore=None, classes=CLASSES, split=""):
    Image.new("RGB", (64, 48), (9, 9, 9)).save(folder / "a.png")
    n = len(boxes)
    one = Example(
        image=folder / "a.png",
        width=64,
        height=48,
        targets=Boxes(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([0] * n if labels is None else labels, np.int32),
            ignore=np.array([False] * n if ignore is None else ignore, np.bool_),
        ),
        record="labels.json (image 7)",
        split=split,
    )
    return Dataset("made", classes, (one,))


def write(folder, *arguments, **options):
    (folder / "voc").mkdir()
    return voc(dataset(folder, *arguments, **options), folder / "voc", Place())


def test_coordinates_count_from_one_and_whole_ones_have_no_decimals(tmp_path):
    assert write(tmp_path, [(0, 2, 10.5, 40)], split="validation") == []
    text = (tmp_path / "voc/Annotations/a.xml").read_text()
    assert "<filename>a.png</filename>" in text
    assert "<size><width>64</width><height>48</height><depth>3</depth></size>" in text
    assert "<xmin>1</xmin><ymin>3</ymin><xmax>10.5</xmax><ymax>40</ymax>" in text
    assert (tmp_path / "voc/ImageSets/Main/val.txt").read_text() == "a\n"
    assert [path.name for path in (tmp_path / "voc/ImageSets/Main").iterdir()] == ["val.txt"]


@settings(max_examples=50)
@given(st.floats(0, 62, width=32), st.sampled_from([1.0, 1.0009, 1.5, 2.0]))
def test_a_box_of_a_pixel_or_little_more_is_kept(low, size):
    box = np.float32([low, 3, low + size, 3 + size])
    with tempfile.TemporaryDirectory() as folder:
        assert write(Path(folder), [box]) == []
        assert np.abs(read(Path(folder) / "voc").examples[0].objects.boxes - box).max() <= 1e-3


def test_a_box_of_less_than_a_pixel_becomes_one_pixel_and_is_named(tmp_path):
    (finding,) = write(tmp_path, [(0, 0, 0.25, 8), (9, 9, 20, 9.5)])
    assert (finding.code, finding.severity, finding.file) == ("cannot-hold", "warning", "labels.json (image 7)")
    assert finding.record == "box (0, 0, 0.25, 8)"
    assert "2 boxes of less than one pixel" in finding.message
    # The first would begin left of the image, whose edge it keeps to.
    boxes = read(tmp_path / "voc").examples[0].objects.boxes
    np.testing.assert_allclose(boxes, [(0, 0, 0.25, 8), (9, 8.5, 20, 9.5)], atol=1e-3)


def test_an_ignore_region_of_no_class_is_left_out_and_named(tmp_path):
    (finding,) = write(tmp_path, [(1, 1, 9, 9), (2, 2, 8, 8)], [0, ANY_CLASS], [True, True])
    assert "VOC cannot hold 1 ignore regions of no class" in finding.message
    difficult = ElementTree.parse(tmp_path / "voc/Annotations/a.xml").findall("object/difficult")
    assert [element.text for element in difficult] == ["1"]


def test_a_name_that_xml_cannot_write_is_changed_and_told(tmp_path):
    (finding,) = write(tmp_path, [(1, 1, 9, 9), (2, 2, 8, 8)], [0, 1], classes=("a\0", "a_"))
    assert "'a\\x00' as 'a__2'" in finding.message
    assert read(tmp_path / "voc").classes == ("a_", "a__2")

import numpy as np
from PIL import Image

from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place
from tlx.data.readers.kitti import kitti as read
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.data.writers.kitti import kitti

BOXES = ((0, 2, 10.5, 40), (1, 1, 9, 9), (2, 2, 8, 8), (5, 5, 50.0625, 20))
CLASSES = ("traffic light", "traffic_light", "DontCare")


def write(folder, split=""):
    Image.new("RGB", (64, 48)).save(folder / "a.jpg")
    (folder / "kitti").mkdir()
    labels, ignore = np.array([0, 1, ANY_CLASS, 2], np.int32), np.array([False, True, True, False])
    truth = Boxes(np.array(BOXES, np.float32), labels, ignore)
    one = Example(folder / "a.jpg", 64, 48, truth, "x (line 3)", "", split)
    return kitti(Dataset("made", CLASSES, (one,)), folder / "kitti", Place())


def test_a_line_has_the_columns_of_kitti(tmp_path):
    write(tmp_path, "test")
    lines = [line.split() for line in (tmp_path / "kitti/label_2/a.txt").read_text().splitlines()]
    assert {len(columns) for columns in lines} == {15}
    assert [columns[0] for columns in lines] == ["traffic_light_2", "DontCare", "DontCare", "DontCare_"]
    assert [columns[1:4] for columns in lines[:2]] == [["0.00", "0", "-10"], ["-1", "-1", "-10"]]
    assert lines[0][4:8] == ["0", "2", "10.5", "40"]
    assert lines[0][8:] == ["-1", "-1", "-1", "-1000", "-1000", "-1000", "-10"]
    assert (tmp_path / "kitti/image_2/a.jpg").samefile(tmp_path / "a.jpg")
    assert (tmp_path / "kitti/ImageSets/test.txt").read_text() == "a\n"


def test_what_changes_is_named(tmp_path):
    names, ignored = write(tmp_path)
    assert "'traffic light' as 'traffic_light_2', 'DontCare' as 'DontCare_'" in names.message
    assert ignored.message == "KITTI cannot hold 1 ignored boxes of a class; written as DontCare, without their class"
    assert (ignored.file, ignored.record) == ("x (line 3)", "box (1, 1, 9, 9)")


def test_the_reader_ignores_what_was_ignored(tmp_path):
    write(tmp_path, "test")
    back = read(tmp_path / "kitti")
    assert back.classes == ("DontCare_", "traffic_light_2")
    assert back.examples[0].objects.labels.tolist() == [1, ANY_CLASS, ANY_CLASS, 0]
    assert back.examples[0].objects.ignore.tolist() == [False, True, True, False]
    assert back.examples[0].split == "test"

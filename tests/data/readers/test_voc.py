from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.readers.voc import voc
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")


def xml(*objects, filename="", extra=""):
    body = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
        f"<ymax>{box[3]}</ymax></bndbox></object>"
        for name, box, *rest in objects
        for more in (rest or [""])
    )
    return f"<annotation><filename>{filename}</filename><path>/etc/passwd</path>{extra}{body}</annotation>"


def put(path, content=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        Image.new("RGB", (100, 50)).save(path, format="PNG")
    else:
        path.write_text(content)
    return path


CUP = ("cup", (11, 21, 30, 40))


@pytest.mark.parametrize("annotations", ["Annotations", "annotations", "annotations/xmls", "images", "."])
@pytest.mark.parametrize("images", ["JPEGImages", "images", "."])
def test_layouts(tmp_path, annotations, images):
    put(tmp_path / annotations / "a.xml", xml(CUP))
    put(tmp_path / images / "a.JPG")
    (example,) = voc(tmp_path).examples
    assert example.boxes.tolist() == [[10, 20, 30, 40]]
    assert example.image == tmp_path / images / "a.JPG"
    assert example.record == (Path(annotations) / "a.xml").as_posix()


def test_pixels_count_from_one_and_include_the_last(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "a.xml", xml(("cup", (1, 1, 100, 50)), ("cup", (1.5, 2.25, 30.75, 40)), ("cup", (0, 0, 9, 9))))
    dataset = voc(str(tmp_path))
    assert dataset.examples[0].boxes.tolist() == [[0, 0, 100, 50], [0.5, 1.25, 30.75, 40], [0, 0, 9, 9]]
    assert dataset.findings == ()


def test_equal_corners_are_no_box(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "a.xml", xml(CUP, ("cup", (5, 5, 5, 5)), ("cup", (9, 5, 8, 9))))
    assert [(f.code, f.record) for f in voc(tmp_path).findings] == (
        [("zero-area-box", "object 2"), ("inverted-box", "object 3")]
    )


def test_difficult_is_ignored_and_parts_are_left_out(tmp_path):
    put(tmp_path / "a.png")
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    put(tmp_path / "a.xml", xml(("man", (1, 1, 9, 9), part), ("man", (2, 2, 9, 9), "<difficult>1</difficult>")))
    dataset = voc(tmp_path)
    assert dataset.classes == ("man",)
    assert dataset.examples[0].boxes.tolist() == [[0, 0, 9, 9], [1, 1, 9, 9]]
    assert dataset.examples[0].ignore.tolist() == [False, True]


def test_the_own_name_comes_before_the_filename_and_paths_are_not_followed(tmp_path):
    put(tmp_path / "secret.png")
    for name in ("a.png", "b.png", "other.png"):
        put(tmp_path / "data" / name)
    put(tmp_path / "data/a.xml", xml(CUP, filename="b.png"))
    put(tmp_path / "data/renamed.xml", xml(CUP, filename="other.jpg"))
    put(tmp_path / "data/c.xml", xml(CUP, filename="../secret.png"))
    dataset = voc(tmp_path / "data")
    assert [e.image.name for e in dataset.examples] == ["a.png", "other.png"]
    assert Counter(f.code for f in dataset.findings) == {"missing-image": 1, "unlabelled-image": 1}


def test_image_sets_become_splits(tmp_path):
    for name in "abcde":
        put(tmp_path / f"Annotations/{name}.xml", xml(CUP))
        put(tmp_path / f"JPEGImages/{name}.png")
    sets = {"train": "a\n", "val": "b\n", "test": "c\n", "trainval": "a\nb\nd\n", "cup_train": "e 1\n"}
    for name, lines in sets.items():
        put(tmp_path / f"ImageSets/Main/{name}.txt", lines)
    dataset = voc(tmp_path)
    assert [e.split for e in dataset.examples] == ["train", "validation", "test", "train", ""]
    assert dataset.findings == ()


def test_an_image_in_two_lists_is_not_trained_on(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "a.xml", xml(CUP))
    put(tmp_path / "ImageSets/Main/train.txt", "a\nghost\n")
    put(tmp_path / "ImageSets/Main/test.txt", "a\n")
    dataset = voc(tmp_path)
    assert dataset.examples[0].split == "test"
    assert [(f.code, f.record) for f in dataset.findings] == [("in-two-splits", "a"), ("no-annotation", "ghost")]


def test_split_folders_become_splits(tmp_path):
    for folder in ("train", "valid", "test"):
        put(tmp_path / folder / "a.xml", xml(CUP))
        put(tmp_path / folder / "a.png")
    assert sorted(e.split for e in voc(tmp_path).examples) == ["test", "train", "validation"]


def test_unlabelled_images(tmp_path):
    put(tmp_path / "a.xml", xml(CUP))
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    assert len(voc(tmp_path)) == 1
    assert len(voc(tmp_path, unlabelled="background")) == 2
    with pytest.raises(DataError, match=r"b\.png"):
        voc(tmp_path, unlabelled="error")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<annotation>",
        "<html></html>",
        '<!DOCTYPE a [<!ENTITY x "y">]><annotation><object><name>&x;</name></object></annotation>',
        '<?xml version="1.0" encoding="nonsense"?><annotation/>',
        "<annotation><object><name>cup</name></object></annotation>",
        xml(("cup", (1, 2, "three", 4))),
        xml(("cup", (1, 2, "", 4))),
    ],
)
def test_a_broken_annotation_is_one_located_error(tmp_path, content):
    for name in "ab":
        put(tmp_path / f"{name}.png")
    put(tmp_path / "a.xml", xml(CUP))
    put(tmp_path / "b.xml", content)
    dataset = voc(tmp_path)
    assert [e.image.name for e in dataset.examples] == ["a.png"]
    assert [(f.code, f.severity, f.file) for f in dataset.findings] == [("broken-annotation", "error", "b.xml")]


def test_every_truncation_and_many_changes_stay_located(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    put(tmp_path / "a.xml", xml(CUP))
    whole = xml(CUP, ("mug", (1, 2, 3, 4)), filename="b.png")
    for cut in range(0, len(whole) - 1, 3):
        for damaged in (whole[:cut], whole[:cut] + "\x00&<" + whole[cut + 1 :]):
            put(tmp_path / "b.xml", damaged)
            assert [f.file for f in voc(tmp_path).findings] == ["b.xml"]


def test_deep_nesting_does_no_harm(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "a.xml", xml(CUP, extra="<x>" * 100_000 + "</x>" * 100_000))
    assert len(voc(tmp_path)) == 1


def test_an_empty_folder_says_where_it_looked(tmp_path):
    with pytest.raises(DataError, match=r"no XML file in .*Annotations"):
        voc(tmp_path)
    with pytest.raises(DataError, match="there is no"):
        voc(tmp_path / "missing")


@needs_data
def test_bccd():
    dataset = voc(DATA / "voc_bccd")
    assert dataset.counts() == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert Counter(e.split for e in dataset.examples) == {"train": 205, "validation": 87, "test": 72}
    assert [(f.code, Path(f.file).stem) for f in dataset.findings] == (
        [("zero-area-box", "BloodImage_00338"), ("zero-area-box", "BloodImage_00343")]
    )


@needs_data
def test_raccoon_has_nothing_odd():
    dataset = voc(DATA / "voc_raccoon")
    assert (len(dataset), dataset.counts(), dataset.findings) == (200, {"raccoon": 217}, ())


@needs_data
def test_star_wars_misspelling():
    dataset = voc(DATA / "voc_star_wars")
    assert [f.code for f in dataset.findings] == ["near-miss-class"]
    assert "readers.voc.merge = {'r2-d2': 'r2d2'}" in dataset.findings[0].message
    merged = voc(DATA / "voc_star_wars", merge={"r2-d2": "r2d2"})
    assert (merged.counts(), merged.findings) == ({"bb8": 101, "r2d2": 102}, ())

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.readers.voc import voc
from tlx.errors import DataError
from tlx.registry import readers

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


sniff = readers.entries["voc"].sniff
CUP = ("cup", (11, 21, 30, 40))


@pytest.mark.parametrize("annotations", ["Annotations", "annotations", "annotations/xmls", "images", "."])
@pytest.mark.parametrize("images", ["JPEGImages", "images", "."])
def test_layouts(tmp_path, annotations, images):
    put(tmp_path / annotations / "a.xml", xml(CUP))
    put(tmp_path / images / "a.JPG")
    (example,) = voc(tmp_path).examples
    assert example.objects.boxes.tolist() == [[10, 20, 30, 40]]
    assert example.image == tmp_path / images / "a.JPG"
    assert example.record == (Path(annotations) / "a.xml").as_posix()


def test_pixels_count_from_one_and_include_the_last(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "a.xml", xml(("cup", (1, 1, 100, 50)), ("cup", (1.5, 2.25, 30.75, 40)), ("cup", (0, 0, 9, 9))))
    dataset = voc(str(tmp_path))
    assert dataset.examples[0].objects.boxes.tolist() == [[0, 0, 100, 50], [0.5, 1.25, 30.75, 40], [0, 0, 9, 9]]
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
    assert dataset.examples[0].objects.boxes.tolist() == [[0, 0, 9, 9], [1, 1, 9, 9]]
    assert dataset.examples[0].objects.ignore.tolist() == [False, True]


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


def test_a_bad_object_costs_that_object(tmp_path):
    put(tmp_path / "a.png")
    nowhere = "<object><name>cup</name><bndbox/></object><object><name>mug</name></object>"
    put(tmp_path / "a.xml", xml(CUP, ("cup", (1, 2, "x", 4)), extra=nowhere))
    dataset = voc(tmp_path)
    assert dataset.examples[0].objects.boxes.tolist() == [[10, 20, 30, 40]]
    assert [(f.code, f.severity, f.file, f.record) for f in dataset.findings] == (
        [("broken-object", "warning", "a.xml", f"object {number}") for number in (1, 2, 4)]
    )


@pytest.mark.parametrize("flood", ["<object/>" * 200_000, "<x>" * 300_000, "<!-- -->" * 3_000_000, "9" * 1_900_000])
def test_a_flood_is_one_located_error(tmp_path, flood):
    for name in "ab":
        put(tmp_path / f"{name}.png")
    put(tmp_path / "a.xml", xml(CUP))
    put(tmp_path / "b.xml", xml(("cup", (1, 2, flood, "x"))) if flood[0] == "9" else f"<annotation>{flood}")
    assert [(f.code, f.file) for f in voc(tmp_path).findings] == [("broken-annotation", "b.xml")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
def test_encodings(tmp_path, encoding):
    put(tmp_path / "a.png")
    declared = "" if encoding == "utf-8-sig" else f'<?xml version="1.0" encoding="{encoding[:6]}"?>'
    declared = declared.replace("latin-", "ISO-8859-1")
    (tmp_path / "a.xml").write_bytes((declared + xml(("Löffel", (1, 1, 9, 9)))).encode(encoding))
    assert voc(tmp_path).classes == ("Löffel",)
    declared += "<!DOCTYPE annotation>"
    put(tmp_path / "b.png")
    (tmp_path / "b.xml").write_bytes((declared + xml(CUP)).encode(encoding))
    (finding,) = voc(tmp_path).findings
    assert "document type" in finding.message


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_without_xml_keep_the_split_that_they_are_listed_in(tmp_path, split):
    put(tmp_path / "Annotations/a.xml", xml(CUP))
    for name in "abc":
        put(tmp_path / f"JPEGImages/{name}.jpg")
    put(tmp_path / f"ImageSets/Main/{split}.txt", "a.jpg\nJPEGImages/b.jpg\n")
    dataset = voc(tmp_path, unlabelled="background")
    named = {"train": "train", "val": "validation"}[split]
    assert {e.image.name: e.split for e in dataset.examples} == {"a.jpg": named, "b.jpg": named, "c.jpg": ""}


def test_the_years_of_a_kit_and_divided_folders(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        put(tmp_path / f"kit/VOCdevkit/{year}/Annotations/a.xml", xml(CUP))
        put(tmp_path / f"kit/VOCdevkit/{year}/JPEGImages/a.jpg")
    assert len(voc(tmp_path / "kit")) == len(voc(tmp_path / "kit/VOCdevkit")) == 2
    for part in ("train", "val"):
        put(tmp_path / f"divided/annotations/{part}/{part}.xml", xml(CUP))
        put(tmp_path / f"divided/images/{part}/{part}.jpg")
    dataset = voc(tmp_path / "divided")
    assert [e.split for e in dataset.examples] == ["train", "validation"]


def test_the_annotated_size_and_a_lying_extension_are_told(tmp_path):
    put(tmp_path / "a.jpg")
    put(tmp_path / "a.xml", xml(CUP, extra="<size><width>50</width><height>100</height></size>"))
    dataset = voc(tmp_path)
    assert [(f.code, f.severity, f.file) for f in dataset.findings] == (
        [("image-format", "info", "a.jpg"), ("annotated-size", "warning", "a.xml")]
    )
    for nothing in ("<size/>", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"):
        put(tmp_path / "a.xml", xml(CUP, extra=nothing))
        assert [f.code for f in voc(tmp_path).findings] == ["image-format"]


def test_junk_of_desktops_is_passed_over(tmp_path):
    put(tmp_path / "a.png")
    put(tmp_path / "a.xml", xml(CUP))
    put(tmp_path / "._a.xml", "junk")
    assert voc(tmp_path).findings == ()


@pytest.mark.parametrize("content", [xml(CUP), "\n" + xml(CUP)])
def test_sniff_sees_what_the_reader_reads(tmp_path, content):
    assert not sniff(tmp_path).fits
    put(tmp_path / "Annotations/a.xml", content)
    assert not sniff(tmp_path).fits
    put(tmp_path / "JPEGImages/a.jpg")
    assert sniff(tmp_path).fits
    put(tmp_path / "Annotations/a.xml", "<annotations><image/></annotations>")
    assert not sniff(tmp_path).fits
    assert not sniff(tmp_path / "missing").fits
    assert not sniff(tmp_path / "JPEGImages/a.jpg").fits


@needs_data
def test_sniff_on_real_folders():
    fitting = {folder.name for folder in DATA.iterdir() if sniff(folder).fits}
    assert fitting == {"voc_bccd", "voc_raccoon", "voc_star_wars"}


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

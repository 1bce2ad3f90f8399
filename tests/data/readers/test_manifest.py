import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tlx.data.formats.manifest import read
from tlx.data.readers.auto import auto
from tlx.data.readers.manifest import _sniff, manifest
from tlx.data.sniff import recognize
from tlx.errors import DataError
from tlx.registry import discover

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(folder / name)


def table(folder, text, name="list.csv", images=("a.png", "b.png")):
    pictures(folder, *images)
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def seen(dataset):
    """Each image's name with its (class, box) pairs."""
    found = {}
    for e in dataset.examples:
        pairs = zip(e.objects.labels, e.objects.boxes.tolist(), strict=True)
        found[e.image.name] = [(dataset.classes[label], *box) for label, box in pairs]
    return found


WHOLE = (0, 0, 100, 50)
CLASSES = {
    "url,label": "url,label\nhttps://x.org/1/a.png?w=3,cat\nhttps://y.org/b.png,dog\n",
    "unusual case": "Image_URL , Class Name\nhttps://x.org/1/a.png,cat\nhttps://y.org/b.png,dog\n",
    "label first": "label,filename\ncat,a.png\ndog,b.png\n",
    "semicolons": "Datei;Url;category\n1;https://x.org/a.png;cat\n2;https://x.org/b.png;dog\n",
    "tabs": "path\ttag\na.png\tcat\nb.png\tdog\n",
    "no header": "https://x.org/a.png,cat\nhttps://x.org/b.png,dog\n",
    "no header, label first": "cat,a.png\ndog,b.png\n",
    "spaces": "a.png cat\nb.png dog\n",
    "quoted": '"url","label"\n"https://x.org/a.png","cat"\n"https://x.org/b.png","dog"\n',
    "commas in URLs": 'url,label\n"https://x.org/w_1,h_2/a.png",cat\n"https://x.org/w_1,h_2/b.png",dog\n',
    "byte order mark": b"\xef\xbb\xbfurl,label\r\nhttps://x.org/a.png,cat\r\nhttps://x.org/b.png,dog\r\n",
    "UTF-16": "url\tlabel\nhttps://x.org/a.png\tcat\nhttps://x.org/b.png\tdog\n".encode("utf-16"),
    "comments and empty lines": "# pets\nurl,label\n\nhttps://x.org/a.png,cat\n# more\n,\nhttps://x.org/b.png,dog\n",
    "other suffix on disk": "image,label\na.jpg,cat\nb.JPEG,dog\n",
    "no suffix": "image_id,label\na,cat\nb,dog\n",
    "foreign folders": "path,label\nC:\\Users\\me\\a.png,cat\n/home/me/b.png,dog\n",
    "told by content": "foto,label\na.png,cat\nb.png,dog\n",
    "old Mac line ends": "url,label\rhttps://x.org/a.png,cat\rhttps://x.org/b.png,dog\r",
}


@pytest.mark.parametrize("case", CLASSES)
def test_classes(tmp_path, case):
    file = table(tmp_path, CLASSES[case])
    dataset = manifest(file)
    assert dataset.task == "classification"
    assert seen(dataset) == {"a.png": [("cat", *WHOLE)], "b.png": [("dog", *WHOLE)]}
    assert dataset.findings == ()
    assert _sniff(file).fits


BOX = ("cat", 10, 5, 30, 25)
BOXES = {
    "corners": "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,100,50,cat,10,5,30,25\nb,100,50,dog,1,2,3,4\n",
    "edge": "image,x,y,w,h,label\na.png,10,5,20,20,cat\nb.png,1,2,2,2,dog\n",
    "centre": "image,label,x_center,y_center,width,height\na.png,cat,20,15,20,20\nb.png,dog,2,3,2,2\n",
    "one cell": 'image_id,width,height,bbox,label\na,100,50,"[10.0, 5.0, 20.0, 20.0]",cat\nb,100,50,"[1,2,2,2]",dog\n',
    "new Make Sense": (
        "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
        "cat,10,5,20,20,a.png,100,50\ndog,1,2,2,2,b.png,100,50\n"
    ),
    "Make Sense": "cat,10,5,20,20,a.png,100,50\ndog,1,2,2,2,b.png,100,50\n",
    "keras-retinanet": "a.png,10,5,30,25,cat\nb.png,1,2,3,4,dog\n",
    "no header, class first": "a.png,cat,10,5,30,25\nb.png,dog,1,2,3,4\n",
    "shares": "image,label,xmin,ymin,xmax,ymax\na.png,cat,0.1,0.1,0.3,0.5\nb.png,dog,0.01,0.04,0.03,0.08\n",
    "AutoML": "TRAIN,gs://x/a.png,cat,0.1,0.1,,,0.3,0.5,,\nTEST,gs://x/b.png,dog,0.01,0.04,,,0.03,0.08,,\n",
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes(tmp_path, case):
    file = table(tmp_path, BOXES[case])
    dataset = manifest(file)
    assert dataset.task == "detection"
    got = seen(dataset)
    assert got["a.png"] == [pytest.approx(BOX)] or [row[1:] for row in got["a.png"]] == [pytest.approx(BOX[1:])]
    assert [row[0] for row in got["a.png"] + got["b.png"]] == ["cat", "dog"]
    assert [row[1:] for row in got["b.png"]] == [pytest.approx((1, 2, 3, 4))]
    assert {f.code for f in dataset.findings} <= {"normalized-boxes"}
    assert _sniff(file).fits


def test_declared_coordinates_win(tmp_path):
    file = table(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.png,cat,0,0,1,1\n")
    assert seen(manifest(file)) == {"a.png": [("cat", 0, 0, 100, 50)]}
    assert seen(manifest(file, coordinates="pixels")) == {"a.png": [("cat", 0, 0, 1, 1)]}


def test_several_boxes_of_an_image_and_an_image_without_any(tmp_path):
    file = table(tmp_path, "a.png,10,5,30,25,cat\nb.png,,,,,\na.png,1,2,3,4,dog\n")
    dataset = manifest(file)
    assert seen(dataset) == {"a.png": [BOX, ("dog", 1, 2, 3, 4)], "b.png": []}
    assert dataset.findings == ()
    assert [e.record for e in dataset.examples] == ["list.csv (line 1)", "list.csv (line 2)"]


def test_a_class_without_a_box_is_no_background(tmp_path):
    dataset = manifest(table(tmp_path, "a.png,10,5,30,25,cat\nb.png,,,,,dog\n"))
    assert list(seen(dataset)) == ["a.png"]
    assert [(f.code, f.record) for f in dataset.findings] == [("no-box", "line 2")]


def test_splits_by_column_by_file_and_by_folder(tmp_path):
    dataset = manifest(table(tmp_path, "url,label,split\nhttp://x/a.png,cat,TRAIN\nhttp://x/b.png,dog,valid\n"))
    assert [e.split for e in dataset.examples] == ["train", "validation"]
    other = tmp_path / "files"
    table(other, "url,label\nhttp://x/a.png,cat\n", "train_labels.csv")
    table(other, "url,label\nhttp://x/b.png,dog\n", "test_labels.csv")
    assert [(e.image.name, e.split) for e in manifest(other).examples] == [("b.png", "test"), ("a.png", "train")]
    folders = tmp_path / "folders"
    table(folders / "train", "filename,class,xmin,ymin,xmax,ymax\na.png,cat,10,5,30,25\n", "_annotations.csv")
    table(folders / "valid", "filename,class,xmin,ymin,xmax,ymax\na.png,cat,1,5,30,25\n", "_annotations.csv")
    assert [(e.record, e.split) for e in manifest(folders).examples] == [
        ("train/_annotations.csv (line 2)", "train"),
        ("valid/_annotations.csv (line 2)", "validation"),
    ]
    assert _sniff(other).fits
    assert _sniff(folders).fits


def test_a_label_for_all_and_columns_renamed(tmp_path):
    file = table(tmp_path, "Foto,Rasse\na.png,cat\nb.png,dog\n")
    with pytest.raises(DataError, match=r"no column of classes.*readers\.manifest\.label"):
        manifest(file)
    assert manifest(file, columns={"Rasse": "label"}).classes == ("cat", "dog")
    assert manifest(file, label="pet").classes == ("pet",)
    with pytest.raises(DataError, match=r"no column 'Rase'; did you mean 'Rasse'"):
        manifest(file, columns={"Rase": "label"})
    why = _sniff(file)
    assert (why.fits, why.why) == (False, "list.csv names images but not their classes")


def index(folder, **files):
    lines = []
    for url, name in files.items():
        content = (folder / name).read_bytes()
        row = {"url": f"https://x.org/{url}", "file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": 1}
        lines.append(json.dumps(row))
    (folder / "index.jsonl").write_text("\n".join([*lines, "torn {"]) + "\n")


def test_what_was_fetched_is_found_by_the_index_and_checked(tmp_path):
    pictures(tmp_path / "list", "one.png", "two.png", "three.png")
    index(tmp_path / "list", a="one.png", b="two.png", c="three.png")
    Image.new("RGB", (60, 20)).save(tmp_path / "list/three.png")
    text = "url,label\nhttps://x.org/a,cat\nhttps://x.org/b,dog\nhttps://x.org/c,dog\nhttps://x.org/d,dog\n"
    dataset = manifest(table(tmp_path, text, images=()))
    assert list(seen(dataset)) == ["one.png", "two.png"]
    assert {(f.code, f.record) for f in dataset.findings} == {
        ("broken-index", "line 4"),
        ("changed-image", "line 4"),
        ("missing-image", "line 5"),
    }
    assert any("tlx fetch" in f.message for f in dataset.findings if f.code == "missing-image")


def test_two_servers_pictures_of_one_name_are_not_mistaken(tmp_path):
    dataset = manifest(table(tmp_path, "url,label\nhttps://x/a.png,cat\nhttps://y/a.png,dog\nhttps://y/b.png,dog\n"))
    assert seen(dataset) == {"a.png": [("cat", *WHOLE)], "b.png": [("dog", *WHOLE)]}
    assert [(f.code, f.record) for f in dataset.findings] == [("ambiguous-image", "line 3")]


def test_nothing_there_says_how_to_fetch(tmp_path):
    file = table(tmp_path, "url,label\nhttps://x/1.png,cat\nhttps://x/2.png,dog\n")
    with pytest.raises(DataError, match=r"none of the 2 images.*tlx fetch .*list\.csv"):
        manifest(file)


def test_one_image_of_two_classes_is_left_out(tmp_path):
    dataset = manifest(table(tmp_path, "image,label\na.png,cat\na.png,dog\nb.png,dog\nb.png,dog\n"))
    assert list(seen(dataset)) == ["b.png"]
    assert [(f.code, f.severity) for f in dataset.findings] == [("several-classes", "error")]


GOOD = "a.png,10,5,30,25,cat\nb.png,1,2,3,4,dog\n"
BROKEN = {
    "a word for a number": "b.png,1,x,3,4,dog",
    "two numbers": "b.png,1,,,4,dog",
    "no image": ",1,2,3,4,dog",
    "too many cells": "b.png,1,2,3,4,dog,1,2",
    "a quote never closed": '"b.png,1,2,3,4,dog',
    "a quote in the middle": '"b".png,1,2,3,4,dog',
    "NUL": "b\0.png,1,2,3,4,dog",
    "a huge cell": "x" * 200_000 + ",1,2,3,4,dog",
    "a million columns": "b.png" + ",1" * 1_000_000,
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_broken_row_costs_only_itself(tmp_path, case, before):
    lines = GOOD.splitlines()
    lines.insert(before, BROKEN[case])
    dataset = manifest(table(tmp_path, "path,x1,y1,x2,y2,class\n" + "\n".join(lines) + "\n"))
    assert seen(dataset) == {"a.png": [BOX], "b.png": [("dog", 1, 2, 3, 4)]}
    (finding,) = dataset.findings
    assert (finding.code, finding.severity) == ("broken-annotation", "error")
    assert (finding.file, finding.record) == ("list.csv", f"line {before + 2}")


def test_many_broken_rows_are_counted(tmp_path):
    dataset = manifest(table(tmp_path, "path,x1,y1,x2,y2,class\n" + GOOD + "b.png,1,x,3,4,dog\n" * 5000))
    assert len(dataset.findings) == 101
    assert "4900 more rows" in dataset.findings[-1].message


def test_a_table_that_is_not_unicode_is_read_and_said_so(tmp_path):
    text = "url,label\nhttps://x/a.png,K\xe4fer\nhttps://x/b.png,dog\n".encode("latin-1")
    dataset = manifest(table(tmp_path, text))
    assert dataset.classes == ("K\xe4fer", "dog")
    assert [f.code for f in dataset.findings] == ["encoding"]


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "/secret.png", "out/secret.png", "link.png"])
def test_no_row_leads_out_of_the_folder(tmp_path, name):
    pictures(tmp_path, "secret.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    name = str(tmp_path / "secret.png") if name.startswith("/") else name
    dataset = manifest(table(root, f"image,label\na.png,cat\nb.png,dog\n{name},dog\n"))
    assert list(seen(dataset)) == ["a.png", "b.png"]
    assert [(f.code, f.record) for f in dataset.findings if f.code != "missing-image"] in (
        [("outside-folder", "line 4")],
        [],
    )
    assert any(f.record == "line 4" for f in dataset.findings)


REFUSED = {
    "empty": ("", "holds no row"),
    "no images": ("colour,size\nred,3\n", r"no column is known.*colour, size"),
    "JSON": ('Labeled Data,Label\nhttps://x/a.png,"{""objects"": []}"\n', r"line 2\): the class is JSON"),
    "undivided": ("a.png,1,2,cat,3,dog,4\n", "no row that names them"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_manifest_is_refused(tmp_path, case):
    text, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        manifest(table(tmp_path, text))


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_a_data_error(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.csv"
    file.write_bytes(b"path,x1,y1,x2,y2,class\na.png,1,2,3,4,cat\n" + content)
    rows, _ = read(file, file.name, [])
    assert rows[0].box == (1, 2, 3, 4) or b"a.png" not in content.split(b"\n")[0]


def test_auto_knows_a_manifest(tmp_path):
    discover()
    table(tmp_path, CLASSES["url,label"])
    assert recognize(tmp_path).name == "manifest"
    assert auto(tmp_path).classes == ("cat", "dog")


@needs_data
def test_folders_of_other_formats_are_not_taken_for_manifests():
    assert not [folder.name for folder in DATA.iterdir() if folder.is_dir() and _sniff(folder).fits]
    assert not [file for file in DATA.rglob("*.txt") if _sniff(file).fits]


@needs_data
def test_a_real_list_of_urls():
    findings = []
    file = DATA / "labelbox_coco_peaches/data/peach/image_urls.csv"
    rows, layout = read(file, file.name, findings)
    assert (len(rows), findings, layout.label) == (100, [], None)
    assert all(row.url for row in rows)

import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.images import read_image
from tlx.data.readers.folder import folder
from tlx.errors import DataError
from tlx.registry import readers

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")
sniff = readers.entries["folder"].sniff


def picture(level=0):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (level, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(params=["folder", "zip"])
def put(request, tmp_path):
    """Return a function that writes files as a folder or as a zip: names ending in / are empty folders."""

    def put(*names, **contents):
        files = {name: picture(level) for level, name in enumerate(names)} | contents
        root = tmp_path / "pets.zip" if request.param == "zip" else tmp_path / "pets"
        if request.param == "zip":
            with zipfile.ZipFile(root, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, b"" if name.endswith("/") else content)
            return root
        for name, content in files.items():
            path = root / name
            (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
            if not name.endswith("/"):
                path.write_bytes(content)
        return root

    return put


def told(dataset):
    """What is in which class and split, by file name."""
    return {e.image.name: (e.split, dataset.classes[e.objects.labels[0]]) for e in dataset.examples}


def codes(dataset):
    return {(finding.code, finding.severity, finding.file) for finding in dataset.findings}


def test_a_folder_is_a_class(put):
    dataset = folder(put("dog/1.png", "cat/2.jpg", "cat/3.JPEG"))
    assert (dataset.task, dataset.classes, dataset.findings) == ("classification", ("cat", "dog"), ())
    assert told(dataset) == {"1.png": ("", "dog"), "2.jpg": ("", "cat"), "3.JPEG": ("", "cat")}
    assert dataset.examples[0].objects.boxes.tolist() == [[0, 0, 40, 30]]
    level = {e.image.name: int(read_image(e.image)[0, 0, 0]) for e in dataset.examples}
    assert level == {"1.png": 0, "2.jpg": 1, "3.JPEG": 2}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train/cat/1.png", "val/cat/2.png", "test/dog/3.png"), ("train", "validation", "test")),
        (("Train/cat/1.png", "Valid/cat/2.png", "Testing/dog/3.png"), ("train", "validation", "test")),
        (("pets/train/cat/1.png", "pets/train/dog/2.png", "pets/eval/dog/3.png"), ("train", "train", "validation")),
        (("seg_train/seg_train/cat/1.png", "seg_test/seg_test/cat/2.png", "seg_test/seg_test/dog/3.png"), None),
        (("train/cat/1.png", "train/dog/2.png", "train/dog/siamese/3.png"), ("train", "train", "train")),
        (("a/b/cat/1.png", "a/b/cat/2.png", "a/b/dog/deep/er/3.png"), ("", "", "")),
        (("train/1.png", "car/2.png", "test tube/3.png"), ("", "", "")),
        (("unsplit/cat/1.png", "train/cat/2.png", "train/dog/3.png"), ("", "train", "train")),
    ],
)
def test_folders_around_classes_are_understood(put, names, expected):
    dataset = folder(put(*names))
    expected = expected or ("train", "test", "test")
    assert [told(dataset)[f"{i}.png"][0] for i in (1, 2, 3)] == list(expected)
    assert set(dataset.classes) <= {"cat", "dog", "train", "car", "test tube"}
    assert dataset.findings == ()


def test_files_that_are_left_out_are_counted(put):
    names = ("cat/1.png", "dog/2.png", "cat/.DS_Store", "__MACOSX/cat/._1.png", "cat/Thumbs.db", ".git/x.png")
    dataset = folder(put(*names, "README.md", "stray.png", "bird/"))
    assert set(told(dataset)) == {"1.png", "2.png"}
    first = {finding.code: finding.message[:4] for finding in dataset.findings}
    assert first == {"hidden-file": "4 x ", "other-file": "1 x ", "no-class": "1 x ", "empty-class": "1 x "}
    assert {finding.code for finding in dataset.findings if finding.severity == "warning"} == {
        "no-class",
        "empty-class",
    }
    assert ("empty-class", "warning", "bird") in codes(dataset)


def test_an_empty_class_of_one_split_is_told(put):
    dataset = folder(put("x/train/cat/1.png", "x/train/dog/2.png", "x/val/cat/3.png", "x/val/dog/"))
    assert codes(dataset) == {("empty-class", "warning", "x/val/dog")}


def test_images_of_a_split_without_classes_are_told(put):
    dataset = folder(put("train/cat/1.png", "train/dog/2.png", "test/3.png", "test/4.png"))
    assert set(told(dataset)) == {"1.png", "2.png"}
    assert codes(dataset) == {("no-class", "warning", "test/3.png")}


def test_a_damaged_image_is_one_located_error(put):
    dataset = folder(put("cat/1.png", "dog/2.png", **{"dog/3.png": b"no image"}))
    assert set(told(dataset)) == {"1.png", "2.png"}
    assert codes(dataset) == {("unreadable-image", "error", "dog/3.png")}


def test_classes_are_chosen_and_merged(put):
    root = put("cat/1.png", "Cat/2.png", "dog/3.png", "bird/4.png")
    dataset = folder(root, classes=("dog", "cat"), merge={"Cat": "cat"})
    assert dataset.classes == ("dog", "cat")
    assert set(told(dataset)) == {"1.png", "2.png", "3.png"}
    assert {finding.code for finding in folder(root).findings} == {"near-miss-class"}
    with pytest.raises(DataError, match="did you mean 'bird'"):
        folder(root, classes=("brid",))


def test_what_has_no_classes_is_refused(put):
    with pytest.raises(DataError, match="is in a class folder"):
        folder(put("train/1.png", "val/2.png"))


def test_no_folder_and_no_zip_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no"):
        folder(tmp_path / "absent")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(DataError, match="not a readable zip"):
        folder(tmp_path / "a.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is in a class folder"):
        folder(tmp_path / "empty")


def test_a_folder_with_nothing_but_a_zip_means_the_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("cat/1.png", "dog/2.png"):
            archive.writestr(name, picture())
    (tmp_path / "README.md").write_text("pets")
    assert len(folder(tmp_path)) == 2
    assert sniff(tmp_path).fits


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_a_zip_holds_and_nobody_can_open_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("cat/1.png", "dog/2.png", "dog/2.png", "../dog/3.png", "/dog/4.png"):
            archive.writestr(name, picture())
    dataset = folder(tmp_path / "pets.zip")
    assert set(told(dataset)) == {"1.png", "2.png"}
    (finding,) = dataset.findings
    assert (finding.code, finding.message[:4]) == ("unreadable-member", "3 x ")


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    for name in ("out/1.png", "pets/cat/2.png", "pets/dog/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "pets/bird").symlink_to(tmp_path / "out")
    dataset = folder(tmp_path / "pets")
    assert set(told(dataset)) == {"2.png", "3.png"}
    assert ("outside-folder", "error", "pets/bird") in codes(dataset) or ("outside-folder", "error", "bird") in codes(
        dataset
    )


def test_the_sniff_wants_two_classes_and_no_labels(put):
    assert sniff(put("cat/1.png", "dog/2.png", "README.txt")).fits


@pytest.mark.parametrize(
    "names",
    [
        ("cat/1.png",),
        ("a/1.txt", "b/2.txt"),
        ("images/1.png", "masks/1.png"),
        ("images/train/1.png", "images/val/2.png"),
        ("train/images/1.png", "train/labels/1.txt", "valid/images/2.png", "valid/labels/2.txt"),
        ("cat/1.png", "dog/2.png", "labels.json"),
        ("cat/1.png", "dog/2.png", "cat/1.xml"),
        ("training/image_2/1.png", "training/image_3/1.png"),
    ],
)
def test_the_sniff_leaves_other_formats_alone(put, names):
    assert not sniff(put(*names)).fits


@needs_data
def test_the_real_zip():
    dataset = folder(DATA / "cifar10/cifar10_subset.zip")
    assert (len(dataset), dataset.findings) == (5000, ())
    assert dataset.counts() == dict.fromkeys(dataset.classes, 500)
    assert Counter(e.split for e in dataset.examples) == {"train": 4000, "test": 1000}
    assert read_image(dataset.examples[-1].image).shape == (32, 32, 3)


@needs_data
def test_the_sniff_fits_on_no_other_format():
    assert [path.name for path in sorted(DATA.iterdir()) if sniff(path).fits] == ["cifar10"]
    assert not sniff(DATA / "no such folder").fits

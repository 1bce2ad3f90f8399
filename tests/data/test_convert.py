"""Round trips through every format, and what a conversion promises: whole or not at all, and nothing overwritten."""

import hashlib
import shutil
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx import registry
from tlx.data.convert import convert
from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.images import file_hash
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.errors import DataError

registry.discover()

# What becomes of a box (its label, whether it is ignored) and whether splits stay, for each format.
DETECTION = {
    "voc": (lambda label, ignore: None if label == ANY_CLASS else (label, ignore), "each"),
    "kitti": (lambda label, ignore: (ANY_CLASS, True) if ignore else (label, False), "each"),
    "coco": (lambda label, ignore: None if label == ANY_CLASS else (label, ignore), "all or none"),
    "labelbox": (lambda label, ignore: None if ignore else (label, False), "none"),
    "tfrecord": (lambda label, ignore: None if label == ANY_CLASS else (label, ignore), "each"),
}
NAMES = (
    *(
        "a.png",
        "b/a.png",
        "A.PNG",
        "c/a.jpg.png",
        "a_2.png",
        "é ü.png",
        "e\u0301 u\u0308.png",
        "名前.png",
        "50%25 off#1?.png",
    ),
    *("photo", "img.001", "no dot.v2.png", " padded .png", "-.png", "line\u2028break.png", "#&<>'\".png", "d/.png"),
)


def example(folder, name, boxes=((1, 2, 30, 40),), labels=None, ignore=None, split="", number=0):
    image = folder / name
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (number % 256, number // 256, 9)).save(image, format="PNG")
    n = len(boxes)
    return Example(
        image=image,
        width=64,
        height=48,
        targets=Boxes(
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            labels=np.array([0] * n if labels is None else labels, np.int32),
            ignore=np.array([False] * n if ignore is None else ignore, np.bool_),
        ),
        record=name,
        split=split,
    )


def side(size):
    """Two ends at least a pixel apart, whole or not, on the edge or not."""
    whole = st.tuples(st.integers(0, size - 1), st.integers(1, size))
    low = st.floats(0, size - 2, width=32)
    fraction = low.flatmap(lambda a: st.tuples(st.just(a), st.floats(float(np.float32(a + 1.0625)), size, width=32)))
    return st.one_of(whole.filter(lambda ends: ends[0] < ends[1]), fraction)


class_names = st.text(max_size=12).filter(lambda name: name and name == name.strip())
some_classes = st.lists(
    st.one_of(
        st.sampled_from(["r2-d2", "a b", "a_b", "DontCare", "<&>'\"", "Ünï cödé", "0", "猫", "a\tb"]), class_names
    ),
    min_size=1,
    max_size=4,
    unique=True,
)
box = st.tuples(side(64), side(48), st.integers(-1, 3), st.booleans())


def corners(drawn):
    return tuple(round(float(value), 2) for value in (*drawn[0], *drawn[1]))


pictures = st.lists(
    st.tuples(
        st.lists(box, max_size=4, unique_by=corners),
        st.sampled_from(["train", "validation", "test", ""]),
    ),
    max_size=4,
)


@st.composite
def made(draw):
    """A function that draws a dataset into a folder."""
    classes, drawn = tuple(draw(some_classes)), draw(pictures)
    files = draw(st.lists(st.sampled_from(NAMES), min_size=len(drawn), max_size=len(drawn), unique=True))

    def make(folder):
        # Readers refuse data without any box that counts.
        examples = [example(folder, "anchor.png", split="train", number=99)]
        for number, ((things, split), name) in enumerate(zip(drawn, files, strict=True)):
            boxes = [(x[0], y[0], x[1], y[1]) for x, y, _, _ in things]
            labels = [min(label, len(classes) - 1) for _, _, label, _ in things]
            ignore = [ignored or label < 0 for _, _, label, ignored in things]
            examples.append(example(folder, name, boxes, labels, ignore, split, number))
        return Dataset("made", classes, tuple(examples))

    return make


def read(format, folder):
    return registry.readers.entries[format].factory(folder)


def held(format, before, after, findings):
    """Assert that `after` is all of `before` that the format holds, and that the findings name the rest."""
    keep, splits = DETECTION[format]
    told = [finding.message for finding in findings if finding.code == "cannot-hold"]
    by_bytes = {file_hash(one.image): one for one in after.examples}
    assert len(after) == len(by_bytes) == len(before)
    renames = {}
    for one in before.examples:
        other = by_bytes[file_hash(one.image)]
        assert (other.width, other.height) == (one.width, one.height)
        was, now_is = one.objects, other.objects
        kinds = list(zip(was.labels.tolist(), was.ignore.tolist(), strict=True))
        kept = [keep(*kind) for kind in kinds]
        assert np.abs(now_is.boxes - was.boxes[[k is not None for k in kept]]).max(initial=0) <= 1e-3
        kept = [k for k in kept if k]
        assert now_is.ignore.tolist() == [ignore for _, ignore in kept]
        assert (now_is.labels == ANY_CLASS).tolist() == [label == ANY_CLASS for label, _ in kept]
        for (label, _), now in zip(kept, now_is.labels, strict=True):
            if now != ANY_CLASS:
                assert renames.setdefault(before.classes[label], after.classes[now]) == after.classes[now]
        if kept != kinds:
            assert any("ignore" in text for text in told)
        if other.split != one.split:
            assert (splits, other.split) != ("each", "")
            assert any("split" in text for text in told)
    assert len(set(renames.values())) == len(renames)
    for old, new in renames.items():
        assert old == new or any(repr(old) in text and repr(new) in text for text in told)


def state(folder):
    return {
        p: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).digest()) for p in folder.rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("first", DETECTION)
@settings(max_examples=15)
@given(made())
def test_every_box_class_flag_and_image_goes_through_every_two_formats(first, make):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        original = make(folder / "source")
        before = state(folder / "source")
        findings = convert(original, folder / "first", first)
        through = read(first, folder / "first")
        held(first, original, through, findings)
        for second in DETECTION:
            findings = convert(through, folder / second, second, link=second != "voc")
            held(second, through, read(second, folder / second), findings)
        in_class_folders(through, folder / "folder")
        assert state(folder / "source") == before


def in_class_folders(before, folder):
    """Assert that class folders hold the images of one class and nothing else, and that the rest is named."""
    findings = convert(before, folder, "folder")
    classes = {file_hash(one.image): set(one.objects.labels[~one.objects.ignore].tolist()) for one in before.examples}
    of_one = {key for key, labels in classes.items() if len(labels) == 1}
    assert {file_hash(one.image) for one in read("folder", folder).examples} == of_one
    lost = {bool(labels) for labels in classes.values() if len(labels) != 1}
    assert sum("images" in finding.message and "left out" in finding.message for finding in findings) == len(lost)


def small(folder):
    return Dataset("made", ("cat",), (example(folder, "in/a.png"), example(folder, "in/b.png", number=1)))


def test_progress_is_told_and_links_share_their_bytes(tmp_path):
    told = []
    convert(small(tmp_path), tmp_path / "out", "voc", report=lambda *counts: told.append(counts))
    convert(small(tmp_path), tmp_path / "copied", "voc", link=False)
    assert told == [(1, 2), (2, 2)]
    assert (tmp_path / "out/JPEGImages/a.png").samefile(tmp_path / "in/a.png")
    assert not (tmp_path / "copied/JPEGImages/a.png").samefile(tmp_path / "in/a.png")


def test_an_unknown_format_names_the_closest(tmp_path):
    with pytest.raises(DataError, match=r"'kiti'; did you mean 'kitti'\? \(there are coco, "):
        convert(small(tmp_path), tmp_path / "out", "kiti")


def test_data_with_errors_is_refused_unless_they_are_to_be_left_out(tmp_path):
    broken = replace(small(tmp_path), findings=(Finding("broken-annotation", "error", "c.xml", "", "it is empty"),))
    with pytest.raises(DataError, match=r"has 1 errors, .*\n  error: c.xml: it is empty"):
        convert(broken, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()
    assert convert(broken, tmp_path / "out", "voc", leave_out_errors=True) == []


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_nothing_is_overwritten(tmp_path, taken):
    target = tmp_path / "out"
    if taken == "folder":
        target.mkdir()
    mine = target / "mine.txt" if taken == "folder" else target
    mine.write_text("mine")
    with pytest.raises(DataError, match="nothing is overwritten"):
        convert(small(tmp_path), target, "voc")
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    convert(small(tmp_path), tmp_path / "out", "voc")
    assert len(read("voc", tmp_path / "out")) == 2


def test_a_folder_among_the_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="name a folder elsewhere"):
        convert(small(tmp_path), tmp_path / "in/deep/out", "voc")
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.png", "b.png"]


def test_an_image_that_is_gone_is_named_and_nothing_is_left(tmp_path):
    data = small(tmp_path)
    (tmp_path / "in/b.png").unlink()
    with pytest.raises(DataError, match=r"in/b\.png"):
        convert(data, tmp_path / "out", "voc")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_images_in_a_zip_are_copied_out(tmp_path):
    data = small(tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for one in data.examples:
            archive.write(one.image, f"cat/{one.image.name}")
    inside = tuple(replace(one, image=tmp_path / "all.zip/cat" / one.image.name) for one in data.examples)
    before = state(tmp_path)
    convert(replace(data, examples=inside), tmp_path / "out", "kitti")
    assert (tmp_path / "out/image_2/b.png").read_bytes() == data.examples[1].image.read_bytes()
    shutil.rmtree(tmp_path / "out")
    assert state(tmp_path) == before


def test_names_that_change_and_groups_that_go_are_told(tmp_path):
    examples = (example(tmp_path, "x/a.png"), replace(example(tmp_path, "y/a.png", number=1), group="drive 7"))
    renamed, grouped = convert(Dataset("made", ("cat",), examples), tmp_path / "out", "voc")
    assert (renamed.code, renamed.severity) == ("renamed-image", "info")
    assert "'a.png' as 'a_2.png'" in renamed.message
    assert (grouped.code, grouped.file) == ("cannot-hold", "y/a.png")
    assert "groups" in grouped.message


@pytest.mark.parametrize("format", ["voc", "kitti", "coco", "labelbox"])
def test_images_with_a_class_become_boxes_and_that_is_told(tmp_path, format):
    whole = example(tmp_path, "cat/a.png", [(0, 0, 64, 48)])
    (finding,) = convert(Dataset("made", ("cat",), (whole,)).of_whole_images(), tmp_path / "out", format)
    assert "1 images with a class" in finding.message
    assert read(format, tmp_path / "out").examples[0].objects.boxes.tolist() == [[0, 0, 64, 48]]


@settings(max_examples=15)
@given(some_classes, st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), st.booleans())
def test_a_class_of_a_whole_image_goes_through_every_two_formats(classes, files, divided):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        splits = ("train", "validation", "test") if divided else ("",)
        examples = [
            example(folder / "source", name, [(0, 0, 64, 48)], [i % len(classes)], None, splits[i % len(splits)], i)
            for i, name in enumerate(files)
        ]
        original = Dataset("made", tuple(classes), tuple(examples)).of_whole_images()
        for first in ("folder", "tfrecord"):
            findings = convert(original, folder / first, first)
            through = read(first, folder / first)
            assert through.task == "classification"
            held("tfrecord", original, through, findings)
            for second in registry.writers.entries:
                findings = convert(through, folder / f"{first} {second}", second)
                after = read(second, folder / f"{first} {second}")
                assert after.task == ("classification" if second in ("folder", "tfrecord") else "detection")
                held({"folder": "tfrecord"}.get(second, second), through, after, findings)

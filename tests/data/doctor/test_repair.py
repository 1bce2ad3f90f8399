"""A repaired copy: what is mended, what is left out, and that the original stays as it is."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlx.data.doctor import examine
from tlx.data.doctor.boxes import check_boxes
from tlx.data.doctor.repair import repair
from tlx.data.images import read_image
from tlx.data.readers.coco import coco
from tlx.data.readers.voc import voc
from tlx.data.survey import look
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
XML = (
    "<annotation><object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>5</ymin><xmax>40</xmax><ymax>40</ymax>"
    "</bndbox></object>{more}</annotation>"
)
BROKEN = "<object><name>cat</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"


def picture(seed, mode="RGB", size=(64, 48)):
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(4).save(path, exif=exif)


@pytest.fixture
def sick(tmp_path):
    """A VOC folder with something of everything."""
    root = tmp_path / "sick"
    root.mkdir()
    ramp = np.arange(0, 48 * 64 * 20, 20).reshape(48, 64).astype(np.uint16)
    saved = {
        "plain.jpg": lambda path: picture(1).save(path),
        "copy.jpg": lambda path: path.write_bytes((root / "plain.jpg").read_bytes()),
        "other.jpg": lambda path: path.write_bytes((root / "plain.jpg").read_bytes()),
        "cmyk.jpg": lambda path: picture(2, "CMYK").save(path),
        "alpha.png": lambda path: picture(3, "RGBA").save(path),
        "turned.jpg": turned,
        "deep.png": lambda path: Image.fromarray(ramp).save(path),
        "liar.jpg": lambda path: picture(5).save(path, "PNG"),
        "short.jpg": lambda path: picture(6, size=(640, 480)).save(path),
    }
    for name, save in saved.items():
        save(root / name)
        label = {"alpha.png": "Cat", "other.jpg": "dog"}.get(name, "cat")
        more = BROKEN if name == "plain.jpg" else ""
        (root / name).with_suffix(".xml").write_text(XML.format(name=label, x=5, more=more))
    (root / "short.jpg").write_bytes((root / "short.jpg").read_bytes()[:-3000])
    return root


def state(root):
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_nlink) for path in files}


def test_the_copy_is_free_of_what_was_wrong_and_the_original_unchanged(sick, tmp_path):
    before, dataset = state(sick), voc(sick)
    ill = {f.code for f in (*dataset.findings, *examine(dataset, (64, 64), check_boxes))}
    mended = {"unreadable-image", "cmyk-image", "alpha-image", "deep-image", "exif-rotated", "image-format"}
    mended |= {"duplicate-image", "zero-area-box", "near-miss-class"}
    assert mended < ill
    done = {}
    for deed in repair(dataset, sick, tmp_path / "well", "voc"):
        done.setdefault(deed.code, []).append(Path(deed.file).stem)
        assert deed.severity == "info"
    assert done.pop("merged-class") == [""]
    assert sorted(done.pop("re-encoded-image")) == ["alpha", "cmyk", "deep", "turned"]
    assert done == {"zero-area-box": ["plain"], "left-out-image": ["short"], "left-out-copy": ["plain"]} | {
        "mended-suffix": ["liar"]
    }
    assert state(sick) == before
    well = voc(tmp_path / "well")
    found = {f.code for f in (*well.findings, *examine(well, (64, 64), check_boxes))}
    # Copies that are labelled differently are for a person to judge.
    assert found & mended == {"duplicate-image"}
    assert "contradicting-labels" in found
    assert (len(well), well.classes, well.counts()) == (7, ("cat", "dog"), {"cat": 6, "dog": 1})


def test_only_what_must_be_is_encoded_anew(sick, tmp_path):
    repair(voc(sick), sick, tmp_path / "well", "voc")
    images = tmp_path / "well" / "JPEGImages"
    assert (images / "copy.jpg").read_bytes() == (sick / "plain.jpg").read_bytes()
    assert (images / "liar.png").read_bytes() == (sick / "liar.jpg").read_bytes()
    assert np.array_equal(read_image(images / "alpha.png"), read_image(sick / "alpha.png"))
    assert np.array_equal(read_image(images / "deep.png"), read_image(sick / "deep.png"))
    upright = look(images / "turned.jpg")
    assert (upright.size, upright.stored, upright.orientation) == ((48, 64), (48, 64), 1)
    assert np.abs(read_image(images / "turned.jpg").astype(int) - read_image(sick / "turned.jpg")).mean() < 2
    assert look(images / "cmyk.jpg").mode == "RGB"
    assert all(path.stat().st_nlink == 1 for path in images.iterdir())


def test_of_copies_in_two_parts_the_one_that_judges_stays(sick, tmp_path):
    dataset = voc(sick)
    splits = {"plain": "train", "copy": "test"}
    examples = tuple(replace(e, split=splits[e.image.stem]) for e in dataset.examples if e.image.stem in splits)
    deeds = repair(replace(dataset, examples=examples), sick, tmp_path / "well", "voc")
    assert [d.file for d in deeds if d.code == "left-out-copy"] == ["plain.jpg"]
    (example,) = voc(tmp_path / "well").examples
    assert (example.image.stem, example.split) == ("copy", "test")


def test_boxes_keep_their_place_in_another_format(sick, tmp_path):
    dataset = voc(sick)
    repair(dataset, sick, tmp_path / "well", "coco")
    before = {e.image.stem: e.objects.boxes for e in dataset.examples}
    for example in coco(tmp_path / "well").examples:
        np.testing.assert_allclose(example.objects.boxes, before[example.image.stem], atol=1e-3)


@pytest.mark.parametrize(("target", "message"), [("sick/well", "lies within"), ("full", "is not an empty folder")])
def test_nothing_is_overwritten_or_written_into_the_original(sick, tmp_path, target, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    before = state(tmp_path)
    with pytest.raises(DataError, match=message):
        repair(voc(sick), sick, tmp_path / target, "voc")
    assert state(tmp_path) == before


def test_progress_is_told(sick, tmp_path):
    heard = []
    repair(voc(sick), sick, tmp_path / "well", "voc", lambda *how: heard.append(how))
    assert ("repairing", 7, 7) in heard
    assert ("writing the copy", 7, 7) in heard


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data in ../shared/data is absent")
def test_star_wars_is_repaired(tmp_path):
    dataset = voc(DATA / "voc_star_wars")
    deeds = repair(dataset, DATA / "voc_star_wars", tmp_path / "well", "voc")
    assert [(d.code, json.dumps(d.record)) for d in deeds] == [("merged-class", '"class r2-d2"')]
    well = voc(tmp_path / "well")
    assert (well.counts(), well.findings) == ({"bb8": 101, "r2d2": 102}, ())

import gzip
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlx.data.dataset import Dataset
from tlx.data.formats import tfrecords
from tlx.data.formats.tfexample import encode
from tlx.data.images import read_image
from tlx.data.readers.tfrecord import tfrecord
from tlx.errors import DataError
from tlx.registry import readers

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")
OBJECT = "image/object/"
MAP = "item { id: 1 name: 'cat' } item { id: 5 name: '/m/0bt9lr' display_name: 'dog' }"


def picture(level=0, size=(100, 50)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def features(boxes=((0.1, 0.2, 0.3, 0.4),), texts=("cat",), level=0, **more):
    sides = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    named = zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True)
    return {
        "image/encoded": [picture(level)],
        "image/filename": [f"{level}.png".encode()],
        **{f"{OBJECT}bbox/{name}": [float(value) for value in values] for name, values in named},
        f"{OBJECT}class/text": [text.encode() for text in texts],
        **{name.replace("__", "/"): value for name, value in more.items()},
    }


def put(file, *examples):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:
        for example in examples:
            tfrecords.write(opened, example if isinstance(example, bytes) else encode(example))
    return file


def codes(dataset):
    return Counter((finding.code, finding.severity) for finding in dataset.findings)


def test_boxes_are_parts_of_the_images_size(tmp_path):
    file = put(tmp_path / "a.record", features([(0.25, 0.5, 0.75, 1.0), (0, 0, 1, 1)], ["cat", "dog"], 7))
    dataset = tfrecord(file)
    (example,) = dataset.examples
    assert example.objects.boxes.tolist() == [[25, 25, 75, 50], [0, 0, 100, 50]]
    assert [dataset.classes[label] for label in example.objects.labels] == ["cat", "dog"]
    assert (example.width, example.height, example.image.name, example.split) == (100, 50, "7.png", "")
    assert read_image(example.image)[0, 0].tolist() == [7, 9, 9]
    assert example.record == "a.record (record 1 at byte 0)"
    assert dataset.findings == ()


def test_marked_objects_become_ignore_regions(tmp_path):
    boxes = [(0, 0, 0.1 * i, 1) for i in range(1, 6)]
    flags = {"difficult": [1, 0, 0, 0, 0], "is_crowd": [0, 1, 0, 0, 0], "group_of": [0, 0, 1, 0, 0]}
    more = {f"{OBJECT}{name}": values for name, values in flags.items()} | {f"{OBJECT}truncated": [1] * 5}
    put(tmp_path / "a.record", features(boxes, ["cat"] * 5) | more)
    assert tfrecord(tmp_path).examples[0].objects.ignore.tolist() == [True, True, True, False, False]


def test_classes_come_from_the_label_map_by_number_mid_or_name(tmp_path):
    boxes = [(0, 0, 0.1 * i, 1) for i in range(1, 6)]
    put(
        tmp_path / "a.record",
        features(boxes, ["/m/0bt9lr", "dog", "", "", "bird"]) | {f"{OBJECT}class/label": [5, 5, 5, 1, 9]},
    )
    (tmp_path / "label_map.pbtxt").write_text(MAP)
    dataset = tfrecord(tmp_path)
    labels = dataset.examples[0].objects.labels
    assert [dataset.classes[label] for label in labels] == ["dog", "dog", "dog", "cat", "bird"]
    assert dataset.findings == ()
    assert tfrecord(tmp_path, classes=("dog", "cat")).classes == ("dog", "cat")


def test_numbers_alone_take_the_map_that_is_given(tmp_path):
    put(tmp_path / "a.record", features(texts=()) | {f"{OBJECT}class/label": [5]})
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/mine.pbtxt").write_text(MAP)
    assert tfrecord(tmp_path, label_map=tmp_path / "maps/mine.pbtxt").classes == ("dog",)
    without = tfrecord(tmp_path)
    assert without.classes == ("5",)
    assert codes(without) == {("unnamed-label", "warning"): 1}
    with pytest.raises(DataError, match=r"did you mean 'mine\.pbtxt'"):
        tfrecord(tmp_path, label_map=tmp_path / "maps/mime.pbtxt")


def test_a_text_that_disagrees_with_its_number_is_told(tmp_path):
    put(tmp_path / "a.record", features() | {f"{OBJECT}class/label": [5]})
    (tmp_path / "label_map.pbtxt").write_text(MAP)
    dataset = tfrecord(tmp_path)
    assert dataset.classes == ("cat",)
    assert codes(dataset) == {("label-disagrees", "warning"): 1}


def test_of_several_label_maps_none_is_guessed(tmp_path):
    put(tmp_path / "a.record", features())
    for name in ("a_label_map.pbtxt", "b_label_map.pbtxt"):
        (tmp_path / name).write_text(MAP)
    assert codes(tfrecord(tmp_path)) == {("several-label-maps", "warning"): 1}
    (tmp_path / "a_label_map.pbtxt").rename(tmp_path / "graph.pbtxt")
    assert codes(tfrecord(tmp_path)) == {}


def test_a_broken_label_map_is_refused(tmp_path):
    put(tmp_path / "a.record", features())
    (tmp_path / "label_map.pbtxt").write_text("item {")
    with pytest.raises(DataError, match=r"label_map\.pbtxt"):
        tfrecord(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("pet_train.record", "pet_val.record", "pet_test.record"),
        ("train/x.tfrecord", "valid/x.tfrecord", "test/x.tfrecord"),
        ("train-00000-of-00001.tfrecords", "validation-00000-of-00001.tfrecords", "testdev-00000-of-00001"),
        ("coco_train.record-00000-of-00001", "coco_eval.record-00000-of-00001", "coco_test.tf_record"),
    ],
)
def test_names_tell_the_splits(tmp_path, names):
    for level, name in enumerate(names):
        put(tmp_path / name, features(level=level))
    dataset = tfrecord(tmp_path)
    assert {e.image.name: e.split for e in dataset.examples} == {
        "0.png": "train",
        "1.png": "validation",
        "2.png": "test",
    }
    assert dataset.findings == ()


def test_missing_shards_are_named(tmp_path):
    for number in (0, 2, 3):
        put(tmp_path / f"train.record-{number:05d}-of-00005", features(level=number))
    dataset = tfrecord(tmp_path)
    (finding,) = dataset.findings
    assert (len(dataset), finding.code, finding.file) == (3, "missing-shard", "train.record-00001-of-00005")
    assert "2 of 5" in finding.message
    assert len(tfrecord(tmp_path / "train.record-0000?-of-00005")) == 3
    assert len(tfrecord(tmp_path / "train.record-00002-of-00005")) == 1


def test_damage_is_located_and_the_rest_is_read(tmp_path):
    file = put(tmp_path / "a.record", *(features(level=level) for level in range(4)))
    content = bytearray(file.read_bytes())
    starts = [raw.start for raw in tfrecords.scan(io.BytesIO(content))]
    content[starts[1] + 50] ^= 1
    file.write_bytes(content[:-7])
    dataset = tfrecord(file)
    assert [e.image.name for e in dataset.examples] == ["0.png", "2.png"]
    assert codes(dataset) == {("broken-record", "error"): 2}
    assert [finding.record for finding in dataset.findings] == [
        f"record 2 at byte {starts[1] - 12}",
        f"record 4 at byte {starts[3] - 12}",
    ]
    assert file.read_bytes() == content[:-7]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (b"\xff\xff\xff", "no tf.train.Example"),
        ({"image": [b"x"], "label": [1]}, "it has image, label"),
        (features() | {f"{OBJECT}bbox/ymax": [0.1, 0.2]}, "ymax has 2 values where image/object/bbox/xmin has 1"),
        (features() | {f"{OBJECT}bbox/ymax": []}, "ymax has 0 values"),
        (features() | {f"{OBJECT}class/text": [b"a", b"b"]}, "text has 2 values"),
        (features() | {f"{OBJECT}difficult": [1, 0]}, "difficult has 2 values"),
        (features() | {f"{OBJECT}bbox/xmin": [b"0.1"]}, "holds bytes values where it should hold floating-point"),
        (features() | {f"{OBJECT}class/text": [b"\xff"]}, "no UTF-8"),
        (features() | {f"{OBJECT}class/label": [1.0]}, "holds float values where it should hold integers"),
        (features() | {"image/encoded": [b""]}, "has no image/encoded"),
    ],
)
def test_a_record_that_cannot_be_meant_is_one_located_error(tmp_path, broken, told):
    put(tmp_path / "a.record", features(level=1), broken, features(level=2))
    dataset = tfrecord(tmp_path)
    (finding,) = dataset.findings
    assert [e.image.name for e in dataset.examples] == ["1.png", "2.png"]
    assert (finding.code, finding.severity, finding.file) == ("broken-record", "error", "a.record")
    assert finding.record.startswith("record 2 at byte")
    assert told in finding.message


@pytest.mark.parametrize(
    ("box", "code"),
    [
        ((0.5, 0.5, 0.2, 0.9), "inverted-box"),
        ((0.5, 0.5, 0.5, 0.9), "zero-area-box"),
        ((float("nan"), 0.5, 0.6, 0.9), "non-finite-box"),
        ((1.2, 0.5, 1.6, 0.9), "box-outside"),
        ((0.5, 0.5, 1.1, 0.9), "clipped-box"),
    ],
)
def test_odd_boxes_are_told(tmp_path, box, code):
    put(tmp_path / "a.record", features([box, (0, 0, 1, 1)], ["cat", "cat"]))
    assert codes(tfrecord(tmp_path)) == {(code, "warning"): 1}


def test_boxes_that_are_plainly_in_pixels_are_taken_so_and_told(tmp_path):
    put(tmp_path / "a.record", features([(10, 5, 60, 40)]), features([(0, 0, 90, 50)], level=1), features([], [], 2))
    dataset = tfrecord(tmp_path)
    assert [e.objects.boxes.tolist() for e in dataset.examples] == [[[10, 5, 60, 40]], [[0, 0, 90, 50]], []]
    (finding,) = dataset.findings
    assert (finding.code, finding.severity, finding.message[:4]) == ("pixel-coordinates", "warning", "2 x ")


def test_unreadable_images_and_wrong_sizes_are_told(tmp_path):
    broken = features(level=1) | {"image/encoded": [picture(1)[:20]]}
    wrong = features(level=2) | {"image/width": [50], "image/height": [100]}
    put(tmp_path / "a.record", features(), broken, wrong)
    assert codes(tfrecord(tmp_path)) == {("unreadable-image", "error"): 1, ("annotated-size", "warning"): 1}


def test_masks_are_noted_once(tmp_path):
    put(tmp_path / "a.record", *(features(level=i) | {f"{OBJECT}mask": [b"png"]} for i in range(3)))
    (finding,) = tfrecord(tmp_path).findings
    assert (finding.code, finding.severity, finding.message[:4]) == ("masks", "info", "3 x ")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"image/filename": [b"http://host/a/b%20c.jpg?x=1"]}, "b c.jpg"),
        ({"image/filename": [b"C:\\images\\b.jpg"]}, "b.jpg"),
        ({"image/filename": [b""], "image/source_id": [b"77"], "image/format": [b"jpeg"]}, "77.jpg"),
        ({"image/filename": [b".."]}, "unnamed"),
    ],
)
def test_an_image_goes_by_its_own_name(tmp_path, said, expected):
    put(tmp_path / "a.record", features() | said)
    assert tfrecord(tmp_path).examples[0].image.name == expected


def test_images_with_a_class_and_no_objects_are_for_classification(tmp_path):
    plain = [{"image/encoded": [picture(i)], "image/class/label": [1 + 4 * (i % 2)]} for i in range(4)]
    put(tmp_path / "train.record", *plain)
    (tmp_path / "label_map.pbtxt").write_text(MAP)
    dataset = tfrecord(tmp_path)
    assert (dataset.task, dataset.counts()) == ("classification", {"cat": 2, "dog": 2})
    assert dataset.examples[0].objects.boxes.tolist() == [[0, 0, 100, 50]]


def test_what_holds_no_records_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no file like train\.record"):
        tfrecord(tmp_path)
    with pytest.raises(DataError, match="there is no"):
        tfrecord(tmp_path / "nothing.record")
    (tmp_path / "a.record").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match="GZIP"):
        tfrecord(tmp_path)


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    put(tmp_path / "elsewhere/secret.record", features())
    put(tmp_path / "data/a.record", features())
    (tmp_path / "data/b.record").symlink_to(tmp_path / "elsewhere/secret.record")
    dataset = tfrecord(tmp_path / "data")
    assert (len(dataset), codes(dataset)) == (1, {("outside-folder", "error"): 1})


def test_the_sniff_knows_records_by_name_and_head(tmp_path):
    sniff = readers.entries["tfrecord"].sniff
    assert not sniff(tmp_path).fits
    assert not sniff(tmp_path / "absent").fits
    (tmp_path / "notes.record").write_text("a record of what was said, no more than that")
    assert not sniff(tmp_path).fits
    file = put(tmp_path / "x/train.record", features())
    assert sniff(tmp_path / "x").fits
    assert sniff(file).fits


@needs_data
def test_real_records_of_pets():
    dataset = tfrecord(DATA / "tf_object_detection_api/pets_examples.record")
    assert isinstance(dataset, Dataset)
    assert (len(dataset), len(dataset.classes), dataset.findings) == (10, 10, ())
    first = dataset.examples[0]
    assert (first.image.name, first.objects.boxes.round().tolist()) == ("chihuahua_153.jpg", [[119, 54, 228, 128]])
    assert read_image(first.image).shape == (225, 300, 3)


@needs_data
def test_real_records_of_peaches():
    dataset = tfrecord(DATA / "labelbox_coco_peaches/data")
    assert Counter(e.split for e in dataset.examples) == {"train": 6, "validation": 2, "test": 2}
    assert dataset.counts() == {"Peach": 28}
    assert all(np.prod(read_image(e.image).shape[:2]) == e.width * e.height for e in dataset.examples)


@needs_data
def test_the_sniff_fits_on_no_other_format():
    fitting = [path.name for path in sorted(DATA.iterdir()) if readers.entries["tfrecord"].sniff(path).fits]
    assert fitting == ["tf_object_detection_api"]

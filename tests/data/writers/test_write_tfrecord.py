import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.data.container import read_bytes
from tlx.data.dataset import Dataset, Example
from tlx.data.place import Place
from tlx.data.readers.tfrecord import tfrecord as read
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.data.writers import tfrecord as room
from tlx.data.writers.tfrecord import tfrecord as write

CLASSES = ("R2-D2 & <friends>", "chat noir", 'it\'s "ünï"')


def picture(folder, name, level=0):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (level % 256, level // 256, 9)).save(folder / name)
    return folder / name


def example(image, boxes=((1, 2, 30, 40),), labels=None, ignore=None, split=""):
    n = len(boxes)
    labels, ignore = labels if labels is not None else [0] * n, ignore if ignore is not None else [False] * n
    truth = np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32), np.array(ignore, np.bool_)
    return Example(image, 64, 48, Boxes(*truth), split=split)


def side(size):
    return (
        st.tuples(st.floats(0, size, width=32), st.floats(0, size, width=32))
        .map(sorted)
        .filter(lambda s: s[1] - s[0] > 0.01)
    )


objects = st.tuples(side(64), side(48), st.integers(0, 2), st.booleans())
pictures = st.lists(
    st.tuples(
        st.lists(objects, max_size=4, unique_by=lambda thing: str(thing[:3])),
        st.sampled_from(["train", "validation", "test", ""]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=50)
@given(pictures)
def test_the_reader_returns_what_was_written(drawn):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        examples = [example(picture(folder / "source", "anchor.png", 99))]
        for number, (things, split) in enumerate(drawn):
            boxes = [(x[0], y[0], x[1], y[1]) for x, y, _, _ in things]
            image = picture(folder / "source", f"é {number}.png", number)
            labels, ignore = [thing[2] for thing in things], [thing[3] for thing in things]
            examples.append(example(image, boxes, labels, ignore, split))
        (folder / "made").mkdir()
        assert write(Dataset("made", CLASSES, tuple(examples)), folder / "made", Place()) == []
        back = read(folder / "made")
        assert back.findings == ()
        by_name = {one.image.name: one for one in back.examples}
        assert len(by_name) == len(examples)
        for before in examples:
            after = by_name[before.image.name]
            assert read_bytes(after.image) == before.image.read_bytes()
            assert (after.width, after.height, after.split) == (64, 48, before.split)
            assert np.abs(after.objects.boxes - before.objects.boxes).max(initial=0) < 1e-3
            assert [back.classes[i] for i in after.objects.labels] == [CLASSES[i] for i in before.objects.labels]
            assert after.objects.ignore.tolist() == before.objects.ignore.tolist()


def test_images_with_a_class_stay_so(tmp_path):
    whole = [(0, 0, 64, 48)]
    examples = [example(picture(tmp_path, f"{i}.png", i), whole, [i % 3], split="train") for i in range(6)]
    (tmp_path / "made").mkdir()
    whole_images = Dataset("made", CLASSES, tuple(examples)).of_whole_images()
    assert write(whole_images, tmp_path / "made", Place()) == []
    back = read(tmp_path / "made")
    assert (back.task, back.counts()) == ("classification", dict.fromkeys(CLASSES, 2))


def test_what_it_cannot_hold_is_told(tmp_path):
    region = example(picture(tmp_path, "a.png"), labels=[ANY_CLASS], ignore=[True])
    rare = example(picture(tmp_path, "b.webp"))
    (tmp_path / "made").mkdir()
    found = write(Dataset("made", CLASSES, (region, rare)), tmp_path / "made", Place())
    assert [(finding.code, finding.severity) for finding in found] == [("cannot-hold", "warning")] * 2
    assert "ignore regions of no class" in found[0].message
    assert "WEBP" in found[1].message
    assert [len(e.objects.boxes) for e in read(tmp_path / "made").examples] == [0, 1]


def test_an_image_too_large_for_a_record_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(room.tfrecords, "MAX_BYTES", 1000)
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    both = example(picture(tmp_path, "small.png")), example(tmp_path / "large.png")
    (tmp_path / "made").mkdir()
    done = []
    (finding,) = write(Dataset("made", CLASSES, both), tmp_path / "made", Place(True, 2, lambda *at: done.append(at)))
    assert "left out" in finding.message
    assert [e.image.name for e in read(tmp_path / "made").examples] == ["small.png"]
    assert done == [(1, 2), (2, 2)]


@pytest.fixture
def sharded(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_SHARD_BYTES", 900)
    examples = [
        example(picture(tmp_path, f"{i}.png", i), [(i, 2, 30, 40)], [i % 3], [i == 0], "train") for i in range(8)
    ]
    (tmp_path / "made").mkdir()
    write(Dataset("made", CLASSES, tuple(examples)), tmp_path / "made", Place())
    return tmp_path / "made"


def test_many_records_are_divided_into_shards(sharded):
    shards = sorted(path.name for path in sharded.glob("train.record*"))
    assert len(shards) > 1
    assert shards == [f"train.record-{i:05d}-of-{len(shards):05d}" for i in range(len(shards))]
    back = read(sharded)
    assert [e.image.name for e in back.examples] == [f"{i}.png" for i in range(8)]
    assert {e.split for e in back.examples} == {"train"}
    assert back.findings == ()


_STOCK = """
import json, sys
import tensorflow as tf
names = ["xmin", "ymin", "xmax", "ymax"]
floats, whole = tf.io.VarLenFeature(tf.float32), tf.io.VarLenFeature(tf.int64)
spec = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "image/format": tf.io.FixedLenFeature([], tf.string),
    "image/filename": tf.io.FixedLenFeature([], tf.string),
    "image/height": tf.io.FixedLenFeature([], tf.int64),
    "image/width": tf.io.FixedLenFeature([], tf.int64),
    **{f"image/object/bbox/{name}": floats for name in names},
    "image/object/class/label": whole,
    "image/object/class/text": tf.io.VarLenFeature(tf.string),
    "image/object/difficult": whole,
}
rows = []
for raw in tf.data.TFRecordDataset(sorted(tf.io.gfile.glob(sys.argv[1] + "/train.record*"))):
    parsed = tf.io.parse_single_example(raw, spec)
    lists = {k: tf.sparse.to_dense(v).numpy().tolist() for k, v in parsed.items() if isinstance(v, tf.SparseTensor)}
    rows.append({
        "name": parsed["image/filename"].numpy().decode(),
        "shape": tf.io.decode_image(parsed["image/encoded"]).shape.as_list(),
        "size": [int(parsed["image/width"]), int(parsed["image/height"])],
        "box": [lists[f"image/object/bbox/{name}"] for name in names],
        "label": lists["image/object/class/label"],
        "text": [text.decode() for text in lists["image/object/class/text"]],
        "difficult": lists["image/object/difficult"],
    })
print(json.dumps(rows))
"""


def test_tensorflow_reads_them(sharded):
    said = subprocess.run(
        [sys.executable, "-c", _STOCK, sharded], capture_output=True, text=True, timeout=120, check=True
    )
    rows = json.loads(said.stdout)
    assert [row["name"] for row in rows] == [f"{i}.png" for i in range(8)]
    for i, row in enumerate(rows):
        assert (row["shape"], row["size"]) == ([48, 64, 3], [64, 48])
        assert np.allclose(row["box"], np.array([[i / 64], [2 / 48], [30 / 64], [40 / 48]]))
        assert (row["label"], row["text"], row["difficult"]) == ([i % 3 + 1], [CLASSES[i % 3]], [int(i == 0)])

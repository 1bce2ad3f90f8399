"""TFRecord files of the TF Object Detection API, with their label map."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tlx.data.container import read_bytes
from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.formats import labelmap, tfrecords
from tlx.data.formats.odapi import features
from tlx.data.formats.tfexample import encode
from tlx.data.images import image_header
from tlx.data.place import Place, names
from tlx.data.unheld import Unheld
from tlx.registry import writers

_FILES = {"train": "train", "validation": "val", "test": "test", "": "unsplit"}
_SHARD_BYTES = 200_000_000
_DECODED = ("JPEG", "PNG", "GIF", "BMP")


@writers.register("tfrecord")
def tfrecord(dataset: Dataset, target: Path, place: Place) -> list[Finding]:
    """TFRecord: the TF Object Detection API's examples, a file for each split, and `label_map.pbtxt`.

    The files are `train.record`, `val.record`, `test.record` and, for images of no split, `unsplit.record`;
    beyond 200 MB they are divided into shards, `train.record-00000-of-00003`. Images are embedded byte for
    byte. Ignored boxes become difficult. Images with a class and no boxes are written as TF-Slim does. Format:
    object_detection/g3doc/using_your_own_dataset.md of github.com/tensorflow/models.

    Args:
      dataset: what to write.
      target: an empty folder.
      place: is told of every image.
    """
    unheld = Unheld("TFRecord", dataset, whole_images=True)
    classes = unheld.renamed(dataset.classes, lambda name: name.encode(errors="replace").decode())
    named = replace(dataset, classes=tuple(classes))
    (target / "label_map.pbtxt").write_text(labelmap.write(classes), encoding="utf-8", newline="\n")
    files = names(dataset.examples)
    for split, stem in _FILES.items():
        of_split = [(name, e) for name, e in zip(files, dataset.examples, strict=True) if e.split == split]
        if of_split:
            _write(target / f"{stem}.record", _records(of_split, named, unheld, place))
    return unheld.findings()


def _records(
    examples: Iterable[tuple[str, Example]], dataset: Dataset, unheld: Unheld, place: Place
) -> Iterator[bytes]:
    for name, example in examples:
        unheld.classless(example)
        kind = image_header(example.image).format
        if kind not in _DECODED:
            unheld.add(f"{kind} images so that TensorFlow decodes them; written as they are", example)
        image = read_bytes(example.image)
        if len(image) < tfrecords.MAX_BYTES * 0.9:
            yield encode(features(image, kind.lower(), name, example, dataset))
        else:
            unheld.add(f"images of {len(image):,} bytes; left out: a record should be small", example)
        place.count()


def _write(file: Path, records: Iterable[bytes]) -> None:
    """Write records to `file`, or to its shards where they are too many for one."""
    shards: list[Path] = []
    records = iter(records)
    pending = next(records, None)
    while pending is not None:
        shards.append(file.with_name(f"{file.name}-{len(shards):05d}"))
        with shards[-1].open("xb") as opened:
            size = 0
            while pending is not None and size < _SHARD_BYTES:
                size += tfrecords.write(opened, pending)
                pending = next(records, None)
    for shard in shards:
        shard.rename(file if len(shards) == 1 else f"{shard}-of-{len(shards):05d}")

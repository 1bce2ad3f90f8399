"""What a `tf.train.Example` says in the TF Object Detection API's words, and how to say it.

Format: object_detection/data_decoders/tf_example_decoder.py and g3doc/using_your_own_dataset.md of
github.com/tensorflow/models.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tlx.data.dataset import Dataset, Example
from tlx.data.files import spellings
from tlx.data.formats.tfexample import Values
from tlx.data.targets import ANY_CLASS

IMAGE = "image/encoded"
FORMAT = "image/format"
FILENAME = "image/filename"
SOURCE = "image/source_id"
WIDTH = "image/width"
HEIGHT = "image/height"
SIDES = tuple(f"image/object/bbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
TEXT = "image/object/class/text"
LABEL = "image/object/class/label"
DIFFICULT = "image/object/difficult"
IMAGE_TEXT = "image/class/text"
IMAGE_LABEL = "image/class/label"
_IGNORE = (DIFFICULT, "image/object/is_crowd", "image/object/group_of")
_MASKS = "image/object/mask"
_MOST = 100_000


class Labels(NamedTuple):
    """What one Example says.

    `image` is the encoded image, `name` the name that it goes by, `size` the (width, height) that it is said
    to have, or None. Of the n objects, `boxes` is float64 [n, 4], (x_min, y_min, x_max, y_max) as parts of
    the image's width and height; `texts` and `ids` are their classes by name ("" for none) and by number (0
    for none); `ignore` is bool [n]. `whole` is the (text, id) of the image's own class, where objects are not
    spoken of at all.
    """

    image: bytes
    name: str
    size: tuple[int, int] | None
    boxes: np.ndarray
    texts: list[str]
    ids: list[int]
    ignore: np.ndarray
    whole: tuple[str, int] | None
    masks: bool


def labels(features: Mapping[str, Values]) -> Labels:
    """Return what an Example's features say.

    Raises:
      ValueError: the image is missing, a feature has another type than it should, or lists that belong
        together have different lengths.
    """
    images = _bytes(features, IMAGE)
    if not images or not images[0]:
        raise ValueError(f"has no {IMAGE}, which must hold the image (it has {_some(features)})")
    sides = [_numbers(features, side) for side in SIDES]
    count = len(sides[0])
    if count > _MOST:
        raise ValueError(f"has {count:,} boxes where at most {_MOST:,} are read")
    texts, ids = _texts(features, TEXT), _integers(features, LABEL)
    for field, values in (*zip(SIDES[1:], sides[1:], strict=True), (TEXT, texts), (LABEL, ids)):
        if len(values) != count and (values or field in SIDES):
            raise ValueError(f"{field} has {len(values)} values where {SIDES[0]} has {count}; make it anew")
    return Labels(
        image=images[0],
        name=_name(features),
        size=_size(features),
        boxes=np.array(sides, np.float64).T.reshape(-1, 4),
        texts=texts or [""] * count,
        ids=ids or [0] * count,
        ignore=np.any([_flags(features, field, count) for field in _IGNORE], axis=0).reshape(count),
        whole=_whole(features),
        masks=bool(features.get(_MASKS)),
    )


def _whole(features: Mapping[str, Values]) -> tuple[str, int] | None:
    if any(field in features for field in (*SIDES, TEXT, LABEL)):
        return None
    texts, ids = _texts(features, IMAGE_TEXT), _integers(features, IMAGE_LABEL)
    return (texts[0] if texts else "", ids[0] if ids else 0) if texts or ids else None


def _flags(features: Mapping[str, Values], field: str, count: int) -> list[bool]:
    flags = _integers(features, field)
    if flags and len(flags) != count:
        raise ValueError(f"{field} has {len(flags)} values where {SIDES[0]} has {count}; make it anew")
    return [bool(flag) for flag in flags] or [False] * count


def _name(features: Mapping[str, Values]) -> str:
    said = next((texts[0] for field in (FILENAME, SOURCE) if any(texts := _texts(features, field)[:1])), "image")
    name = spellings(said)[-1].replace("\\", "/").rpartition("/")[2]
    kind = "".join(_texts(features, FORMAT)[:1]).lower()
    return name if "." in name or not kind.isalnum() else f"{name}.{kind.replace('jpeg', 'jpg')}"


def _size(features: Mapping[str, Values]) -> tuple[int, int] | None:
    width, height = _integers(features, WIDTH), _integers(features, HEIGHT)
    return (width[0], height[0]) if width and height else None


def _bytes(features: Mapping[str, Values], field: str) -> list[bytes]:
    return _typed(features, field, bytes, "bytes")


def _texts(features: Mapping[str, Values], field: str) -> list[str]:
    try:
        return [value.decode().strip() for value in _bytes(features, field)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{field} is no UTF-8 text; make it anew") from error


def _integers(features: Mapping[str, Values], field: str) -> list[int]:
    return _typed(features, field, int, "integers")


def _numbers(features: Mapping[str, Values], field: str) -> list[float]:
    return _typed(features, field, (float, int), "floating-point numbers")


def _typed(features: Mapping[str, Values], field: str, kind: type | tuple[type, ...], what: str) -> list:
    values = list(features.get(field, ())[: _MOST + 1])
    if values and not isinstance(values[0], kind):
        raise ValueError(f"{field} holds {type(values[0]).__name__} values where it should hold {what}; make it anew")
    return values


def _some(features: Mapping[str, Values]) -> str:
    names = sorted(features)
    return ", ".join(name[:50] for name in names[:12]) + (" and more" if len(names) > 12 else "") or "nothing"


def features(image: bytes, kind: str, name: str, example: Example, dataset: Dataset) -> dict[str, Values]:
    """Return the features that say what `labels` reads back; a box's `ignore` is said as difficult.

    `image` is the encoded image of format `kind`, such as "jpeg", which goes by `name`. A class's number is
    its position in the dataset's classes, counted from 1. Boxes of no class are not said.
    """
    said = {
        IMAGE: [image],
        FORMAT: [kind.encode()],
        FILENAME: [name.encode()],
        SOURCE: [name.encode()],
        WIDTH: [example.width],
        HEIGHT: [example.height],
    }
    kept = example.objects.labels != ANY_CLASS
    numbers = (example.objects.labels[kept] + 1).tolist()
    texts = [dataset.classes[number - 1].encode() for number in numbers]
    if dataset.task == "classification":
        return {**said, IMAGE_TEXT: texts, IMAGE_LABEL: numbers}
    sides = (example.objects.boxes[kept] / np.array([example.width, example.height] * 2, np.float64)).T.tolist()
    difficult = example.objects.ignore[kept].astype(int).tolist()
    return {**said, **dict(zip(SIDES, sides, strict=True)), TEXT: texts, LABEL: numbers, DIFFICULT: difficult}

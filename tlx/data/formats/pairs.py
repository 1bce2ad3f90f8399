"""Formats with one file of labels for each image: both are found, read and put together."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from tlx.data.assemble import Object, Record, unlabelled_records
from tlx.data.dataset import Finding
from tlx.data.files import ImageFiles, printable, read_limited, relative, stem

# Far more than labels of one image need, and little enough to be parsed in a second.
_MAX_BYTES = 2_000_000
# A file with more bad objects is not one of labels.
_MAX_BAD = 100


class Bad(NamedTuple):
    """An object without a usable box: where it stands, and what is wrong."""

    where: str
    problem: str


class Labels(NamedTuple):
    """What one file of labels holds.

    `names` are what the file calls its image, and `annotated` is the (width, height) that it tells.
    """

    objects: Iterable[Object | Bad]
    names: tuple[str, ...] = ()
    annotated: tuple[float, float] | None = None


def paired(
    reader: str,
    root: Path,
    folder: Path,
    files: Mapping[str, str],
    images: ImageFiles,
    parse: Callable[[bytes], Labels],
    unlabelled: Literal["skip", "background", "error"],
    findings: list[Finding],
) -> list[tuple[str, Record]]:
    """Return (key, record) for each image: `key` is that of its file of labels, or its own name without extension.

    The image is looked for by its key, then by the names that the labels give it. An object without a usable
    box is left out with a warning. A file from which nothing can be used costs its image, at error level:
    such an image would pass for background.

    Args:
      folder: where the files of labels are.
      files: their names in it, by key.
      parse: makes labels of a file's content; a ValueError says that it cannot.
      unlabelled: what an image without labels means; see `unlabelled_records`, which raises a DataError.
    """
    records = []
    prefix = "" if folder == root else f"{relative(folder, root)}/"
    for key, name in files.items():
        file = prefix + printable(name)
        try:
            labels = parse(read_limited(f"{folder}/{name}", _MAX_BYTES))
            objects, bad = _sorted_out(labels.objects)
        except (ValueError, OSError) as error:
            images.find(key)
            message = f"{error}; the image is left out: repair the file or remove it"
            findings.append(Finding("broken-annotation", "error", file, "", message))
            continue
        for where, problem in bad:
            findings.append(Finding("broken-object", "warning", file, where, f"{problem}; left out: repair it"))
        if image := images.locate([key, *labels.names], file, "", findings):
            records.append((key, Record(image, file, objects, annotated=labels.annotated)))
    background = unlabelled_records(reader, images.rest(), root, unlabelled, findings)
    return records + [(_key(record.image, images), record) for record in background]


def _sorted_out(objects: Iterable[Object | Bad]) -> tuple[list[Object], list[Bad]]:
    good: list[Object] = []
    bad: list[Bad] = []
    for one in objects:
        (bad if isinstance(one, Bad) else good).append(one)
        if len(bad) > _MAX_BAD:
            break
    if bad and (len(bad) > _MAX_BAD or not good):
        raise ValueError("{}: {}; {}".format(*bad[0], "nor is any other usable" if not good else "many more are bad"))
    return good, bad


def _key(image: Path, images: ImageFiles) -> str:
    folder = next(folder for folder in images.folders if image.is_relative_to(folder))
    return stem(image.relative_to(folder).as_posix())

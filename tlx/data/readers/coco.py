"""COCO instances files: one JSON for many images."""

import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from tlx.data.assemble import Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, relative, subfolders
from tlx.data.formats import cocobox, cocofile
from tlx.data.formats.cocobox import BoxesFrom
from tlx.data.formats.cocofile import Annotation, Content, Image
from tlx.data.formats.splitnames import named_split
from tlx.data.formats.uploads import image_names
from tlx.data.images import image_size
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

# Folders that hold one split each, as Roboflow writes them.
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testdev")
# So many JSON files in one folder are looked into.
_MOST = 50


def _sniff(path: Path) -> Sniff:
    try:
        root, files = _files(path, [])
        names = ", ".join(relative(file, root) for file in files)
        fits = all(map(cocofile.looks_like, files))
    except (DataError, OSError) as error:
        return Sniff(False, str(error))
    return Sniff(fits, f"{'' if fits else 'no '}lists of images, annotations and categories in {names}")


@readers.register("coco", sniff=_sniff)
def coco(
    path: Path,
    images: Path | None = None,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    boxes_from: Literal["bbox", "segmentation"] = "bbox",
) -> Dataset:
    """COCO: an instances JSON as COCO or a labelling tool writes it, or a folder with one for each split.

    A folder's files are in `annotations`, in the folder itself, in a folder for each split, or in any other
    folder in it; their names tell the splits: train2017 is train, val2017 is validation. The images are in
    `images/SPLIT`, `SPLIT`, `images` or beside the JSON; a file_name that is a URL means its last segment,
    with or without the id that a tool put before it. Crowds and what is marked `ignore` become ignore
    regions; images without annotations are background. Where a file's boxes all lie within 0 to 1, they are
    fractions of the image. Format: cocodataset.org/#format-data.

    Args:
      path: the JSON file or the folder.
      images: the folder with the images, where it is none of the usual ones.
      classes: the classes to keep, in this order; None keeps all that have boxes, sorted by name.
      merge: class names to replace, each by the name to use instead.
      boxes_from: where a box comes from: its bbox, or the bounds of its segmentation. An annotation without
        a bbox has those bounds either way.

    Raises:
      DataError: a JSON file is not COCO (the message says where), no image or box is found, or a class
        that is asked for does not occur.
    """
    path = existing(path, "coco")
    findings: list[Finding] = []
    root, files = _files(path, findings)
    records: list[Record] = []
    declared: set[str] = set()
    with _uncollected():
        for file, split in files.items():
            name = relative(file, root)
            content = cocofile.decode(file, name, findings)
            # Tools mix numbers and strings for the same id, so that ids are compared as text.
            names = {str(category.id): str(category.name).strip() for category in content.categories}
            pictures = _pictures(root, file, images, content, findings)
            records += _records(content, names, name, split, pictures, boxes_from, findings)
            declared.update(names.values())
            del content
        return assemble("coco", records, root, classes, merge, findings, declared)


@contextmanager
def _uncollected() -> Iterator[None]:
    # Lists by the hundred thousand and no cycles: searching them for some would take half of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _files(path: Path, findings: list[Finding]) -> tuple[Path, dict[Path, str]]:
    """Return the dataset's folder, and its JSON files with the split that each is."""
    if path.is_file():
        return path.parent.parent if path.parent.name.lower() == "annotations" else path.parent, {path: _split(path)}
    files: list[Path] = []
    for folder in subfolders(path, "annotations", "."):
        files = files or _instances(listing(path, folder, ".json", findings))
    for folder in subfolders(path, *_SPLITS) if not files else ():
        files += _instances(listing(path, folder, ".json", findings))
    for folder in subfolders(path, *_folders(path)) if not files else ():
        files += [file for file in listing(path, folder, ".json", findings)[:_MOST] if cocofile.looks_like(file)]
    if not files:
        raise DataError(f"readers.coco: no COCO file in {path}, its annotations, nor in {', '.join(_SPLITS)}")
    splits = {file: _split(file) for file in files}
    if len(files) > 1 and len(set(splits.values())) < len(files):
        names = ", ".join(relative(file, path) for file in files[:10])
        raise DataError(f"readers.coco: {path} has several JSON files of one split or of none ({names}): name one")
    return path, splits


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir())[:_MOST] if path.is_dir() else []


def _instances(files: list[Path]) -> list[Path]:
    """Return which of a folder's JSON files are meant: those named instances, else what looks so, else all."""
    named = [file for file in files if file.name.startswith("instances")]
    return named or [file for file in files[:_MOST] if cocofile.looks_like(file)] or files


def _split(file: Path) -> str:
    folder = file.parent.name.lower()
    return named_split(file.stem) or (named_split(folder) if folder in _SPLITS else None) or ""


def _pictures(root: Path, file: Path, images: Path | None, content: Content, findings: list[Finding]) -> ImageFiles:
    """Return the files of the first likely folder that has some of the images, or those of the whole root."""
    if images:
        folder = existing(images, "coco")
        return ImageFiles(folder, [folder], findings, deep=True)
    split = file.stem.rpartition("_")[2]
    beside = [file.parent] if file.parent.name.lower() != "annotations" else []
    sample = [name for image in content.images[:: len(content.images) // 50 + 1] for name in _names(image)]
    for folder in (*subfolders(root, f"images/{split}", split, "images"), *beside, root):
        notes: list[Finding] = []
        pictures = ImageFiles(root, [folder], notes, deep=True)
        if folder == root or any(map(pictures.find, sample)):
            break
    findings += notes
    return pictures


def _names(image: Image) -> list[str]:
    return image_names(image.file_name or image.coco_url or "")


def _records(
    content: Content,
    classes: Mapping[str, str],
    file: str,
    split: str,
    pictures: ImageFiles,
    boxes_from: BoxesFrom,
    findings: list[Finding],
) -> Iterator[Record]:
    bboxes, outlines = cocobox.bboxes(content.annotations), cocobox.outlines(content.annotations)
    fractions = cocobox.are_fractions(bboxes)
    _report_habits(content, fractions, file, findings)
    boxes = outlines if boxes_from == "segmentation" else np.where(np.isnan(bboxes), outlines, bboxes)
    # A NaN is no box, or none to compare with: neither is within the limit.
    agree = (np.abs(bboxes - outlines) <= 0.5).all(axis=1) | fractions | (boxes_from == "segmentation")
    sound = np.isfinite(boxes).all(axis=1)
    by_image: dict[str, list[tuple[Annotation, Object, bool]]] = defaultdict(list)
    for a, box, good, alike in zip(content.annotations, boxes.tolist(), sound.tolist(), agree.tolist(), strict=True):
        name = classes.get(str(a.category_id))
        obj = Object(name, tuple(box), bool(a.iscrowd or a.ignore), f"annotation {a.id}")
        doubtful = not good or name is None or (not alike and a.segmentation)
        by_image[str(a.image_id)].append((a, obj, doubtful))
    for image, picture in _located(_with_own_ids(content.images, file, findings), pictures, file, findings):
        labels = by_image.pop(str(image.id), ())
        objects = [
            obj
            for annotation, obj, doubtful in labels
            if not doubtful or _is_object(annotation, image, classes, boxes_from, file, findings)
        ]
        if picture:
            annotated = (image.width, image.height) if image.width and image.height else None
            record = Record(picture, file, objects, f"image {image.id}", split=split, annotated=annotated)
            yield _in_pixels(record) if fractions else record
    for key, labels in by_image.items():
        message = f"{len(labels)} annotations are of this image, which the file does not list; left out"
        findings.append(Finding("unknown-image", "warning", file, f"image {key}", message))


def _is_object(
    annotation: Annotation,
    image: Image,
    classes: Mapping[str, str],
    boxes_from: BoxesFrom,
    file: str,
    findings: list[Finding],
) -> bool:
    """Return whether a doubtful annotation is an object after all, and report what is odd about it."""
    where = f"image {image.id}, annotation {annotation.id}"
    if broken := cocobox.complaint(annotation, classes, boxes_from):
        message = f"{broken}; left out: repair or remove it"
        findings.append(Finding("broken-annotation", "error", file, where, message))
    elif odd := cocobox.disagreement(annotation, image):
        message = f"{odd}; if the segmentation is right: readers.coco.boxes_from = 'segmentation'"
        findings.append(Finding("bbox-segmentation", "warning", file, where, message))
    return not broken


def _in_pixels(record: Record) -> Record:
    try:
        width, height = size = image_size(record.image)
    except DataError:
        return record  # assemble meets the same error and reports it.
    objects = [
        obj._replace(box=(obj.box[0] * width, obj.box[1] * height, obj.box[2] * width, obj.box[3] * height))
        for obj in record.objects
    ]
    return record._replace(objects=objects, size=size)


def _with_own_ids(images: list[Image], file: str, findings: list[Finding]) -> list[Image]:
    first: dict[str, Image] = {}
    for image in images:
        earlier = first.setdefault(str(image.id), image)
        if earlier is not image:
            severity = "warning" if earlier.file_name == image.file_name else "error"
            message = (
                f"{image.file_name!r} has the id of {earlier.file_name!r}, so that its labels are unknown; left out"
            )
            findings.append(Finding("image-id-twice", severity, file, f"image {image.id}", message))
    return list(first.values())


def _located(
    images: list[Image], pictures: ImageFiles, file: str, findings: list[Finding]
) -> Iterator[tuple[Image, Path | None]]:
    """Yield each image with its file, or None; a file that several names fit is only theirs whose folders fit, too."""
    found = [pictures.locate(_names(image), file, f"image {image.id}", findings) for image in images]
    sharing: dict[Path | None, set[str | None]] = defaultdict(set)
    for image, picture in zip(images, found, strict=True):
        sharing[picture].add(image.file_name)
    for image, picture in zip(images, found, strict=True):
        if picture and len(sharing[picture]) > 1:
            ends = tuple(f"/{name.lstrip('./')}" for name in _names(image))
            if not picture.as_posix().endswith(ends):
                message = f"no image {image.file_name!r}, only {picture.name!r}, whose name is another's, too; left out"
                findings.append(Finding("missing-image", "warning", file, f"image {image.id}", message))
                yield image, None
                continue
        yield image, picture


def _report_habits(content: Content, fractions: bool, file: str, findings: list[Finding]) -> None:
    if fractions:
        message = "all of its boxes lie within 0 to 1; taken as fractions of the image's width and height"
        findings.append(Finding("boxes-as-fractions", "warning", file, "", message))
    without = [annotation for annotation in content.annotations if annotation.segmentation and not annotation.bbox]
    if without:
        message = (
            f"{len(without)} annotations have a segmentation and no bbox (this is the first); its bounds are taken"
        )
        where = f"image {without[0].image_id}, annotation {without[0].id}"
        findings.append(Finding("bbox-from-segmentation", "info", file, where, message))
    counts = defaultdict(set)
    for category in content.categories:
        counts[str(category.id)].add(str(category.name).strip())
    for key, names in counts.items():
        if len(names) > 1:
            message = f"one id has several names ({', '.join(sorted(names))}); the last is taken"
            findings.append(Finding("category-twice", "error", file, f"category {key}", message))

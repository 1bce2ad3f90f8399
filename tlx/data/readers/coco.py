"""COCO instances files: one JSON for many images."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from tlx.data.assemble import Record, assemble
from tlx.data.bulk import bulk
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, relative, subfolders
from tlx.data.formats import cocobox, cocofile
from tlx.data.formats.cocobox import BoxesFrom
from tlx.data.formats.cocofile import Annotation, Content, Image
from tlx.data.formats.splitnames import named_split
from tlx.data.formats.uploads import image_names
from tlx.data.images import image_size
from tlx.data.objects import Columns, joined
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

# Folders that hold one split each, as Roboflow writes them.
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testdev")
# So many contradictions are no accident, if they are most.
_SEVERAL = 4
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
    objects: list[Columns] = []
    declared: set[str] = set()
    with bulk():
        for file, split in files.items():
            content = cocofile.decode(file, relative(file, root), findings)
            # Tools mix numbers and strings for the same id, so that ids are compared as text.
            names = {str(category.id): str(category.name).strip() for category in content.categories}
            declared.update(names.values())
            pictures = _pictures(root, file, images, content, findings)
            found, own = _read(content, names, relative(file, root), split, pictures, boxes_from, findings)
            objects.append(own._replace(owners=own.owners + len(records)))
            records += found
            del content
        return assemble("coco", records, root, classes, merge, findings, declared, objects=joined(objects))


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


def _read(
    content: Content,
    classes: Mapping[str, str],
    file: str,
    split: str,
    pictures: ImageFiles,
    boxes_from: BoxesFrom,
    findings: list[Finding],
) -> tuple[list[Record], Columns]:
    """Return a record for each image that is there, and all their objects, whose owners are those records."""
    annotations = content.annotations
    bboxes, outlines = cocobox.bboxes(annotations), cocobox.outlines(annotations)
    fractions = cocobox.are_fractions(bboxes)
    _report_habits(content, fractions, file, findings)
    boxes = outlines if boxes_from == "segmentation" else np.where(np.isnan(bboxes), outlines, bboxes)
    # A NaN is no box, or none to compare with: neither is within the limit.
    agree = (np.abs(bboxes - outlines) <= 0.5).all(axis=1) | fractions | (boxes_from == "segmentation")
    images = _with_own_ids(content.images, file, findings)
    located = _located(images, pictures, file, findings)
    names = {key: classes.get(str(key)) for key in {a.category_id for a in annotations}}
    objects = Columns(
        _owners(content, images, file, findings),
        np.array([names[a.category_id] for a in annotations], np.object_),
        boxes,
        np.array([bool(a.iscrowd or a.ignore) for a in annotations], np.bool_),
        np.array([_where(i, annotation) for i, annotation in enumerate(annotations)], np.object_),
    )
    _leave_out_broken(objects, agree, annotations, images, classes, boxes_from, file, findings)
    there = np.array([picture is not None for picture in located], np.bool_)
    # An owner of -1 looks at the last place.
    objects = objects.moved(np.append(np.where(there, np.cumsum(there) - 1, -1), -1))
    records = [
        Record(picture, file, (), f"image {image.id}", split=split, annotated=_annotated(image))
        for image, picture in zip(images, located, strict=True)
        if picture
    ]
    return _in_pixels(records, objects) if fractions else (records, objects)


def _annotated(image: Image) -> tuple[float, float] | None:
    return (image.width, image.height) if image.width and image.height else None


def _owners(content: Content, images: list[Image], file: str, findings: list[Finding]) -> np.ndarray:
    """Return the position of each annotation's image, -1 where there is none."""
    positions = {str(image.id): i for i, image in enumerate(images)}
    counts = Counter(annotation.image_id for annotation in content.annotations)
    owners = {key: positions.get(str(key), -1) for key in counts}
    for key, owner in owners.items():
        if owner < 0:
            message = f"{counts[key]} annotations are of this image, which the file does not list; left out"
            findings.append(Finding("unknown-image", "warning", file, f"image {key}", message))
    return np.array([owners[annotation.image_id] for annotation in content.annotations], np.int64)


def _leave_out_broken(
    objects: Columns,
    agree: np.ndarray,
    annotations: list[Annotation],
    images: list[Image],
    classes: Mapping[str, str],
    boxes_from: BoxesFrom,
    file: str,
    findings: list[Finding],
) -> None:
    """Set the owners of annotations that are no objects to -1, and report what is odd about these and others."""
    unfit = ~np.isfinite(objects.boxes).all(axis=1) | np.equal(objects.names, None)
    owners = objects.owners
    contradicted = 0
    for i in sorted(np.flatnonzero((unfit | ~agree) & (owners >= 0)).tolist(), key=owners.__getitem__):
        annotation = annotations[i]
        if not unfit[i] and not cocofile.outlined(annotation):
            continue
        image = images[owners[i]]
        where = f"image {image.id}, {_where(i, annotation)}"
        if broken := cocobox.complaint(annotation, classes, boxes_from):
            message = f"{broken}; left out: repair or remove it"
            findings.append(Finding("broken-annotation", "error", file, where, message))
            owners[i] = -1
            continue
        try:
            odd = cocobox.disagreement(annotation, image)
        except ValueError as error:
            message = f"its segmentation is broken ({error}); only its bbox is taken"
            findings.append(Finding("broken-segmentation", "warning", file, where, message))
            continue
        if odd:
            message = f"{odd}; if the segmentation is right: readers.coco.boxes_from = 'segmentation'"
            findings.append(Finding("bbox-segmentation", "warning", file, where, message))
            contradicted += 1
    outlined = contradicted and sum(map(cocofile.outlined, annotations))
    if contradicted >= _SEVERAL and contradicted > outlined / 2:
        message = (
            f"{contradicted} of {outlined} boxes contradict their own segmentation, so the file as a whole is wrong; "
            "look at some pictures, and if the segmentation is right: readers.coco.boxes_from = 'segmentation'"
        )
        findings.append(Finding("boxes-contradicted", "error", file, "", message))


def _where(position: int, annotation: Annotation) -> str:
    return f"annotations[{position}]" if annotation.id is None else f"annotation {annotation.id}"


def _in_pixels(records: list[Record], objects: Columns) -> tuple[list[Record], Columns]:
    sized = [record._replace(size=_size(record)) for record in records]
    scales = np.array([record.size or (1, 1) for record in sized], np.float64).reshape(-1, 2)
    return sized, objects._replace(boxes=objects.boxes * scales[objects.owners][:, [0, 1, 0, 1]])


def _size(record: Record) -> tuple[int, int] | None:
    try:
        return image_size(record.image)
    except DataError:
        return None  # assemble meets the same error and reports it.


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


def _located(images: list[Image], pictures: ImageFiles, file: str, findings: list[Finding]) -> list[Path | None]:
    """Return each image's file, or None; a file that several names fit is only theirs whose folders fit, too."""
    found = [pictures.locate(_names(image), file, f"image {image.id}", findings) for image in images]
    sharing: dict[Path | None, set[str | None]] = defaultdict(set)
    for image, picture in zip(images, found, strict=True):
        sharing[picture].add(image.file_name)
    for i, (image, picture) in enumerate(zip(images, found, strict=True)):
        if picture and len(sharing[picture]) > 1:
            ends = tuple(f"/{name.lstrip('./')}" for name in _names(image))
            if not picture.as_posix().endswith(ends):
                message = f"no image {image.file_name!r}, only {picture.name!r}, whose name is another's, too; left out"
                findings.append(Finding("missing-image", "warning", file, f"image {image.id}", message))
                found[i] = None
    return found


def _report_habits(content: Content, fractions: bool, file: str, findings: list[Finding]) -> None:
    if fractions:
        message = "all of its boxes lie within 0 to 1; taken as fractions of the image's width and height"
        findings.append(Finding("boxes-as-fractions", "warning", file, "", message))
    without = [a for a in content.annotations if not a.bbox and cocofile.outlined(a)]
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

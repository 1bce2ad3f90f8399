"""A repaired copy of a dataset; the original is only read."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlx.data import container
from tlx.data.convert import convert
from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.doctor.checkup import grouped
from tlx.data.doctor.patient import Patient, admit
from tlx.data.doctor.pictures import lies
from tlx.data.images import open_image
from tlx.data.names import near_misses
from tlx.data.similarity import same
from tlx.data.survey import Picture
from tlx.data.targets import ANY_CLASS
from tlx.errors import DataError

Report = Callable[[str, int, int], None]
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "PPM": ".ppm", "PNG": ".png", "BMP": ".bmp"}
_SUFFIXES |= {"GIF": ".gif", "WEBP": ".webp"}
# Of copies in several parts, the one that judges stays.
_PRECEDENCE = ("test", "validation", "train", "")


def repair(
    dataset: Dataset, root: Path, target: Path, format: str, report: Report = lambda *_: None
) -> tuple[Finding, ...]:
    """Write a repaired copy of the dataset that was read from `root`, and return what was done, as findings.

    Broken boxes and annotations are not in it, since reading left them out or clipped them. Images that cannot
    be read are left out, and so are copies with equal labels. Images that are turned by EXIF, CMYK, transparent or
    of more than 8 bits are encoded anew, upright and as 8-bit RGB: JPEG as JPEG, all others as PNG. One whose name
    lies about its format gets the right suffix. All other images are copied byte for byte. Class names that differ
    in letter case and separators alone become one. `format` is a writer's name; `report` is told what goes on, and
    how many images of how many are done.

    Raises:
      DataError: `target` lies within `root`, or is not free, or nothing is left to write.
    """
    if target.resolve().is_relative_to(container.holder(root).resolve()):
        raise DataError(f"{target} lies within {root}, which is never changed; name a folder elsewhere")
    done = _as_read(dataset)
    dataset = _with_merged_classes(dataset, done)
    dataset = _without_bad_images(admit(dataset, (1, 1), root), dataset, done)
    if not len(dataset):
        raise DataError(f"{root}: no image can be read, so there is nothing to repair")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as work:
        mended = _with_mended_images(admit(dataset, (1, 1), root), dataset, Path(work), done, report)
        # Copies, not links: whatever is done to the repaired pictures must not reach the originals.
        lost = convert(mended, target, format, link=False, report=lambda n, of: report("writing the copy", n, of))
    return (*done, *lost)


def _as_read(dataset: Dataset) -> list[Finding]:
    return [
        replace(found[0], severity="info", message=f"{len(found)} x not in the copy any more: {found[0].message}")
        for found in grouped(dataset.findings).values()
        if found[0].severity != "info" and found[0].code not in ("near-miss-class", "bbox-segmentation")
    ]


def _with_merged_classes(dataset: Dataset, done: list[Finding]) -> Dataset:
    counts = dataset.counts()
    # Among names that are equally common, only letter case and separators make one of two.
    merge = {rare: common for rare, common in near_misses(counts) if any(near_misses({rare: 1, common: 1}))}
    if not merge:
        return dataset
    for rare, common in merge.items():
        message = f"{counts[rare]} x {rare!r} are {common!r} in the copy"
        done.append(Finding("merged-class", "info", "", f"class {rare}", message))
    classes = tuple(name for name in dataset.classes if name not in merge)
    table = np.array([*(classes.index(merge.get(name, name)) for name in dataset.classes), ANY_CLASS], np.int32)
    examples = tuple(replace(example, targets=example.targets.relabelled(table)) for example in dataset.examples)
    return replace(dataset, classes=classes, examples=examples)


def _without_bad_images(patient: Patient, dataset: Dataset, done: list[Finding]) -> Dataset:
    left_out = {}
    for i, (example, picture) in enumerate(zip(patient.examples, patient.pictures, strict=True)):
        if picture.error:
            left_out[i] = patient.at(example, "left-out-image", "info", f"cannot be read: {picture.error}")
    for i, kept in _spare_copies(patient):
        message = f"has the same bytes and labels as {patient.name(patient.examples[kept])}, which is in the copy"
        left_out.setdefault(i, patient.at(patient.examples[i], "left-out-copy", "info", message))
    done += [left_out[i] for i in sorted(left_out)]
    return replace(dataset, examples=tuple(e for i, e in enumerate(patient.examples) if i not in left_out))


def _spare_copies(patient: Patient) -> Iterator[tuple[int, int]]:
    """Yield (the copy that is spare, the one that stays); copies with different labels all stay."""
    for first, others in same([picture.sha256 for picture in patient.pictures]):
        staying: list[int] = []
        for i in sorted((first, *others.tolist()), key=lambda i: (_PRECEDENCE.index(patient.examples[i].split), i)):
            twin = next((j for j in staying if patient.examples[i].targets.agrees(patient.examples[j].targets)), None)
            if twin is None:
                staying.append(i)
            else:
                yield i, twin


def _with_mended_images(patient: Patient, dataset: Dataset, work: Path, done: list[Finding], report: Report) -> Dataset:
    examples = []
    for i, (example, picture) in enumerate(zip(patient.examples, patient.pictures, strict=True)):
        folder = work / str(i)
        if reason := _reason(picture):
            image = _encoded(example, picture, folder)
            done.append(patient.at(example, "re-encoded-image", "info", f"was {reason}; is upright 8-bit RGB"))
        elif lies(example, picture):
            image = _renamed(example, picture, folder)
            done.append(patient.at(example, "mended-suffix", "info", f"is {image.name}, since it is {picture.format}"))
        else:
            image = example.image
        examples.append(replace(example, image=image))
        report("repairing", i + 1, len(patient.examples))
    return replace(dataset, examples=tuple(examples), findings=())


def _reason(picture: Picture) -> str:
    reasons = {
        "turned by EXIF": picture.orientation != 1,
        "CMYK": picture.mode == "CMYK",
        "transparent": picture.transparent,
        "of more than 8 bits": picture.deep,
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


def _encoded(example: Example, picture: Picture, folder: Path) -> Path:
    folder.mkdir()
    jpeg = picture.format in ("JPEG", "MPO")
    image = folder / f"{example.image.stem}{'.jpg' if jpeg else '.png'}"
    settings = {"quality": 95, "subsampling": 0} if jpeg else {}
    open_image(example.image).save(image, **settings)
    return image


def _renamed(example: Example, picture: Picture, folder: Path) -> Path:
    folder.mkdir()
    image = folder / f"{example.image.stem}{_SUFFIXES[picture.format]}"
    with container.opened(example.image) as source, image.open("xb") as copy:
        shutil.copyfileobj(source, copy)
    return image

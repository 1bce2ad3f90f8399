"""KITTI object detection folders: one text file per image."""

from pathlib import Path

from tlx.data.assemble import Object, Record, assemble, unlabelled_records
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import ImageFiles, existing, listing, relative, subfolders
from tlx.errors import DataError
from tlx.registry import readers

_MAX_BYTES = 16_000_000


@readers.register("kitti")
def kitti(
    path: Path,
    classes: tuple[str, ...] | None = None,
    merge: dict[str, str] | None = None,
    max_truncated: float = 1.0,
    max_occluded: int = 3,
) -> Dataset:
    """KITTI object detection: a folder with `image_2` and `label_2`, or one whose `training` has them.

    Coordinates are taken as they stand: they are 0-based, with fractions, and KITTI's own evaluation
    measures a box as right - left, without the 1 of an inclusive pixel. DontCare becomes an ignore region
    of no class. A box that passes the image's edge is clipped. Format and evaluation: readme.txt and
    evaluate_object.cpp of the object development kit, cvlibs.net/datasets/kitti/eval_object.php.

    Args:
      path: the folder.
      classes: the types to keep, in this order; None keeps all, sorted by name.
      merge: types to replace, such as {'Van': 'Car'}.
      max_truncated: objects of which a larger part (0 to 1) lies outside the image become ignore regions.
      max_occluded: objects occluded more become ignore regions: 0 fully visible, 1 partly, 2 largely, 3 unknown.

    Raises:
      DataError: the folders or any box are missing, or a type that is asked for does not occur.
    """
    root = existing(path, "kitti")
    labels, pictures = _folders(root)
    findings: list[Finding] = []
    images = ImageFiles(root, [pictures], findings)
    records, labelled = [], set()
    for file in listing(root, labels, ".txt", findings):
        labelled.update(images.find(file.stem))
        name = relative(file, root)
        try:
            objects = _parse(file, max_truncated, max_occluded)
        except (ValueError, OSError) as error:
            message = f"{error}; the image is left out: repair the file or remove it"
            findings.append(Finding("broken-annotation", "error", name, "", message))
            continue
        if image := images.locate([file.stem], name, "", findings):
            records.append(Record(image, name, objects))
    orphans = [image for image in images.images() if image not in labelled]
    unlabelled_records("kitti", orphans, root, "skip", findings)
    return assemble("kitti", records, root, classes, merge, findings, clipping="expected")


def _folders(root: Path) -> tuple[Path, Path]:
    for base in (root, *subfolders(root, "training")):
        found = subfolders(base, "label_2", "image_2")
        if len(found) == 2:
            return found[0], found[1]
    raise DataError(f"readers.kitti: neither {root} nor {root / 'training'} has both folders label_2 and image_2")


def _parse(file: Path, max_truncated: float, max_occluded: int) -> list[Object]:
    if file.stat().st_size > _MAX_BYTES:
        raise ValueError(f"the file has more than {_MAX_BYTES:,} bytes")
    objects = []
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
        columns = line.split()
        if not columns:
            continue
        if len(columns) not in (15, 16):
            raise ValueError(f"line {number} has {len(columns)} columns where KITTI has 15, or 16 with a score")
        try:
            truncated, occluded, _, x0, y0, x1, y1 = map(float, columns[1:8])
        except ValueError as error:
            raise ValueError(f"line {number}: columns 2 to 8 must be numbers ({error})") from error
        where = f"line {number}"
        if columns[0] == "DontCare":
            objects.append(Object(None, (x0, y0, x1, y1), True, where))
        else:
            ignore = truncated > max_truncated or occluded > max_occluded
            objects.append(Object(columns[0], (x0, y0, x1, y1), ignore, where))
    return objects

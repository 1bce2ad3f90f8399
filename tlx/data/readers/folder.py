"""Class folders: the folder that an image is in is its class."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tlx.data import container
from tlx.data.assemble import Object, Record, assemble
from tlx.data.dataset import Dataset, Finding
from tlx.data.files import entries, existing, listing, relative
from tlx.data.formats.notes import Notes
from tlx.data.formats.splitnames import named_split
from tlx.data.images import SUFFIXES, image_size
from tlx.data.sniff import Sniff
from tlx.errors import DataError
from tlx.registry import readers

_LITTER = ("__macosx", "thumbs.db", "desktop.ini")
# Folders that other formats keep their images and labels in; nobody's classes.
_OTHERS = frozenset(
    (
        *("images", "image", "imgs", "img", "jpegimages", "annotations", "labels", "calib", "velodyne"),
        *(f"{kind}_{number}" for kind in ("image", "label") for number in ("2", "3", "00", "01", "02", "03")),
    )
)
_LABELS = (".xml", ".json", ".ndjson")
# What a sniff looks at: so many files of a folder, so many in all, and so many levels.
_ENOUGH = 100
_TOO_MANY = 200_000
_DEEP = 5

Parts = tuple[str, ...]


class _Layout(NamedTuple):
    """How a tree of images is to be read: below the folder `wrap`, and whether split folders come first there."""

    wrap: Parts
    splits: bool

    def place(self, parts: Parts) -> tuple[str, str] | None:
        """Return the (split, class) of the image at these parts of a path, or None where it has no class."""
        if parts[: len(self.wrap)] != self.wrap:
            return None
        parts = parts[len(self.wrap) :]
        if not self.splits:
            return ("", parts[0]) if len(parts) > 1 else None
        split = named_split(parts[0])
        # A zip made of a folder may hold that once more: training_set/training_set/cats.
        again = len(parts) > 3 and named_split(parts[1]) == split
        inner = parts[2:] if again else parts[1:]
        return (split, inner[0]) if split is not None and len(inner) > 1 else None


def _sniff(path: Path) -> Sniff:
    try:
        names = list(_looked_at(_only_zip(path)))
    except (DataError, OSError) as error:
        return Sniff(False, str(error))
    images = [parts for parts in names if _is_image(parts)]
    labels = [parts for parts in names if parts[-1].lower().endswith(_LABELS)]
    texts = [parts for parts in names if parts[-1].lower().endswith(".txt")]
    tracks = {name.lower() for parts in names for name in parts[:-1]} & {"label_02", "image_02", "label_2", "image_2"}
    if tracks:
        return Sniff(False, f"the folder {min(tracks)} is KITTI's, not a class")
    if labels or len(texts) > max(3, len(images) // 10):
        return Sniff(False, f"there are files that may hold labels, such as {'/'.join((labels or texts)[0])}")
    layout = _layout(images)
    classes = sorted({place[1] for parts in images if (place := layout.place(parts))})
    if len(classes) < 2:
        return Sniff(False, "no two folders of images that could be classes" if images else "no images")
    if odd := [name for name in classes if name.lower() in _OTHERS]:
        return Sniff(False, f"the folder {odd[0]} is no class")
    return Sniff(True, f"{len(classes)} folders of images, such as {', '.join(classes[:3])}")


def _only_zip(path: Path) -> Path:
    """Return the zip that is all that a folder holds beside texts, or else the path itself."""
    there = [name for name in entries(path) if not name.lower().endswith((".md", ".txt"))]
    return path / there[0] if len(there) == 1 and there[0].lower().endswith(".zip") else path


def _looked_at(path: Path) -> Iterator[Parts]:
    """Yield the paths of some files in each folder, enough to tell what is there."""
    if path.is_file():
        yield from (_parts(file, path) for file in container.members(path))
        return
    seen = 0
    for parts, _, names in _walk(path):
        yield from ((*parts, name) for name in names[:_ENOUGH])
        seen += len(names)
        if seen > _TOO_MANY:
            return


def _walk(root: Path) -> Iterator[tuple[Parts, list[str], list[str]]]:
    """Yield each folder's path below `root`, its folders' and its files' names, down to where a class can be."""
    for here, folders, names in os.walk(root):
        parts = Path(here).relative_to(root).parts
        if len(parts) >= _DEEP:
            folders.clear()
        folders.sort()
        yield parts, folders, names


@readers.register("folder", sniff=_sniff)
def folder(path: Path, classes: tuple[str, ...] | None = None, merge: dict[str, str] | None = None) -> Dataset:
    """Class folders, for classification: `CLASS/IMAGE` or `SPLIT/CLASS/IMAGE`, as a folder or a zip read in place.

    The splits are folders named like `train`, `val`, `valid` or `test`. Of deeper folders the first one is the
    class. A folder around everything is looked through. Hidden files, and files that are no images by their
    extension, are counted and left out.

    Args:
      path: the folder, the zip, or a folder with nothing but the zip.
      classes: the classes to keep, in this order; None keeps all, sorted by name.
      merge: class names to replace, each by the name to use instead.

    Raises:
      DataError: no image is in a class folder, the zip is damaged, or a class that is asked for does not occur.
    """
    root = _only_zip(existing(path, "folder"))
    findings: list[Finding] = []
    notes = Notes()
    files, folders = _files(root, findings, notes)
    images = _images(files, root, notes)
    layout = _layout(list(images.values()))
    records = list(_records(images, layout, notes))
    _report_empty(folders, images.values(), layout, notes)
    findings += notes.findings()
    if not records:
        seen = "".join(f"\n  {finding}" for finding in findings[:10])
        raise DataError(f"readers.folder: no image in {root} is in a class folder; expected CLASS/IMAGE.jpg{seen}")
    return assemble("folder", records, root, classes, merge, findings).of_whole_images()


def _files(root: Path, findings: list[Finding], notes: Notes) -> tuple[list[Path], list[Parts]]:
    """Return the files of a folder or a zip, and its folders, by their parts."""
    if root.is_dir():
        tree = list(_walk(root))
        folders = [(*parts, name) for parts, inner, _ in tree for name in inner]
        # A listing passes over hidden files, which are counted here.
        hidden = [
            root.joinpath(*parts, name) for parts, _, names in tree for name in names if _is_dotted((*parts, name))
        ]
        return listing(root, root, None, findings, deep=True) + hidden, folders
    held = container.contents(root)
    for name, why in held.left_out:
        message = f"a file of the zip that is left out: {why}"
        notes.add("unreadable-member", "warning", name[:200] or root.name, "", message)
    return held.files, [_parts(one, root) for one in held.folders]


def _images(files: Iterable[Path], root: Path, notes: Notes) -> dict[Path, Parts]:
    images = {}
    for file in files:
        parts = _parts(file, root)
        if _is_hidden(parts):
            notes.add("hidden-file", "info", "/".join(parts), "", "a hidden file or one of a system's; left out")
        elif _is_image(parts):
            images[file] = parts
        else:
            notes.add("other-file", "info", "/".join(parts), "", "a file that is no image by its extension; left out")
    return images


def _parts(path: Path, root: Path) -> Parts:
    return tuple(relative(path, root).split("/"))


def _is_hidden(parts: Parts) -> bool:
    return _is_dotted(parts) or any(part.lower() in _LITTER for part in parts)


def _is_dotted(parts: Parts) -> bool:
    return any(part.startswith(".") for part in parts)


def _is_image(parts: Parts) -> bool:
    return os.path.splitext(parts[-1])[1].lower() in SUFFIXES and not _is_hidden(parts)


def _layout(images: Sequence[Parts]) -> _Layout:
    wrap: Parts = ()
    while True:
        folders = {parts[0] for parts in images if len(parts) > 1}
        deep = [parts for parts in images if len(parts) > 2]
        told = {named_split(parts[0]) for parts in deep} - {None}
        # A class may be called "train"; splits hold folders, or nothing is left that could be a class.
        if folders and (len(told) > 1 or all(named_split(name) is not None for name in folders)):
            return _Layout(wrap, True)
        if len(folders) != 1 or 2 * len(deep) <= len(images):
            return _Layout(wrap, False)
        wrap += tuple(folders)
        images = [parts[1:] for parts in deep]


def _records(images: dict[Path, Parts], layout: _Layout, notes: Notes) -> Iterator[Record]:
    for image, parts in images.items():
        place, file = layout.place(parts), "/".join(parts)
        if place is None:
            notes.add("no-class", "warning", file, "", "an image that is in no class folder; left out")
            continue
        split, name = place
        try:
            size = image_size(image)
        except DataError:
            size = None  # Assemble reports it.
        yield Record(image, file, [Object(name, (0, 0, *(size or (1, 1))))], split=split, size=size)


def _report_empty(folders: Iterable[Parts], images: Iterable[Parts], layout: _Layout, notes: Notes) -> None:
    images = list(images)
    filled = {layout.place(parts) for parts in images}
    around = {parts[:level] for parts in images for level in range(len(parts))}
    for parts in folders:
        place = layout.place((*parts, ""))
        if place and place not in filled and parts not in around and not _is_hidden(parts):
            filled.add(place)
            notes.add("empty-class", "warning", "/".join(parts), "", "a class folder without images")

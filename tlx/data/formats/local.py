"""Where the images that a manifest's rows name are on this machine."""

import os
from pathlib import Path

from tlx.data.dataset import Finding
from tlx.data.files import ImageFiles, relative, spellings, subfolders
from tlx.data.formats import fetched
from tlx.data.images import file_hash
from tlx.errors import DataError


class LocalImages:
    """The images of one manifest: those that `tlx fetch` downloaded, and those in the folders beside it.

    Nothing outside of `root`, or of `images` where that folder is given, is ever taken, whatever a row names.
    """

    def __init__(self, manifest: Path, root: Path, images: Path | None, findings: list[Finding]):
        self._root = images or root
        self._beside = images or manifest.parent
        self._folder = images or fetched.default_folder(manifest)
        self._index, broken = fetched.load(self._folder)
        if broken:
            message = f"{len(broken)} lines cannot be read; fetch again what they named"
            where = relative(self._folder / fetched.INDEX, root)
            findings.append(Finding("broken-index", "warning", where, f"line {broken[0]}", message))
        folders = [images] if images else subfolders(manifest.parent, self._folder.name, "images")
        self._deep = ImageFiles(self._root, folders, findings, deep=True)
        # What else links out of this folder is no concern of the manifest's.
        self._shallow = ImageFiles(self._root, [self._beside], [])
        self._urls: dict[Path, str] = {}

    def find(self, names: tuple[str, ...], file: str, where: str) -> Path | Finding | None:
        """Return the image that goes by one of `names`, why it cannot be taken, or None where it is missing."""
        for name in names:
            if entry := self._index.get(name):
                image = self._folder / entry.file
                if found := self._checked(image, file, where):
                    if isinstance(found, Path) and not _has_hash(found, entry.sha256):
                        message = f"{entry.file} is no longer what was downloaded; left out: run tlx fetch again"
                        return Finding("changed-image", "error", file, where, message)
                    return found
        for name in names:
            if "://" not in name and (found := self._checked(self._beside / name.replace("\\", "/"), file, where)):
                return found
        for spelling in (spelling for name in names for spelling in spellings(name)):
            for place in (self._deep, self._shallow):
                if found := place.find(spelling):
                    return self._unmistakable(found, names, file, where)
        return None

    def _checked(self, image: Path, file: str, where: str) -> Path | Finding | None:
        if not os.path.isfile(image):
            return None
        image = Path(os.path.normpath(image))
        if Path(os.path.realpath(image)).is_relative_to(os.path.realpath(self._root)):
            return image
        message = f"names {image}, which is or links outside of {self._root}; left out: copy the file in"
        return Finding("outside-folder", "error", file, where, message)

    def _unmistakable(self, found: list[Path], names: tuple[str, ...], file: str, where: str) -> Path | Finding:
        if len(found) > 1:
            several = ", ".join(path.name for path in found[:10])
            message = f"several images fit {names[0]!r} ({several}); left out: rename or remove all but one"
            return Finding("ambiguous-image", "warning", file, where, message)
        image, name = found[0], names[0]
        # Two servers may have an `1.jpg` each, of which only one can be this one.
        if "://" in name and self._urls.setdefault(image, name) != name:
            message = f"{image.name} is taken for {self._urls[image]} already; {name} left out: let tlx fetch name them"
            return Finding("ambiguous-image", "warning", file, where, message)
        return image


def _has_hash(image: Path, sha256: str) -> bool:
    try:
        return file_hash(image) == sha256
    except (OSError, DataError):
        return False

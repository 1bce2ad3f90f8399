"""What splitting yields: an experiment's parts, which share no picture."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.images import file_hash
from tlx.data.similarity import relations
from tlx.data.targets import ANY_CLASS
from tlx.errors import DataError, suggest

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """The parts of an experiment's data; `test` may be missing.

    `findings` are those of the readers, and what splitting brought to light.
    """

    train: Dataset
    validation: Dataset
    test: Dataset | None
    findings: tuple[Finding, ...] = ()

    def parts(self) -> dict[str, Dataset]:
        """Return the parts that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    def lists(self) -> dict[str, list[str]]:
        """Return each part's image paths, with forward slashes, relative to the folder common to all of them."""
        everything = [example for part in self.parts().values() for example in part.examples]
        short = dict(zip((example.image for example in everything), relative_paths(everything), strict=True))
        return {name: [short[example.image] for example in part.examples] for name, part in self.parts().items()}

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the parts hold: image bytes, boxes, labels, ignore flags and classes.

        File names, folders and the order of the images make no difference.
        """
        total = hashlib.sha256()
        for name, part in self.parts().items():
            total.update(repr((name, part.classes, len(part))).encode())
            total.update(b"".join(sorted(digest(example) for example in part.examples)))
        return total.hexdigest()


def checked(parts: Splits, allow_leakage: bool) -> Splits:
    """Return the splits with a finding for each look-alike across parts; refuse one picture in two parts."""
    everything = [(name, example) for name, part in parts.parts().items() for example in part.examples]
    found = []
    for one in relations([example.image for _, example in everything]):
        kind, example = everything[one.image]
        for other_kind, other in (everything[j] for j in one.others):
            if other_kind == kind:
                continue
            message = f"{other.image} ({other_kind}) {one.verb} {example.image} ({kind})"
            if one.exact and not allow_leakage:
                raise DataError(
                    f"{message}, so results would mean little; take it out of one part, "
                    "divide with @splits.ratio(), or set allow_leakage = True"
                )
            found.append(Finding(f"{one.code}-across-splits", "warning", other.image.name, "", message))
    return replace(parts, findings=parts.findings + tuple(found))


def relabelled(part: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Return the same examples with labels that are positions in the training data's `classes`.

    Raises:
      DataError: the examples have a class that is not one of these.
    """
    for name in part.classes:
        if name not in classes:
            known = ", ".join(classes)
            raise DataError(
                f"{part.name}: the training data has no class {name!r} (it has {known}){suggest(name, classes)} "
                "merge or leave out the class in the reader"
            )
    # The last position serves labels of no class, since it is what index -1 finds.
    table = np.array([*(classes.index(name) for name in part.classes), ANY_CLASS], np.int32)
    examples = tuple(replace(example, targets=example.targets.relabelled(table)) for example in part.examples)
    return replace(part, classes=classes, examples=examples)


def part_of(dataset: Dataset, chosen: np.ndarray, name: str) -> Dataset:
    """Return the examples that `chosen`, bool [n], says, as the part `name`."""
    return dataset.subset(np.flatnonzero(chosen).tolist(), f"{dataset.name} {name}")


def relative_paths(examples: Sequence[Example]) -> list[str]:
    """Return each image's path, with forward slashes, relative to the folder common to all of them."""
    paths = [Path(os.path.abspath(example.image)) for example in examples]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [path.relative_to(root).as_posix() for path in paths]


def digest(example: Example, pixels: bool = True) -> bytes:
    """Return the SHA-256 of what an example holds: its labels and (if `pixels`) its image's bytes."""
    total = hashlib.sha256(file_hash(example.image).encode() if pixels else b"")
    total.update(example.targets.tobytes())
    return total.digest()

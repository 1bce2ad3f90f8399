"""Divides data into training, validation and test parts that share no picture."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tlx.data.dataset import ANY_CLASS, Dataset, Example, Finding
from tlx.data.images import file_hash
from tlx.data.similarity import join, relations, same
from tlx.errors import DataError, suggest
from tlx.registry import splits

_NAMES = ("train", "validation", "test")


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
        short = dict(zip((example.image for example in everything), _relative(everything), strict=True))
        return {name: [short[example.image] for example in part.examples] for name, part in self.parts().items()}

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the parts hold: image bytes, boxes, labels, ignore flags and classes.

        File names, folders and the order of the images make no difference.
        """
        total = hashlib.sha256()
        for name, part in self.parts().items():
            total.update(repr((name, part.classes, len(part))).encode())
            for digest in sorted(_digest(example) for example in part.examples):
                total.update(digest)
        return total.hexdigest()


@splits.register("ratio")
def ratio(
    dataset: Dataset,
    train: float = 0.6,
    validation: float = 0.2,
    seed: int = 0,
    group_similar: bool = True,
) -> Splits:
    """Divide one dataset at random, each class alike, keeping groups and look-alikes together.

    The rest is the test part; there is none if `train` and `validation` add up to 1. Images with the same
    bytes always stay together, so the parts share no picture. The outcome depends on the pictures, their
    boxes and their names, not on the order in which they were read.

    Args:
      dataset: what to divide.
      train: the share of images to train on, above 0.
      validation: the share of images to choose and stop by, above 0.
      seed: another seed is another division.
      group_similar: whether near-duplicates and mirrored copies stay together as well.

    Raises:
      DataError: the shares make no sense, or there are fewer groups than parts.
    """
    shares = np.array([train, validation, 1 - train - validation])
    if not (train > 0 and validation > 0 and shares[2] > -1e-9):
        raise DataError(
            f"splits.ratio: train = {train} and validation = {validation} must be above 0, together at most 1"
        )
    shares = shares[: 3 if shares[2] > 1e-9 else 2]
    dataset = _sorted(dataset)
    groups, found = _groups(dataset, group_similar)
    where = _divide(dataset, groups, shares, seed)
    parts = [_part(dataset, where == number, name) for number, name in enumerate(_NAMES[: len(shares)])]
    return Splits(parts[0], parts[1], parts[2] if len(parts) > 2 else None, dataset.findings + found)


@splits.register("own")
def own(dataset: Dataset, allow_leakage: bool = False) -> Splits:
    """Take the parts that the data itself declares, such as those of a VOC folder's ImageSets.

    Images that are in no part are left out, with a warning. Near-duplicates across parts are a warning.

    Args:
      dataset: what its reader marked as train, validation and (not necessarily) test.
      allow_leakage: whether one picture may be in two parts; then results on it mean little.

    Raises:
      DataError: no training or no validation images are declared, or a picture is in two parts.
    """
    named = np.array([example.split for example in dataset.examples])
    counts = {name: int((named == name).sum()) for name in _NAMES}
    missing = [name for name in ("train", "validation") if not counts[name]]
    if missing:
        declared = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no parts at all"
        raise DataError(
            f"{dataset.name}: the data declares {declared}, but no {' and no '.join(missing)} images; "
            f"divide it with @splits.ratio(), or name one reader for each part in @splits.given()"
        )
    parts = {name: _part(dataset, named == name, name) for name in _NAMES}
    left_out = len(dataset) - sum(counts.values())
    message = f"{left_out} of {len(dataset)} images are in no part and are not used"
    spare = (Finding("in-no-split", "warning", "", "", message),) if left_out else ()
    test = parts["test"] if counts["test"] else None
    return _checked(Splits(parts["train"], parts["validation"], test, dataset.findings + spare), allow_leakage)


@splits.register("auto")
def auto(dataset: Dataset, train: float = 0.6, validation: float = 0.2, seed: int = 0) -> Splits:
    """Take the parts that the data itself declares, as `own` does; what it does not declare, divide as `ratio` does.

    Where only training and test images are declared, validation is divided from the former. A finding says
    what was done.

    Args:
      dataset: what to divide, if it does not declare its parts.
      train: the share of images to train on, above 0.
      validation: the share of images to choose and stop by, above 0.
      seed: another seed is another division.

    Raises:
      DataError: as `own` and `ratio`.
    """
    declared = {example.split for example in dataset.examples} - {""}
    if {"train", "validation"} <= declared:
        return own(dataset)
    if declared != {"train", "test"}:
        message = f"the data declares no parts of its own; it is divided at random, with seed {seed}"
        return _with_finding(ratio(dataset, train, validation, seed), message)
    named = np.array([example.split for example in dataset.examples])
    rest, test = _part(dataset, named != "test", "train"), _part(dataset, named == "test", "test")
    share = train / (train + validation)
    divided = ratio(replace(rest, findings=dataset.findings), share, 1 - share, seed)
    message = f"the data declares no validation images; they are taken from the training images, with seed {seed}"
    return _with_finding(_checked(replace(divided, test=test), False), message)


def _with_finding(parts: Splits, message: str) -> Splits:
    return replace(parts, findings=(*parts.findings, Finding("divided", "info", "", "", message)))


@splits.register("given")
def given(train: Dataset, validation: Dataset, test: Dataset | None = None, allow_leakage: bool = False) -> Splits:
    """Take one dataset for each part; the classes are those of `train`, in its order.

    Near-duplicates across parts are a warning.

    Args:
      train: the images to train on.
      validation: the images to choose and stop by.
      test: the images to judge the result by.
      allow_leakage: whether one picture may be in two parts; then results on it mean little.

    Raises:
      DataError: a part has a class that `train` lacks, or is empty, or a picture is in two parts.
    """
    others = [relabelled(part, train.classes) for part in (validation, test) if part is not None]
    for name, part in zip(_NAMES, [train, *others], strict=False):
        if not len(part):
            raise DataError(f"{part.name}: there are no {name} images")
    findings = tuple(finding for part in (train, validation, test) if part is not None for finding in part.findings)
    return _checked(Splits(train, others[0], others[1] if test is not None else None, findings), allow_leakage)


@splits.register("kfold")
def kfold(dataset: Dataset, folds: int = 5, fold: int = 0, seed: int = 0, group_similar: bool = True) -> Splits:
    """Divide one dataset into equal folds and validate on one of them; there is no test part.

    Args:
      dataset: what to divide.
      folds: how many folds, at least 2.
      fold: which fold to validate on, 0 to `folds` - 1.
      seed: another seed is another division; all folds of one cross-validation need the same.
      group_similar: whether near-duplicates and mirrored copies stay together as well.

    Raises:
      DataError: the numbers make no sense, or there are fewer groups than folds.
    """
    if not (folds >= 2 and 0 <= fold < folds):
        raise DataError(f"splits.kfold: fold = {fold} of folds = {folds}; at least 2 folds, counted from 0")
    dataset = _sorted(dataset)
    groups, found = _groups(dataset, group_similar)
    held_out = _divide(dataset, groups, np.full(folds, 1 / folds), seed) == fold
    train, validation = _part(dataset, ~held_out, "train"), _part(dataset, held_out, "validation")
    return Splits(train, validation, None, dataset.findings + found)


def _part(dataset: Dataset, chosen: np.ndarray, name: str) -> Dataset:
    return dataset.subset(np.flatnonzero(chosen).tolist(), f"{dataset.name} {name}")


def _relative(examples: list[Example] | tuple[Example, ...]) -> list[str]:
    paths = [Path(os.path.abspath(example.image)) for example in examples]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [path.relative_to(root).as_posix() for path in paths]


def _sorted(dataset: Dataset) -> Dataset:
    names = _relative(dataset.examples)
    order = sorted(range(len(dataset)), key=lambda i: (names[i], _digest(dataset.examples[i], pixels=False)))
    return replace(dataset, examples=tuple(dataset.examples[i] for i in order))


def _digest(example: Example, pixels: bool = True) -> bytes:
    total = hashlib.sha256(file_hash(example.image).encode() if pixels else b"")
    for array in (example.boxes, example.labels, example.ignore):
        total.update(array.tobytes())
    return total.digest()


def _groups(dataset: Dataset, group_similar: bool) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Return a group number for each image, int [n], and what was found to look alike."""
    names = _relative(dataset.examples)
    found = relations([example.image for example in dataset.examples], near=group_similar)
    groups = join(np.arange(len(dataset)), same([example.group for example in dataset.examples]))
    groups = join(groups, ((one.image, np.array(one.others)) for one in found))
    return groups, tuple(
        Finding(one.code, "info", names[one.image], "", f"{one.verb} {_listed([names[j] for j in one.others])}")
        for one in found
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _divide(dataset: Dataset, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Return the part of each image, int [n], so that each part gets its share of images and of every class.

    Group by group, rarest class and largest group first, each goes where it brings images and classes
    closest to their shares; chance decides the order of groups that are alike.
    """
    _, groups = np.unique(groups, return_inverse=True)
    columns = np.zeros((groups.max(initial=-1) + 1, len(dataset.classes) + 1))
    for group, example in zip(groups, dataset.examples, strict=True):
        columns[group, :-1] += np.bincount(example.labels[~example.ignore], minlength=len(dataset.classes))
        columns[group, -1] += 1
    if len(columns) < len(shares):
        raise DataError(
            f"{dataset.name}: {len(dataset)} images in {len(columns)} groups cannot be divided into "
            f"{len(shares)} parts; add images, or ask for fewer parts"
        )
    totals = np.maximum(columns.sum(axis=0), 1)
    rarest = np.where(columns > 0, totals, np.inf).min(axis=1)
    chance = np.random.default_rng(seed).random(len(columns))
    weights = np.append(np.ones(len(dataset.classes)), max(1, len(dataset.classes)))
    held = np.zeros((len(shares), columns.shape[1]))
    part_of = np.empty(len(columns), np.int64)
    for group in np.lexsort((chance, -columns[:, -1], rarest)):
        gain = columns[group] / totals
        cost = (weights * (2 * gain * (held - shares[:, None]) + gain**2)).sum(axis=1) / shares
        part_of[group] = cost.argmin()
        held[part_of[group]] += gain
    for part in np.flatnonzero(held[:, -1] == 0):
        part_of[_spare(part_of, columns[:, -1])] = part
    return part_of[groups]


def _spare(part_of: np.ndarray, sizes: np.ndarray) -> int:
    """Return the smallest group of the part that has most groups, for a part that would be empty."""
    fullest = np.bincount(part_of).argmax()
    candidates = np.flatnonzero(part_of == fullest)
    return int(candidates[sizes[candidates].argmin()])


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
    examples = tuple(replace(example, labels=table[example.labels]) for example in part.examples)
    return replace(part, classes=classes, examples=examples)


def _checked(parts: Splits, allow_leakage: bool) -> Splits:
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

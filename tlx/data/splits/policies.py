"""Policies that divide data into training, validation and test parts which share no picture."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from tlx.data.dataset import Dataset, Finding
from tlx.data.splits.divide import divide, grouped, in_order
from tlx.data.splits.lists import Endings, read_lists
from tlx.data.splits.parts import NAMES, Splits, checked, part_of, relabelled
from tlx.errors import ConfigError, DataError
from tlx.registry import splits


def _check_shares(owner: str, train: float, validation: float, seed: int, group_by: str | None) -> None:
    """Raise a ConfigError unless these are shares of one whole, and `group_by` a regular expression."""
    for name, share in {"train": train, "validation": validation}.items():
        if not 0 < share < 1:
            raise ConfigError(f"{owner}.{name} = {share} makes no sense: a share of the images, between 0 and 1")
    if train + validation > 1 + 1e-9:
        raise ConfigError(f"{owner}.validation = {validation} and {owner}.train = {train} are together more than 1")
    _check_rest(owner, seed, group_by)


def _check_folds(owner: str, folds: int, fold: int, seed: int, group_by: str | None) -> None:
    if folds < 2:
        raise ConfigError(f"{owner}.folds = {folds} makes no sense: at least 2")
    if not 0 <= fold < folds:
        raise ConfigError(f"{owner}.fold = {fold} makes no sense: one of {folds} folds, counted from 0")
    _check_rest(owner, seed, group_by)


def _check_rest(owner: str, seed: int, group_by: str | None) -> None:
    if seed < 0:
        raise ConfigError(f"{owner}.seed = {seed} makes no sense: at least 0")
    try:
        re.compile(group_by or "")
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{owner}.group_by = {group_by!r} is no regular expression: {error}") from error


@splits.register("ratio", check=partial(_check_shares, "splits.ratio"))
def ratio(
    dataset: Dataset,
    train: float = 0.6,
    validation: float = 0.2,
    seed: int = 0,
    group_similar: bool = True,
    group_by: str | None = None,
) -> Splits:
    r"""Divide one dataset at random, each class alike, keeping groups and look-alikes together.

    The rest is the test part; there is none if `train` and `validation` add up to 1. Images with the same
    bytes always stay together, so the parts share no picture. The outcome depends on the pictures, their
    boxes and their names, not on the order in which they were read.

    Args:
      dataset: what to divide.
      train: the share of images to train on, above 0.
      validation: the share of images to choose and stop by, above 0.
      seed: another seed is another division.
      group_similar: whether near-duplicates and mirrored copies stay together as well.
      group_by: a regular expression for images' paths below the folder that is common to all of them: images
        in which it finds the same text, its first group if it has any, stay together. r"^(\d+)_" does so
        with 0001_000.png and 0001_001.png, and images in which it finds nothing are on their own.

    Raises:
      ConfigError: a value makes no sense.
      DataError: there are fewer groups than parts, or `group_by` finds nothing in any path.
    """
    _check_shares("splits.ratio", train, validation, seed, group_by)
    shares = np.array([train, validation, 1 - train - validation])
    shares = shares[: 3 if shares[2] > 1e-9 else 2]
    dataset = in_order(dataset)
    groups, found = grouped(dataset, group_similar, group_by)
    where = divide(dataset, groups, shares, seed)
    parts = [part_of(dataset, where == number, name) for number, name in enumerate(NAMES[: len(shares)])]
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
    counts = {name: int((named == name).sum()) for name in NAMES}
    missing = [name for name in ("train", "validation") if not counts[name]]
    if missing:
        declared = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no parts at all"
        raise DataError(
            f"{dataset.name}: the data declares {declared}, but no {' and no '.join(missing)} images; "
            f"divide it with @splits.ratio(), or name one reader for each part in @splits.given()"
        )
    return _chosen(dataset, {name: np.flatnonzero(named == name).tolist() for name in NAMES}, allow_leakage)


def _chosen(dataset: Dataset, where: dict[str, list[int]], allow_leakage: bool) -> Splits:
    """Return the parts that hold the images at these positions; images in no part are counted."""
    left_out = len(dataset) - len({i for positions in where.values() for i in positions})
    message = f"{left_out} of {len(dataset)} images are in no part and are not used"
    spare = (Finding("in-no-split", "warning", "", "", message),) if left_out else ()
    parts = {name: dataset.subset(where[name], f"{dataset.name} {name}") for name in NAMES if where.get(name)}
    chosen = Splits(parts["train"], parts["validation"], parts.get("test"), dataset.findings + spare)
    return checked(chosen, allow_leakage)


@splits.register("lists")
def lists(dataset: Dataset, path: Path, allow_leakage: bool = False) -> Splits:
    """Take the parts that lists name: those of an earlier run, or text files with an image a line.

    An image is named by its path or the end of it, with or without the extension. Images in no list are left
    out, with a warning.

    Args:
      dataset: what the lists divide.
      path: a run folder, its data.json, or a folder with train.txt, validation.txt (or val.txt) and, not
        necessarily, test.txt.
      allow_leakage: whether one picture may be in two parts; then results on it mean little.

    Raises:
      DataError: there are no such lists, they name what is no image of the data, or a picture is in two parts.
    """
    images = Endings(dataset)
    named = {
        name: Counter(images.find(entry, file) for entry in entries)
        for name, (file, entries) in read_lists(path).items()
    }
    twice = {(i, part) for part, there in named.items() for i, count in there.items() if count > 1}
    found = []
    if twice:
        i, part = min(twice)
        message = f"{len(twice)} images are listed twice for one part (such as this one, for {part}); taken once"
        found.append(Finding("listed-twice", "warning", str(dataset.examples[i].image), "", message))
    parts = _chosen(dataset, {name: list(there) for name, there in named.items()}, allow_leakage)
    return replace(parts, findings=(*parts.findings, *found))


@splits.register("auto", check=partial(_check_shares, "splits.auto"))
def auto(
    dataset: Dataset,
    train: float = 0.6,
    validation: float = 0.2,
    seed: int = 0,
    group_by: str | None = None,
    allow_leakage: bool = False,
) -> Splits:
    """Take the parts that the data itself declares, as `own` does; what it does not declare, divide as `ratio` does.

    Where only training and test images are declared, validation is divided from the former. A finding says
    what was done.

    Args:
      dataset: what to divide, if it does not declare its parts.
      train: the share of images to train on, above 0.
      validation: the share of images to choose and stop by, above 0.
      seed: another seed is another division.
      group_by: what stays together where the data is divided; see `ratio`.
      allow_leakage: whether one picture may be in two of the parts that the data declares.

    Raises:
      ConfigError: a value makes no sense.
      DataError: as `own` and `ratio`.
    """
    _check_shares("splits.auto", train, validation, seed, group_by)
    declared = {example.split for example in dataset.examples} - {""}
    if {"train", "validation"} <= declared:
        return own(dataset, allow_leakage)
    if declared != {"train", "test"}:
        message = f"the data declares no parts of its own; it is divided at random, with seed {seed}"
        return _with_finding(ratio(dataset, train, validation, seed, group_by=group_by), message)
    named = np.array([example.split for example in dataset.examples])
    rest, test = part_of(dataset, named != "test", "train"), part_of(dataset, named == "test", "test")
    share = train / (train + validation)
    divided = ratio(replace(rest, findings=dataset.findings), share, 1 - share, seed, group_by=group_by)
    message = f"the data declares no validation images; they are taken from the training images, with seed {seed}"
    return _with_finding(checked(replace(divided, test=test), allow_leakage), message)


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
    _refuse_same(train, validation, test, allow_leakage)
    others = [relabelled(part, train.classes) for part in (validation, test) if part is not None]
    for name, part in zip(NAMES, [train, *others], strict=False):
        if not len(part):
            raise DataError(f"{part.name}: there are no {name} images")
    findings = tuple(finding for part in (train, validation, test) if part is not None for finding in part.findings)
    return checked(Splits(train, others[0], others[1] if test is not None else None, findings), allow_leakage)


def _refuse_same(train: Dataset, validation: Dataset, test: Dataset | None, allow_leakage: bool) -> None:
    """Raise a DataError if two parts are the very same images, or of different kinds."""
    parts = {"train": train, "validation": validation} | ({} if test is None else {"test": test})
    for (name, part), (other_name, other) in combinations(parts.items(), 2):
        if part.task != other.task:
            raise DataError(f"{name} is data for {part.task}, {other_name} for {other.task}: give data for one task")
        same = len(part) and {one.image for one in part.examples} == {one.image for one in other.examples}
        if same and not allow_leakage:
            raise DataError(
                f"{name} and {other_name} are the very same {len(part)} images, of {part.name}, so results would "
                f"mean little; name other data, divide it with @splits.ratio(), or set allow_leakage = True"
            )


@splits.register("kfold", check=partial(_check_folds, "splits.kfold"))
def kfold(
    dataset: Dataset,
    folds: int = 5,
    fold: int = 0,
    seed: int = 0,
    group_similar: bool = True,
    group_by: str | None = None,
) -> Splits:
    """Divide one dataset into equal folds and validate on one of them; there is no test part.

    Args:
      dataset: what to divide.
      folds: how many folds, at least 2.
      fold: which fold to validate on, 0 to `folds` - 1.
      seed: another seed is another division; all folds of one cross-validation need the same.
      group_similar: whether near-duplicates and mirrored copies stay together as well.
      group_by: what else stays together; see `ratio`.

    Raises:
      ConfigError: a value makes no sense.
      DataError: there are fewer groups than folds, or `group_by` finds nothing in any path.
    """
    _check_folds("splits.kfold", folds, fold, seed, group_by)
    dataset = in_order(dataset)
    groups, found = grouped(dataset, group_similar, group_by)
    held_out = divide(dataset, groups, np.full(folds, 1 / folds), seed) == fold
    train, validation = part_of(dataset, ~held_out, "train"), part_of(dataset, held_out, "validation")
    return Splits(train, validation, None, dataset.findings + found)

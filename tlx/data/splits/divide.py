"""Divides images so that groups stay together and each part gets its share of every class."""

import re
from dataclasses import replace

import numpy as np

from tlx.data.dataset import Dataset, Finding
from tlx.data.similarity import join, relations, same
from tlx.data.splits.parts import digest, relative_paths
from tlx.errors import DataError


def in_order(dataset: Dataset) -> Dataset:
    """Return the dataset in an order that does not depend on the one in which it was read."""
    names = relative_paths(dataset.examples)
    order = sorted(range(len(dataset)), key=lambda i: (names[i], digest(dataset.examples[i], pixels=False)))
    return replace(dataset, examples=tuple(dataset.examples[i] for i in order))


def grouped(dataset: Dataset, group_similar: bool, group_by: str | None) -> tuple[np.ndarray, tuple[Finding, ...]]:
    """Return a group number for each image, int [n], and what was found to belong together.

    Together are copies, the examples of one group, those whose paths give `group_by` the same text, and
    (if `group_similar`) look-alikes.

    Raises:
      DataError: `group_by` matches no image's path.
    """
    names = relative_paths(dataset.examples)
    alike = relations([example.image for example in dataset.examples], near=group_similar)
    found = [
        Finding(one.code, "info", names[one.image], "", f"{one.verb} {_listed([names[j] for j in one.others])}")
        for one in alike
    ]
    groups = join(np.arange(len(dataset)), same([example.group for example in dataset.examples]))
    if group_by is not None:
        keys = _keys(names, group_by)
        groups = join(groups, same(keys))
        told = f"group_by puts {len(keys) - keys.count('')} of {len(keys)} images into {len(set(keys) - {''})} groups"
        found.insert(0, Finding("grouped", "info", "", "", told))
    groups = join(groups, ((one.image, np.array(one.others)) for one in alike))
    return groups, tuple(found)


def _keys(names: list[str], group_by: str) -> list[str]:
    """Return what `group_by` finds in each path: its first group, or all that it matches, or "" for neither."""
    pattern = re.compile(group_by)
    matches = [pattern.search(name) for name in names]
    keys = [(match[1 if pattern.groups else 0] or "") if match else "" for match in matches]
    if names and not any(keys):
        raise DataError(f"group_by = {group_by!r} finds nothing in any image's path, such as {names[0]!r}; mend it")
    return keys


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def divide(dataset: Dataset, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Return the part of each image, int [n], so that each part gets its share of images and of every class.

    Group by group, rarest class and largest group first, each goes where it brings images and classes
    closest to their shares; chance decides the order of groups that are alike.
    """
    _, groups = np.unique(groups, return_inverse=True)
    columns = np.zeros((groups.max(initial=-1) + 1, len(dataset.classes) + 1))
    for group, example in zip(groups, dataset.examples, strict=True):
        columns[group, :-1] += np.bincount(example.targets.counted, minlength=len(dataset.classes))
        columns[group, -1] += 1
    if len(columns) < len(shares):
        errors = [str(finding) for finding in dataset.findings if finding.severity == "error"]
        why = f" (reading them met {len(errors)} errors; first of all {errors[0]})" if errors else ""
        raise DataError(
            f"{dataset.name}: {len(dataset)} images in {len(columns)} groups of look-alikes, sequences or one rule "
            f"cannot be divided into {len(shares)} parts{why}; add images, or ask for fewer parts",
            dataset.findings,
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

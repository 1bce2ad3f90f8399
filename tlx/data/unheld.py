"""What a format cannot hold of a dataset that is written in it, told once for each kind."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.targets import ANY_CLASS

_SHOWN = 5


class Unheld:
    """Collects what `format`, such as "VOC", cannot hold: each kind once, with its number and its first place.

    `whole_images` says that it can hold images with a class and no boxes.
    """

    def __init__(self, format: str, dataset: Dataset, whole_images: bool = False):
        self.format = format
        self._examples = dataset.examples
        self._counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}
        self._renamed: list[Finding] = []
        if dataset.task == "classification" and dataset.examples and not whole_images:
            what = "images with a class; each is written as a box around the whole image"
            self.add(what, dataset.examples[0], count=len(dataset))

    def add(self, what: str, example: Example, box: np.ndarray | None = None, count: int = 1) -> None:
        """Note one thing of the kind `what`: a plural and, after a semicolon, what becomes of it."""
        self._counts[what] += count
        record = "" if box is None else "box ({:g}, {:g}, {:g}, {:g})".format(*box)
        self._first.setdefault(what, (self._place(example), record))

    def classless(self, example: Example) -> np.ndarray:
        """Return which boxes belong to no class, bool [n], and note that these are left out."""
        without = example.objects.labels == ANY_CLASS
        for box in example.objects.boxes[without]:
            self.add("ignore regions of no class; left out, which makes background of them", example, box)
        return without

    def renamed(self, classes: Sequence[str], clean: Callable[[str], str]) -> list[str]:
        """Return the classes as the format can write them, no two alike, and note those that change."""
        written: list[str] = []
        for name in classes:
            plain = unique = clean(name).strip() or "unnamed"
            number = 1
            while unique in written or (unique != name and unique in classes):
                number += 1
                unique = f"{plain}_{number}"
            written.append(unique)
        changed = [i for i, (old, new) in enumerate(zip(classes, written, strict=True)) if old != new]
        if changed:
            first = next((self._place(e) for e in self._examples if np.isin(e.objects.labels, changed).any()), "")
            told = ", ".join(f"{classes[i]!r} as {written[i]!r}" for i in changed[:_SHOWN])
            more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
            message = f"{self.format} cannot hold {len(changed)} class names as they are: {told}{more}"
            self._renamed.append(Finding("cannot-hold", "warning", first, "", message))
        return written

    def findings(self) -> list[Finding]:
        """Return all that was noted, one finding for each kind."""
        noted = [
            Finding("cannot-hold", "warning", *self._first[what], f"{self.format} cannot hold {count} {what}")
            for what, count in self._counts.items()
        ]
        return self._renamed + noted

    @staticmethod
    def _place(example: Example) -> str:
        return example.record or example.image.name


def encodable(text: str) -> str:
    """Return `text` with a "?" for each half character: a folder's name may have such, and no text file can."""
    return text.encode(errors="replace").decode()

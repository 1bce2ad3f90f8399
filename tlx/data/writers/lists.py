"""Split lists: text files that name a part's images one a line, as VOC and KITTI keep them."""

from collections.abc import Sequence
from pathlib import Path

from tlx.data.dataset import Example

FILES = {"train": "train", "validation": "val", "test": "test"}


def write_lists(folder: Path, examples: Sequence[Example], stems: Sequence[str]) -> None:
    """Write train.txt, val.txt and test.txt, as far as examples declare these splits."""
    for split, file in FILES.items():
        listed = [f"{stem}\n" for stem, example in zip(stems, examples, strict=True) if example.split == split]
        if listed:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{file}.txt").write_text("".join(listed), encoding="utf-8")

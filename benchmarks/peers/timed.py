"""What the programs beside this file share: arguments, the moments of updates, and the one line that is printed.

    python PROGRAM WHAT DATA OUT [--model=NAME] [--threads=N] [--epochs=N] [--rounds=N]

WHAT is "versions", which imports and prints what there is; "frozen", which trains with the backbone frozen; "all",
which trains everything and then predicts for the validation pictures, `rounds` times; or "trial", which is one trial
of the tool's own tuner, of one epoch. DATA is a folder as `benchmarks/peers.py` makes it, OUT an empty one.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE, BATCH, TRAINING, VALIDATION = 320, 8, "train", "val"


class Timed:
    """A program's arguments, and what it tells: moments in seconds since 1970."""

    def __init__(self, *packages: str, more: tuple[str, ...] = ()):
        parser = argparse.ArgumentParser()
        parser.add_argument("what", choices=("versions", "frozen", "all", "trial", *more))
        parser.add_argument("data", type=Path)
        parser.add_argument("out", type=Path)
        parser.add_argument("--model")
        parser.add_argument("--threads", type=int, default=0)
        parser.add_argument("--epochs", type=int, default=1)
        parser.add_argument("--rounds", type=int, default=3)
        self.given = parser.parse_args()
        self.frozen = self.given.what == "frozen"
        versions = {package: importlib.metadata.version(package) for package in packages}
        self.told: dict[str, Any] = {"versions": versions, "updates": [], "predicted": {}}

    def update(self, *_: Any) -> None:
        """An update of the weights has been done."""
        self.told["updates"].append(time.time())

    def judged(self, *_: Any) -> None:
        """The validation split has been judged."""
        self.told["judged"] = time.time()

    def predict(self, pictures: int, predict: Callable[[], Any], how: str = "") -> None:
        """Time predictions for so many pictures; the first round is not told: it compiles, or allocates."""
        speeds = self.told["predicted"][how] = []
        for turn in range(self.given.rounds + 1):
            began = time.time()
            predict()
            if turn:
                speeds.append(pictures / (time.time() - began))

    def tell(self) -> None:
        """Print what was seen, as the last line of all."""
        print("\n" + json.dumps(self.told), flush=True)


def pictures(data: Path, split: str) -> list[tuple[Path, list[list[float]], list[int]]]:
    """Return a split's pictures: file, boxes as (x, y, width, height) in pixels, and classes counted from 0."""
    content = json.loads((data / "annotations" / f"instances_{split}.json").read_text())
    found = {image["id"]: (data / "images" / image["file_name"], [], []) for image in content["images"]}
    for annotation in content["annotations"]:
        _, boxes, labels = found[annotation["image_id"]]
        boxes.append(annotation["bbox"])
        labels.append(annotation["category_id"] - 1)
    return list(found.values())


def classes(data: Path) -> list[str]:
    """Return the classes' names."""
    content = json.loads((data / "annotations" / f"instances_{TRAINING}.json").read_text())
    return [category["name"] for category in content["categories"]]

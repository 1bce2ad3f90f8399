"""What a run tells while it goes on: to its listener, to TensorBoard, and as pictures."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tlx import ownership
from tlx.data.dataset import Dataset
from tlx.data.images import open_image
from tlx.events import Answer, Listener, Look
from tlx.report.pictures import contact_sheet
from tlx.report.tensorboard import Board
from tlx.tasks.task import task_of

# So many pictures show how a run does; more would only be scrolled past.
_SHOWN, _SHOWN_EACH_LOOK = 12, 4


class RunLog(contextlib.AbstractContextManager):
    """Passes on what happens in a run to its listener and to the TensorBoard log in its folder."""

    def __init__(self, folder: Path, listener: Listener, first_step: int = 0):
        self.folder, self.listener = folder, listener
        self.board = Board(folder / "tensorboard", first_step)

    def __exit__(self, *_: Any) -> None:
        self.board.close()

    def say(self, message: str) -> None:
        """Pass on one line of news, and keep it in `run.log`."""
        self.note(message)
        self.listener.say(message)

    def note(self, text: str) -> None:
        """Keep text in `run.log` alone."""
        with os.fdopen(ownership.opened(self.folder / "run.log", os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(text + "\n")

    def evaluated(self, look: Look, dataset: Dataset, predictions: Sequence[Any]) -> Answer:
        """Log a look at the validation split, with pictures of what was predicted, and return the listener's answer."""
        values = {f"validation/{name}": value for name, value in look.metrics["values"].items()}
        self.board.scalars(look.update, {**values, **look.scalars, "memory_gb": look.memory_bytes / 1e9})
        self.board.images(look.update, "validation", sample(dataset, predictions, _SHOWN_EACH_LOOK))
        return self.listener.evaluated(look)


def keep_pictures(folder: Path, split: str, dataset: Dataset, found: Sequence[Any]) -> None:
    """Write pictures of final predictions to a run's folder: each by itself, and all on one sheet."""
    pictures = sample(dataset, found, _SHOWN)
    for number, picture in enumerate(pictures):
        picture.save(ownership.fresh(folder / "pictures" / f"{split}-{number:02d}.jpg"), quality=90)
    contact_sheet(pictures).save(ownership.fresh(folder / f"{split}.jpg"), quality=90)


def sample(dataset: Dataset, found: Sequence[Any], count: int) -> list[Image.Image]:
    """Return up to `count` pictures, spread over a dataset, with predictions beside the truth."""
    task = task_of(dataset.task)
    spread = dict.fromkeys(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist())
    chosen = [(dataset.examples[i], found[i]) for i in spread]
    return [task.draw(open_image(e.image), seen, e.targets, dataset.classes) for e, seen in chosen]

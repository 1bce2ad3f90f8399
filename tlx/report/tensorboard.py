"""What TensorBoard shows of a run, written without TensorFlow."""

import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from tlx import ownership

# TensorBoard loads every picture into memory; a larger one is shrunk to this longest side, in pixels.
LARGEST = 1024


class Board:
    """An open TensorBoard log: `with Board(folder) as board: board.scalars(step, {"train/loss": 0.3})`.

    Each call is on disk when it returns, so a killed run keeps its curves. A resumed run gives the step that it
    resumes at as `first_step`: its file continues the curves in the same folder, and what earlier files say of
    that step and later ones is no longer shown. With the default nothing earlier is.

    It writes through the tensorboard package's record writer, as `tf.summary` and that package's own
    `EventFileWriter` would import TensorFlow, which takes seconds that a process which only reports can save.
    """

    def __init__(self, folder: Path, first_step: int = 0):
        # TensorBoard reads the files of a folder in the order of their names, so a later one must sort later.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        self.path = folder / f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        ownership.claim(self.path)
        self._writer = RecordWriter(self.path.open("xb"))
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._writer.close()

    def scalars(self, step: int, values: Mapping[str, float | None]) -> None:
        """Add one point to each curve named ("train/loss" is curve "loss" of group "train"); None adds no point."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items() if value is not None]
        self._write(Event(step=step, summary=Summary(value=points)))

    def images(self, step: int, name: str, pictures: Iterable[Image.Image]) -> None:
        """Show pictures as `name/0`, `name/1` and so on; each has its own slider over the steps."""
        for i, picture in enumerate(pictures):
            # A JPEG is a tenth of the PNG that tf.summary.image would write.
            shown, jpeg = picture.convert("RGB"), io.BytesIO()
            shown.thumbnail((LARGEST, LARGEST))
            shown.save(jpeg, "JPEG", quality=90)
            image = Summary.Image(width=shown.width, height=shown.height, encoded_image_string=jpeg.getvalue())
            value = Summary.Value(tag=f"{name}/{i}", image=image)
            self._write(Event(step=step, summary=Summary(value=[value])))

    def text(self, name: str, text: str, step: int = 0) -> None:
        """Show Markdown text, such as the run's configuration."""
        self._write(Event(step=step, summary=text_pb(name, text)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        self._writer.flush()

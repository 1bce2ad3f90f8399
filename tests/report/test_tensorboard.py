import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServedAccumulator
from tensorboard.util.tensor_util import make_ndarray

from tlx.report.tensorboard import LARGEST, Board


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def curve(folder, name):
    return [(point.step, point.value) for point in read(folder).Scalars(name)]


def test_scalars_come_back(tmp_path):
    with Board(tmp_path / "new" / "folder") as board:
        board.scalars(1, {"train/loss": 2.5, "validation/AP": None})
        board.scalars(2, {"train/loss": np.float32(1.5), "validation/AP": 0.25})
    assert curve(tmp_path / "new" / "folder", "train/loss") == [(1, 2.5), (2, 1.5)]
    assert curve(tmp_path / "new" / "folder", "validation/AP") == [(2, 0.25)]


def test_images_come_back(tmp_path):
    pictures = [Image.new("RGB", (64, 48), (200, 0, 0)), Image.new("L", (3 * LARGEST, LARGEST))]
    with Board(tmp_path) as board:
        board.images(7, "validation", pictures)
    first, second = (read(tmp_path).Images(f"validation/{i}")[0] for i in range(2))
    assert (first.step, first.width, first.height) == (7, 64, 48)
    shown = Image.open(io.BytesIO(first.encoded_image_string))
    assert shown.size == (64, 48)
    assert shown.getpixel((30, 20)) == pytest.approx((200, 0, 0), abs=8)
    assert second.width == LARGEST
    assert pictures[1].width == 3 * LARGEST


def test_text_comes_back(tmp_path):
    with Board(tmp_path) as board:
        board.text("config", "fit.epochs = 4  # größer")
    (event,) = read(tmp_path).Tensors("config")
    assert make_ndarray(event.tensor_proto).item().decode() == "fit.epochs = 4  # größer"


def test_resumed_run_replaces_what_it_does_again(tmp_path):
    with Board(tmp_path) as board:
        for step in range(6):
            board.scalars(step, {"loss": step})
    with Board(tmp_path, first_step=4) as board:
        board.scalars(4, {"loss": 40})
    expected = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 40)]
    assert curve(tmp_path, "loss") == expected
    served = ServedAccumulator(str(tmp_path))
    served.Reload()
    assert [(e.step, make_ndarray(e.tensor_proto).item()) for e in served.Tensors("loss")] == expected


def test_run_that_starts_over_shows_nothing_earlier(tmp_path):
    for value in (1, 2):
        with Board(tmp_path) as board:
            board.scalars(3, {"loss": value})
    assert curve(tmp_path, "loss") == [(3, 2)]


def test_killed_run_keeps_its_curve_and_its_successor_goes_on(tmp_path):
    first = Board(tmp_path)
    first.scalars(1, {"loss": 1})
    first.scalars(2, {"loss": 2})
    # Nothing was closed; the last record is torn, as by a kill in the middle of a write.
    first.path.write_bytes(first.path.read_bytes()[:-5])
    with Board(tmp_path, first_step=2) as board:
        board.scalars(2, {"loss": 20})
    assert curve(tmp_path, "loss") == [(1, 1), (2, 20)]
    first.close()


def test_board_is_closed_by_an_error_and_twice_without_harm(tmp_path):
    board = Board(tmp_path)
    with pytest.raises(AttributeError), board:
        board.scalars(1, None)
    with pytest.raises(ValueError, match="closed file"):
        board.scalars(1, {"loss": 1})
    board.close()


def test_writing_imports_no_tensorflow(tmp_path):
    code = (
        "import sys; from pathlib import Path; from PIL import Image; from tlx.report.tensorboard import Board\n"
        f"with Board(Path({str(tmp_path)!r})) as b: b.scalars(1, {{'a': 1}}); b.text('t', 'x'); "
        "b.images(1, 'i', [Image.new('RGB', (4, 4))])\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)

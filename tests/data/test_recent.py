"""Pictures that were just decoded are not decoded again, and take no more than so much memory."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from PIL import Image

from tlx.data import recent
from tlx.data.images import open_image
from tlx.data.recent import open_recent
from tlx.errors import DataError


@pytest.fixture
def opened(monkeypatch):
    """What is decoded, in order."""
    paths = []
    monkeypatch.setattr(recent, "open_image", lambda path: paths.append(path) or open_image(path))
    return paths


def drawn(folder, count):
    paths = [folder / f"{i}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    return paths


def test_threads_that_want_one_picture_share_its_decoding(tmp_path, opened):
    (path,), together = drawn(tmp_path, 1), Barrier(4, timeout=30)

    def ask(path):
        together.wait()
        return open_recent(path)

    with ThreadPoolExecutor(4) as pool:
        assert len({id(picture) for picture in pool.map(ask, [path] * 4)}) == 1
    assert opened == [path]


def test_the_one_that_was_not_asked_for_the_longest_time_makes_room(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(recent, "LIMIT", 2 * 8 * 8 * 4)
    monkeypatch.setattr(recent, "_kept", type(recent._kept)())
    paths = drawn(tmp_path, 3)
    order = [0, 1, 0, 2, 0, 1]
    assert [open_recent(paths[i]).getpixel((0, 0))[0] for i in order] == order
    assert opened == [paths[0], paths[1], paths[2], paths[1]]


def test_a_picture_that_cannot_be_decoded_is_told_to_all_that_ask(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.png"):
            open_recent(tmp_path / "a.png")

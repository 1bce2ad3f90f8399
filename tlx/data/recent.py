"""The pictures that were decoded last: windows and views of one picture, made one after another, decode it once."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from PIL import Image

from tlx.data.container import stamp
from tlx.data.images import open_image

# So many bytes of them stay, all threads together, and the latest one however large it is.
LIMIT = 128_000_000
# Pillow stores a colour in four bytes.
_PIXEL = 4

_lock = threading.Lock()
_kept: OrderedDict[tuple, Future] = OrderedDict()


def open_recent(path: Path) -> Image.Image:
    """Return a decoded image as `open_image` does; it may be another caller's, too, and is not to be changed.

    Where another thread is decoding the same file, its result is waited for.
    """
    key = (path, *stamp(path))
    with _lock:
        known = _kept.get(key)
        if known is None:
            mine = _kept[key] = Future()
        else:
            _kept.move_to_end(key)
    if known is not None:
        return known.result()
    try:
        picture = open_image(path)
    except BaseException as error:
        with _lock:
            _kept.pop(key, None)
        mine.set_exception(error)
        raise
    mine.set_result(picture)
    with _lock:
        _forget_oldest()
    return picture


def _forget_oldest() -> None:
    done = [(key, one) for key, one in _kept.items() if one.done()]
    held = bytes_of(one.result().size for _, one in done)
    for key, one in done[:-1]:
        if held <= LIMIT:
            break
        held -= bytes_of([one.result().size])
        del _kept[key]


def forget() -> None:
    """Keep none of them, so that the next one who asks decodes, as for a picture that is new."""
    with _lock:
        _kept.clear()


def bytes_of(sizes: Iterable[tuple[int, int]]) -> int:
    """Return how many bytes decoded pictures of these (width, height) take."""
    return sum(_PIXEL * width * height for width, height in sizes)


def most_held(sizes: Iterable[tuple[int, int]]) -> int:
    """Return how many bytes are held at most where these are the sizes of all pictures, (width, height)."""
    sizes = list(sizes)
    largest = max((bytes_of([size]) for size in sizes), default=0)
    return min(max(LIMIT, largest), bytes_of(sizes))

"""The one decoder for every image that the program opens: bounded, upright, RGB."""

import hashlib
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tlx.data.container import opened, stamp
from tlx.data.headers import HEAD, Header, plain_header
from tlx.errors import DataError

# Just under Pillow's own limit, so that this limit and its message come first.
MAX_PIXELS = 89_000_000
_FORMAT_OF = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm"), "PPM"),
    **{".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"},
}
SUFFIXES = frozenset(_FORMAT_OF)
_STRIP = 256
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of damaged metadata without naming the file. A filter set once is the only way to hush it
# that is safe while other threads decode: warnings.catch_warnings changes global state on entry and exit.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Blocks of this size go back to the system when a large picture is freed; Pillow's own stay with whichever thread
# decoded it, which adds up to gigabytes.
Image.core.set_block_size(64 << 20)


def image_header(path: Path | str) -> Header:
    """Return the upright image's (width, height) in pixels and its format, from the file's head alone.

    Raises:
      DataError: the file is missing, is not an image of a known format, or has too many pixels.
    """
    header = plain_header(_head(path))
    if header and header.width * header.height <= MAX_PIXELS:
        return header
    with _opened(path) as image:
        width, height = image.size[::-1] if _orientation(image) >= 5 else image.size
        return Header(width, height, image.format)


def image_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright image; see `image_header`."""
    return image_header(path)[:2]


def named_format(path: Path | str) -> str:
    """Return the format that a file's name promises, or "" where it promises none."""
    return _FORMAT_OF.get("." + os.fspath(path).rpartition(".")[2].lower(), "")


class Decoded(NamedTuple):
    """An image, decoded upright and in mode RGB, and how its file stores it.

    `stored` is (width, height) in pixels before it was turned upright from EXIF `orientation` (1 to 8, 1 for
    none), `format` and `mode` are Pillow's names, `deep` means more than 8 bits a channel.
    """

    image: Image.Image
    stored: tuple[int, int]
    orientation: int
    format: str
    mode: str
    deep: bool
    transparent: bool


def decode(path: Path | str) -> Decoded:
    """Return an image and how its file stores it; see `open_image`, which raises the same."""
    with _opened(path) as image:
        orientation, deep = _orientation(image), _is_deep(image)
        image.load()
        rgb = _rgb(image)
        upright = rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb
        how = (image.size, orientation, image.format, image.mode, deep, image.has_transparency_data)
        return Decoded(upright, *how)


def open_image(path: Path | str) -> Image.Image:
    """Return the decoded image, upright and in mode RGB.

    The file's content decides the format, not its name. Of an animation, the first frame. Transparent
    images are laid on white, the page that cut-outs are made for; what a file stores under full
    transparency is arbitrary. Of 16-bit pixels, the upper 8 bits.

    Raises:
      DataError: as `image_size`, or the pixels are truncated, damaged or of a kind without a known range.
    """
    return decode(path).image


def opening_once(room: int) -> Callable[[Path], Image.Image]:
    """Return `open_image` for threads that look at one picture many times: it keeps the last `room` pictures.

    Of several threads that ask for a picture at the same time one decodes it, and the others wait.
    """
    recent: OrderedDict[Path, Future] = OrderedDict()
    turn = threading.Lock()

    def open_once(path: Path) -> Image.Image:
        with turn:
            first = path not in recent
            picture = recent.setdefault(path, Future())
            recent.move_to_end(path)
            if len(recent) > room:
                recent.popitem(last=False)
        if first:
            try:
                picture.set_result(open_image(path))
            except Exception as error:  # Whatever it is, those who wait for this picture get it, too.
                picture.set_exception(error)
        return picture.result()

    return open_once


def read_image(path: Path | str) -> np.ndarray:
    """Return the decoded image as uint8 RGB [height, width, 3]; see `open_image`."""
    return np.array(open_image(path))


def file_hash(path: Path | str) -> str:
    """Return the SHA-256 of the file's bytes in hexadecimal; read once while the file stays as it is."""
    return _file_hash(Path(path), *stamp(Path(path)))


@lru_cache(maxsize=100_000)
def _file_hash(path: Path, _size: int, _changed: int) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _head(path: Path | str) -> bytes:
    try:
        # Without waiting: opening a pipe that somebody named like an image would never end.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return b""  # It may lie inside of another file.
    try:
        return os.read(file, HEAD)
    except OSError:
        return b""
    finally:
        os.close(file)


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    try:
        with opened(Path(path)) as file, Image.open(file, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"it has {width} x {height} pixels")
            yield image
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        advice = f"at most {MAX_PIXELS:,} pixels are decoded; reduce it or leave it out"
        raise DataError(f"{path}: the image is too large ({error}); {advice}") from error
    except Image.UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise DataError(f"{path}: not an image of a known format ({formats}); convert it or leave it out") from error
    except PermissionError as error:
        raise DataError(f"{path}: may not be read; change its permissions") from error
    except Exception as error:  # A damaged file can make Pillow's parsers raise nearly anything.
        raise DataError(f"{path}: the image is damaged ({error}); restore it or leave it out") from error


def _orientation(image: Image.Image) -> int:
    # Pillow turns a TIFF upright itself.
    if image.format == "TIFF":
        return 1
    # A PNG's own getexif would decode all pixels in search of a chunk behind them.
    value = Image.Image.getexif(image).get(0x0112)
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _is_deep(image: Image.Image) -> bool:
    # Pillow reads 16-bit colours as 8-bit ones, which only what it tells its decoders still shows.
    for codec, _, _, arguments in image.tile:
        known = arguments if isinstance(arguments, tuple) else (arguments,)
        if ";16" in str(known[0]) or (codec == "ppm" and known[-1] > 255):
            return image.format in ("PNG", "TIFF", "PPM")
    return image.mode.startswith(("I", "F"))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        return _by_strips(image, _upper_bits)
    if image.has_transparency_data:
        return _by_strips(image, _on_white)
    # A copy would take as long as half the decoding.
    return image if image.mode == "RGB" else image.convert("RGB")


def _by_strips(image: Image.Image, turn: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Return the RGB image that `turn` makes of an image's strips; of a large one at once it could take gigabytes."""
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        rgb.paste(turn(image.crop((0, top, image.width, min(top + _STRIP, image.height)))), (0, top))
    return rgb


def _upper_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")

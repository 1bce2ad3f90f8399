"""The one decoder for every image that the program opens: bounded, upright, RGB."""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from tlx.data.container import opened, stamp
from tlx.errors import DataError

# Just under Pillow's own limit, so that this limit and its message come first.
MAX_PIXELS = 89_000_000
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
)
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


def image_size(path: Path | str) -> tuple[int, int]:
    """Return (width, height) in pixels of the upright image, from the file's header alone.

    Raises:
      DataError: the file is missing, is not an image of a known format, or has too many pixels.
    """
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def open_image(path: Path | str) -> Image.Image:
    """Return the decoded image, upright and in mode RGB.

    The file's content decides the format, not its name. Of an animation, the first frame. Transparent
    images are laid on white, the page that cut-outs are made for; what a file stores under full
    transparency is arbitrary. Of 16-bit pixels, the upper 8 bits.

    Raises:
      DataError: as `image_size`, or the pixels are truncated, damaged or of a kind without a known range.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        image.load()
        rgb = _rgb(image)
        return rgb.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else rgb


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
    except Exception as error:  # A damaged file can make Pillow's parsers raise nearly anything.
        raise DataError(f"{path}: the image is damaged ({error}); restore it or leave it out") from error


def _orientation(image: Image.Image) -> int:
    # Pillow turns a TIFF upright itself.
    if image.format == "TIFF":
        return 1
    # A PNG's own getexif would decode all pixels in search of a chunk behind them.
    value = Image.Image.getexif(image).get(0x0112)
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        upper = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(upper).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")

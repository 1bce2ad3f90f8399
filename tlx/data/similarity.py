"""Finds images that show the same thing: copies, rescaled or recompressed ones, near and mirrored ones."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tlx.data.images import file_hash, open_image

# Both must hold. On raccoon, star_wars, BCCD, KITTI, COCO and the drawn scenes every pair that does is a
# true one; alone, each bound lets strangers through (white backgrounds the first, a common wall the second).
MAX_BITS = 64
MIN_CORRELATION = 0.8

_SIDE = 32
_BLOCK = 256


@dataclass(frozen=True)
class Relation:
    """One image and later ones that show the same: byte for byte if `exact`, else as far as one can see."""

    exact: bool
    image: int
    others: tuple[int, ...]

    @property
    def code(self) -> str:
        return "duplicate-image" if self.exact else "near-duplicate-image"

    @property
    def verb(self) -> str:
        return "has the same bytes as" if self.exact else "looks like"


@dataclass(frozen=True)
class Looks:
    """What n images look like from afar.

    `bits` is uint64 [n, 4], a 256-bit difference hash; `thumbs` is float32 [n, 1024], grayscale of 32 x 32
    pixels with mean 0 and length 1, or all zeros for an image of one tone. The `mirrored` ones are those
    of the image flipped left to right.
    """

    bits: np.ndarray
    thumbs: np.ndarray
    mirrored_bits: np.ndarray
    mirrored_thumbs: np.ndarray

    def __len__(self) -> int:
        return len(self.bits)


def relations(images: Sequence[Path], near: bool = True) -> list[Relation]:
    """Return which images show the same as which later ones: copies first, then (if `near`) look-alikes.

    Raises:
      DataError: a file cannot be decoded (only if `near`).
    """
    hashes = [file_hash(image) for image in images]
    found = [Relation(True, i, tuple(others.tolist())) for i, others in same(hashes)]
    for i, others in similar(looks(images)) if near else ():
        new = tuple(j for j in others.tolist() if hashes[j] != hashes[i])
        if new:
            found.append(Relation(False, i, new))
    return found


def same(keys: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (i, all j > i with the same key) for the first i of each key; an empty key is like no other."""
    places: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    yield from ((where[0], np.array(where[1:])) for key, where in places.items() if key and len(where) > 1)


def looks(images: Sequence[Path]) -> Looks:
    """Return the looks of image files.

    Raises:
      DataError: a file cannot be decoded.
    """
    with ThreadPoolExecutor() as pool:
        small = np.array(list(pool.map(_thumbnail, images)), np.uint8).reshape(-1, _SIDE, _SIDE)
    flipped = small[:, :, ::-1]
    return Looks(_difference_hash(small), _normalized(small), _difference_hash(flipped), _normalized(flipped))


def similar(seen: Looks) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (i, all j > i that look like i) for every image that has any such j, in order of i."""
    for start in range(0, len(seen), _BLOCK):
        rows = slice(start, start + _BLOCK)
        alike = _alike(seen.bits[rows], seen.thumbs[rows], seen)
        alike |= _alike(seen.mirrored_bits[rows], seen.mirrored_thumbs[rows], seen)
        for i, row in enumerate(alike, start):
            (others,) = np.nonzero(row[i + 1 :])
            if len(others):
                yield i, others + i + 1


def join(labels: np.ndarray, pairs: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the group labels, int [n], after merging each i's group with those of all its j."""
    labels = labels.copy()
    for i, others in pairs:
        merged = np.unique(labels[np.append(others, i)])
        if len(merged) > 1:
            labels[np.isin(labels, merged)] = merged[0]
    return labels


def _thumbnail(path: Path) -> np.ndarray:
    image = open_image(path).convert("L")
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX))


def _difference_hash(small: np.ndarray) -> np.ndarray:
    """Return uint64 [n, 4]: whether each cell of a 16 x 17 grid is brighter than its left neighbour."""
    grids = [Image.fromarray(np.ascontiguousarray(one)).resize((17, 16), Image.Resampling.BOX) for one in small]
    cells = np.array([np.asarray(grid) for grid in grids], np.uint8).reshape(-1, 16, 17)
    return np.packbits((cells[:, :, 1:] > cells[:, :, :-1]).reshape(-1, 256), axis=1).view(np.uint64)


def _normalized(small: np.ndarray) -> np.ndarray:
    flat = small.reshape(-1, _SIDE * _SIDE).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def _alike(bits: np.ndarray, thumbs: np.ndarray, seen: Looks) -> np.ndarray:
    different = sum(
        np.bitwise_count(bits[:, None, part] ^ seen.bits[None, :, part]).astype(np.uint16) for part in range(4)
    )
    return (different <= MAX_BITS) & (thumbs @ seen.thumbs.T >= MIN_CORRELATION)

"""Finds images that show the same thing: copies, rescaled or recompressed ones, near and mirrored ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from tlx.data.survey import SIDE, survey

# Both must hold. On raccoon, star_wars, BCCD, KITTI, COCO and the drawn scenes every pair that does is a
# true one; alone, each bound lets strangers through (white backgrounds the first, a common wall the second).
MAX_BITS = 64
MIN_CORRELATION = 0.8

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

    A file that cannot be decoded looks like no other; `tlx.data.survey` says why it cannot.
    """
    hashes = [picture.sha256 for picture in survey(images)]
    found = [Relation(True, i, tuple(others.tolist())) for i, others in same(hashes)]
    if not near:
        return found
    # Of copies the first by name stands for all.
    files = {key: image for key, image in sorted(zip(hashes, images, strict=True), reverse=True) if key}
    alike = _alike_files(tuple(sorted(files.items())))
    places: dict[str, list[int]] = {}
    for i, key in enumerate(hashes):
        places.setdefault(key, []).append(i)
    for i, key in enumerate(hashes):
        others = sorted(j for other in alike.get(key, ()) for j in places[other] if j > i)
        if others:
            found.append(Relation(False, i, tuple(others)))
    return found


@lru_cache(maxsize=4)
def _alike_files(files: tuple[tuple[str, Path], ...]) -> dict[str, list[str]]:
    """Return which files (hash, path) look like which others, both ways, by hash.

    Kept, since splitting and the doctor ask the same of the same files in different orders.
    """
    alike: dict[str, list[str]] = {}
    for i, others in similar(looks([path for _, path in files])):
        for j in others.tolist():
            alike.setdefault(files[i][0], []).append(files[j][0])
            alike.setdefault(files[j][0], []).append(files[i][0])
    return alike


def same(keys: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (i, all j > i with the same key) for the first i of each key; an empty key is like no other."""
    places: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    yield from ((where[0], np.array(where[1:])) for key, where in places.items() if key and len(where) > 1)


def looks(images: Sequence[Path]) -> Looks:
    """Return the looks of image files; one that cannot be decoded looks as if it had one tone."""
    blank = np.zeros((SIDE, SIDE), np.uint8)
    thumbs = [blank if picture.thumb is None else picture.thumb for picture in survey(images)]
    small = np.array(thumbs, np.uint8).reshape(-1, SIDE, SIDE)
    flipped = small[:, :, ::-1]
    return Looks(_difference_hash(small), _normalized(small), _difference_hash(flipped), _normalized(flipped))


def similar(seen: Looks) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (i, all j > i that look like i) for every image that has any such j, in order of i."""
    for start in range(0, len(seen), _BLOCK):
        rows, later = slice(start, start + _BLOCK), seen.thumbs[start:].T
        plain, mirrored = (t[rows] @ later >= MIN_CORRELATION for t in (seen.thumbs, seen.mirrored_thumbs))
        for row in range(len(plain)):
            i = start + row
            others = np.union1d(
                _close(seen.bits[i], seen.bits, np.flatnonzero(plain[row, row + 1 :]) + i + 1),
                _close(seen.mirrored_bits[i], seen.bits, np.flatnonzero(mirrored[row, row + 1 :]) + i + 1),
            )
            if len(others):
                yield i, others


def _close(bits: np.ndarray, all_bits: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    return candidates[np.bitwise_count(bits ^ all_bits[candidates]).sum(axis=1) <= MAX_BITS]


def join(labels: np.ndarray, pairs: Iterable[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the group labels, int [n], after merging each i's group with those of all its j."""
    labels = labels.copy()
    for i, others in pairs:
        merged = np.unique(labels[np.append(others, i)])
        if len(merged) > 1:
            labels[np.isin(labels, merged)] = merged[0]
    return labels


def _difference_hash(small: np.ndarray) -> np.ndarray:
    """Return uint64 [n, 4]: whether each cell of a 16 x 17 grid is brighter than its left neighbour."""
    grids = [Image.fromarray(np.ascontiguousarray(one)).resize((17, 16), Image.Resampling.BOX) for one in small]
    cells = np.array([np.asarray(grid) for grid in grids], np.uint8).reshape(-1, 16, 17)
    return np.packbits((cells[:, :, 1:] > cells[:, :, :-1]).reshape(-1, 256), axis=1).view(np.uint64)


def _normalized(small: np.ndarray) -> np.ndarray:
    flat = small.reshape(-1, SIDE * SIDE).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

"""Ways to break any dataset: cuts, flipped bits, noise, other words, and something else where a file belongs."""

import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from seeds import SEEDS
from specials import SPECIALS, link, put

Case = tuple[str, Callable[[Path], None]]
TEXTS = (".xml", ".txt", ".json", ".ndjson", ".csv", ".pbtxt", ".jsonl")
WORDS = (
    *("NaN", "-Infinity", "1e999", "-1e308", "99999999999999999999999", "-0.0", "1_0", "0x10", "\u0663"),
    *("", "null", '"x"', "[]", "{}", "true", "\0", "\ufeff", "\u202e", "..", "/etc/passwd", "\U0001f600"),
)


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one thing wrong, chosen by the generator."""
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice((1, 2, 4, 16, 64)))
    kind = rng.randrange(8)
    if kind == 0:
        return content[:at]
    if kind in (1, 2) and content:
        changed = bytearray(content)
        changed[at % len(content)] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == 3:
        return content[:at] + content[end:]
    if kind == 4:
        return content[:end] + content[at:]
    if kind == 5:
        return content[:at] + rng.choice((b"\0", b"\xff", rng.randbytes(8), b"\n", b'"', b"<", b"{")) + content[at:]
    if kind == 6:
        return content[:at] + rng.choice((b"\0", b"\xff")) * (end - at) + content[end:]
    return _other_word(content, rng)


def _other_word(content: bytes, rng: random.Random) -> bytes:
    words = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_]{2,}", content[:200_000]))
    if not words:
        return content + b"\0"
    word = rng.choice(words)
    return content[: word.start()] + rng.choice(WORDS).encode() + content[word.end() :]


def cases(name: str) -> Iterator[Case]:
    """Yield all cases of one format."""
    seed = SEEDS[name]
    for file in seed.files:
        yield from _of_any_file(file)
    yield from SPECIALS[name]().items()


def _of_any_file(file: str) -> Iterator[Case]:
    def change(how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda root: put(root / file, how((root / file).read_bytes()))

    for share in (0.0, 0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99):
        yield f"{file} cut at {share:.0%}", change(lambda content, share=share: content[: int(len(content) * share)])
    yield f"{file} less its last byte", change(lambda content: content[:-1])
    for number in range(10):
        rng = random.Random(f"{file} {number}")
        yield f"{file} mutated {number}", change(lambda content, rng=rng: mutate(mutate(content, rng), rng))
    yield f"{file} of zeros", change(lambda content: bytes(len(content)))
    yield f"{file} of noise", change(lambda content: random.Random(1).randbytes(len(content)))
    yield f"{file} twice", change(lambda content: content * 2)
    yield f"{file} a folder", lambda root: (os.unlink(root / file), (root / file).mkdir())
    yield f"{file} gone", lambda root: os.unlink(root / file)
    yield f"{file} a link out", lambda root: link(root / file, root.parent / "secret.png")
    yield f"{file} a link to itself", lambda root: link(root / file, root / file)
    yield f"{file} a pipe", lambda root: (os.unlink(root / file), os.mkfifo(root / file))
    if file.endswith(TEXTS):
        yield f"{file} in UTF-16", change(lambda content: content.decode().encode("utf-16"))
        yield f"{file} with three marks", change(lambda content: b"\xef\xbb\xbf" * 3 + content)
        for number in range(14):
            rng = random.Random(f"{file} word {number}")
            yield f"{file} with another word {number}", change(lambda content, rng=rng: _other_word(content, rng))

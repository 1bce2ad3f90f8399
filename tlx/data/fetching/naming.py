"""File names for URLs: readable, unique whatever the disk thinks of letter case, and never leading anywhere."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from tlx.data.files import stem

_MOST = 50
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# In order of precedence of what a file begins with; formats: those that tlx.data.images decodes.
_HEADS = (
    (rb"\xff\xd8\xff", ".jpg"),
    (rb"\x89PNG", ".png"),
    (rb"RIFF....WEBP", ".webp"),
    (rb"GIF8", ".gif"),
    (rb"II\*\x00|MM\x00\*", ".tif"),
    (rb"BM", ".bmp"),
    (rb"P[1-6]", ".ppm"),
)


def choose_stems(urls: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Return a file name without extension for each URL, different from each other and from those taken.

    It is the last segment of the URL; where that is another's too, with a part of the URL's SHA-256.
    """
    plain = {url: plain_stem(url) for url in urls}
    counts = Counter(name.casefold() for name in plain.values())
    used = {name.casefold() for name in taken}
    chosen = {}
    for url, name in plain.items():
        unique = name
        if counts[name.casefold()] > 1 or name.casefold() in used:
            unique = f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        while unique.casefold() in used:
            unique += "_"
        used.add(unique.casefold())
        chosen[url] = unique
    return chosen


def plain_stem(url: str) -> str:
    """Return a URL's last segment, percent-decoded, as a file name that every system takes, without extension."""
    path = urlsplit(url).path.rstrip("/")
    last = unicodedata.normalize("NFKC", unquote(path.rpartition("/")[2], errors="replace"))
    name = re.sub(r"[^\w.-]+", "_", stem(last))[:_MOST].strip("._-") or "image"
    return f"_{name}" if _DEVICE.fullmatch(name) else name


def suffix_of(head: bytes) -> str:
    """Return the extension for an image file's content, by its first bytes."""
    return next((suffix for pattern, suffix in _HEADS if re.match(pattern, head, re.DOTALL)), ".img")

"""The folder that `tlx fetch` fills: which of its files holds which URL's image, and that file's checksum."""

from pathlib import Path
from typing import NamedTuple

import msgspec

INDEX = "index.jsonl"
_MAX_BYTES = 500_000_000


class Entry(msgspec.Struct):
    """One downloaded image: `url` as the manifest names it, `final_url` the one it came from, after redirects.

    `file` is its name in the folder, `sha256` and `bytes` are those of its content.
    """

    url: str
    file: str
    sha256: str
    bytes: int
    final_url: str = ""


class Index(NamedTuple):
    """What a folder holds by URL, and the numbers of the index's lines that cannot be read."""

    entries: dict[str, Entry]
    broken: list[int]


def default_folder(manifest: Path) -> Path:
    """Return the folder of a manifest's name, beside it, which its images are downloaded to and looked for in."""
    return manifest.with_suffix("") if manifest.suffix else manifest.with_name(f"{manifest.name}_images")


def load(folder: Path) -> Index:
    """Return a folder's index, empty where it has none; of several lines about one URL the last one counts."""
    file = folder / INDEX
    entries: dict[str, Entry] = {}
    broken: list[int] = []
    if file.is_file() and not file.is_symlink() and file.stat().st_size <= _MAX_BYTES:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    entry = msgspec.json.decode(line, type=Entry)
                except (msgspec.MsgspecError, ValueError):
                    broken.append(number)
                    continue
                if _is_plain(entry.file):
                    entries[entry.url] = entry
                else:
                    broken.append(number)
    return Index(entries, broken)


def _is_plain(name: str) -> bool:
    """Whether a file's name stays in its folder."""
    return bool(name) and name not in (".", "..") and not set(name) & set("/\\\0")

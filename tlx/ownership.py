"""What may be replaced, renamed or removed in a folder: what tlx wrote there, as its list proves, and nothing else.

A name is put on the list (see `tlx.marker`) before a file of that name is made, and only while there is none. So what
is there and not on the list is a stranger's: it is named, and left as it is. Links are never written through.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tlx import marker
from tlx.errors import TlxError
from tlx.marker import MARKER, Kind, What

LOCK = ".tlx.lock"
# What these folders are to hold: a stranger's file of such a name is better met before hours of work than after.
_RESULTS = ("config.gin", "environment.json", "data.json", "result.json")
_NAMES: dict[Kind, tuple[str, ...]] = {
    "run": (
        *(*_RESULTS, "model.json", "history.jsonl", "run.log", "worker.log", "test.jpg", "validation.jpg"),
        *("predictions-test.json", "predictions-validation.json"),
        *("checkpoint.npz", "checkpoint-before.npz", "partial-detector.weights.h5", "detector.weights.h5"),
    ),
    "search": (*_RESULTS, "study.journal", "storage.json"),
    "predictions": ("predictions.json",),
    "inspection": ("index.html", "sheet.png", "augmented.png", "inspection.json"),
    "images": ("index.jsonl",),
    "files": (),
}
_WORDS: dict[Kind, str] = {
    "run": "a run of tlx train",
    "search": "a search",
    "predictions": "predictions",
    "inspection": "an inspection",
    "images": "downloaded images",
    "files": "files of tlx",
}
_SHOWN = 5
_ELSEWHERE = "move it away, or name another folder"


def kind(folder: Path) -> Kind | None:
    """Return what kind of folder tlx made here; None where it did not, or did so before it kept lists."""
    made = marker.read(folder)
    return made.kind if made else None


def owns(path: Path) -> bool:
    """Return whether tlx wrote this file, or made this folder."""
    root = marker.root_of(path)
    return root is not None and marker.listed(root, path) not in (None, "gone")


def take(folder: Path, kind: Kind, within: Path | None = None) -> None:
    """Make a folder of this kind, or go on with one; `within` is the folder of tlx that it is a part of, if it is.

    Raises:
      TlxError: it holds something that tlx did not make, or is of another kind.
    """
    check(folder, kind)
    made = marker.read(folder)
    if made is None or made.kind != kind:
        if within:
            _claim(within, [folder], "marked")
        folder.mkdir(parents=True, exist_ok=True)
        marker.begin(folder, kind) if made is None else marker.rename(folder, kind)


def check(folder: Path, kind: Kind) -> None:
    """Raise what `take` would raise, and make nothing."""
    made = marker.read(folder)
    if made is None or made.kind == "files":
        _refuse_strangers(folder)
    elif made.kind != kind:
        raise TlxError(f"{folder} holds {_WORDS[made.kind]}; name another folder")
    taken = [n for n in _NAMES[kind] if os.path.lexists(folder / n) and not owns(folder / n)]
    if taken:
        raise TlxError(
            f"{folder} holds what tlx did not write, under names that it needs: {shown(taken)}; {_ELSEWHERE}"
        )


def claim(*paths: Path) -> None:
    """Say that tlx is about to write these files; folders on the way are made.

    A name stands for its `partial` as well. It goes on the list of the nearest folder above it that has one, or else
    on a new one beside it.

    Raises:
      TlxError: something of that name is there that tlx did not write, or a link is in the way.
    """
    roots: dict[Path, list[Path]] = {}
    for path in paths:
        roots.setdefault(marker.root_of(path) or path.parent, []).append(path)
    for root, inside in roots.items():
        root.mkdir(parents=True, exist_ok=True)
        _claim(root, inside)


def fresh(path: Path) -> Path:
    """Claim a file, remove what tlx wrote there before, and return the path, for the file to be made anew.

    Written in place, a copy that a user keeps as a hard link would change, too.
    """
    claim(path)
    path.unlink(missing_ok=True)
    return path


def opened(path: Path, flags: int) -> int:
    """Claim a file and return a descriptor of it, made if it is not there."""
    claim(path)
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def partial(path: Path) -> Path:
    """Return the name under which a file is written until it is whole."""
    return path.with_name(f".{path.name}.partial")


def adopt(*paths: Path, kind: Kind = "files") -> None:
    """Put files on the list whose content has proved that tlx wrote them, before it kept lists.

    `kind` is the kind of their folder, where it has no list.
    """
    for path in paths:
        root = marker.root_of(path) or path.parent
        _missing_folders(root, path)
        if marker.read(root) is None:
            marker.begin(root, kind)
        if stat.S_ISREG(marker.mode(path)) and not owns(path):
            marker.append(root, {marker.name_in(root, path): "file"})


def discard(path: Path) -> None:
    """Remove a file if tlx wrote it."""
    root = marker.root_of(path)
    if root and marker.listed(root, path) == "file" and marker.is_plain(root, path) and stat.S_ISREG(marker.mode(path)):
        path.unlink()
        marker.append(root, {marker.name_in(root, path): "gone"})


def renamed(path: Path) -> None:
    """Say that a file which tlx wrote has another name now: what comes under this one is not tlx's."""
    root = marker.root_of(path)
    if root and marker.listed(root, path) == "file" and not os.path.lexists(path):
        marker.append(root, {marker.name_in(root, path): "gone"})


def scratch(folder: Path, prefix: str) -> Path:
    """Make and return a new folder for temporary files, whose name begins with `prefix`; `sweep` removes it."""
    work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
    root = marker.root_of(work) or folder
    marker.append(root, {marker.name_in(root, work): "tree"})
    return work


def sweep(folder: Path, prefix: str) -> None:
    """Remove the folders that `scratch` made with this prefix, with all that is in them."""
    root = marker.root_of(folder / prefix)
    for name, what in list(marker.required(root).things.items()) if root else ():
        path = root / name
        if what == "tree" and path.parent == folder and path.name.startswith(prefix) and marker.is_plain(root, path):
            shutil.rmtree(path, ignore_errors=True)
            marker.append(root, {name: "gone"})


def clear(folder: Path, kind: Kind) -> list[str]:
    """Remove all that tlx made in a folder, which is of this kind from now on; return the names of what stays.

    The folder itself stays, and its lock, which the caller holds.
    """
    left = _remove(folder)
    lock: dict[str, What] = {LOCK: "file"} if owns(folder / LOCK) else {}
    marker.begin(folder, kind, left | lock, anew=True)
    return sorted(
        marker.name_in(folder, Path(at) / name)
        for at, folders, files in os.walk(folder)
        for name in (*files, *(inside for inside in folders if (Path(at) / inside).is_symlink()))
        if not _is_kept(Path(at) / name)
    )


def shown(names: Sequence[str]) -> str:
    """Return the first few of these names in words, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _remove(folder: Path) -> dict[str, What]:
    """Remove what is on a folder's list, but its lock, and return what stays of it: folders that hold other things."""
    things = marker.required(folder).things
    left: dict[str, What] = {}
    for name in sorted(things, key=lambda name: (-name.count("/"), name)):
        path, what = folder / name, things[name]
        if name == LOCK or what == "gone" or not marker.is_plain(folder, path):
            continue
        if what == "file":
            for file in (path, partial(path)):
                if stat.S_ISREG(marker.mode(file)):
                    file.unlink()
        elif stat.S_ISDIR(marker.mode(path)):
            if what == "tree":
                shutil.rmtree(path)
            elif what == "marked" and marker.read(path):
                _remove_part(path)
            with contextlib.suppress(OSError):
                path.rmdir()
            if path.exists():
                left[name] = what
    return left


def _remove_part(folder: Path) -> None:
    """Remove all that tlx made in a folder that is a part of another one, its list at the very end."""
    left, made = _remove(folder), marker.required(folder)
    if owns(folder / LOCK):
        (folder / LOCK).unlink(missing_ok=True)
    if os.listdir(folder) == [MARKER]:
        (folder / MARKER).unlink()
    else:
        marker.begin(folder, made.kind, left, anew=True)


def _is_kept(path: Path) -> bool:
    return path.name in (MARKER, LOCK) and marker.read(path.parent) is not None


def _refuse_strangers(folder: Path) -> None:
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise TlxError(f"{folder} is there already, and is no folder; name another one")
        return
    there = sorted(name for name in os.listdir(folder) if not name.startswith(MARKER))
    # Read after that: another process may have begun to make it a moment ago.
    if made := marker.read(folder):
        there = [name for name in there if made.things.get(name, "gone") == "gone"]
    if there:
        raise TlxError(
            f"{folder} holds what tlx did not make, or made before it kept a list of that ({shown(there)}). It is left"
            " as it is; name another folder, or an empty one"
        )


def _claim(root: Path, paths: Sequence[Path], what: What = "file") -> None:
    # A name is on the list before a file has it; so the file is looked for first, and the list read after that.
    there = [path for path in paths if any(map(os.path.lexists, (path, partial(path))))]
    new: dict[str, What] = {}
    for path in paths:
        new |= dict.fromkeys(_missing_folders(root, path), "folder")
        if marker.listed(root, path) in (None, "gone"):
            new[marker.name_in(root, path)] = what
        elif stat.S_ISDIR(marker.mode(path)) != (what == "marked") and path in there:
            raise _stranger(path)
    if strangers := [path for path in there if marker.name_in(root, path) in new and what == "file"]:
        raise _stranger(strangers[0])
    if new:
        marker.append(root, new)
    for name, made in new.items():
        if made == "folder":
            (root / name).mkdir(exist_ok=True)


def _missing_folders(root: Path, path: Path) -> list[str]:
    """Return the folders between `root` and `path` that are to be made; a link on the way is refused."""
    missing = []
    for above in reversed(path.relative_to(root).parents[:-1]):
        if not marker.mode(root / above):
            missing.append(above.as_posix())
        elif not stat.S_ISDIR(marker.mode(root / above)):
            raise _stranger(root / above)
    for file in (path, partial(path)):
        if stat.S_ISLNK(marker.mode(file)):
            raise _stranger(file)
    return missing


def _stranger(path: Path) -> TlxError:
    is_link = stat.S_ISLNK(marker.mode(path))
    why = "is a link, which nothing is written through" if is_link else "is there already, and tlx did not write it"
    return TlxError(f"{path} {why}: it is left as it is; {_ELSEWHERE}")

"""A dataset in one format becomes the same dataset in another."""

from collections.abc import Callable
from pathlib import Path

from tlx import registry
from tlx.data.dataset import Dataset, Finding
from tlx.data.place import Place, names, new_folder
from tlx.errors import DataError, suggest

_SHOWN = 10


def convert(
    dataset: Dataset,
    target: Path,
    format: str,
    link: bool = True,
    report: Callable[[int, int], None] = lambda *_: None,
    leave_out_errors: bool = False,
) -> list[Finding]:
    """Write `dataset` as the new folder `target` in a registered writer's format; return what that cannot hold.

    The folder appears whole or not at all, and nothing is overwritten.

    Args:
      dataset: what to write.
      target: a folder that does not exist or is empty, outside of those that hold the dataset's images.
      format: a writer's name, such as "coco".
      link: whether images become hard links where that is possible, one file under two names, or copies.
      report: told (images done, images in all) after each image.
      leave_out_errors: whether to go on where reading found errors, without the records that have them.

    Raises:
      DataError: there is no such format, the dataset has errors, the target is not free, an image cannot be
        read, or the disk is full.
    """
    write = _writer(format)
    _refuse_errors(dataset, leave_out_errors)
    _refuse_inside(dataset, target)
    with new_folder(target) as whole:
        found = write(dataset, whole, Place(link, len(dataset), report))
    return [*found, *_changed(dataset, format)]


def _writer(format: str) -> Callable[[Dataset, Path, Place], list[Finding]]:
    registry.discover()
    known = registry.writers.entries
    if format not in known:
        raise DataError(
            f"no writer is called {format!r}{suggest(format, known)} (there are {', '.join(sorted(known))})"
        )
    return known[format].factory


def _refuse_errors(dataset: Dataset, leave_out: bool) -> None:
    errors = [str(finding) for finding in dataset.findings if finding.severity == "error"]
    if errors and not leave_out:
        shown = "".join(f"\n  {error}" for error in errors[:_SHOWN])
        raise DataError(
            f"{dataset.name} has {len(errors)} errors, and these records would be missing from what is written; "
            f"mend or remove them, or ask to leave them out:{shown}"
        )


def _refuse_inside(dataset: Dataset, target: Path) -> None:
    # Readers that search a folder would find every image twice.
    around = {target.resolve(), *target.resolve().parents}
    for folder in {example.image.parent for example in dataset.examples}:
        if folder.resolve() in around:
            raise DataError(
                f"{target} is inside of {folder}, which holds images of the dataset; name a folder elsewhere"
            )


def _changed(dataset: Dataset, format: str) -> list[Finding]:
    found = []
    owns = zip(names(dataset.examples), dataset.examples, strict=True)
    if renamed := [(name, example.image) for name, example in owns if name != example.image.name]:
        told = ", ".join(f"{image.name!r} as {name!r}" for name, image in renamed[:_SHOWN])
        more = f" and {len(renamed) - _SHOWN} more" if len(renamed) > _SHOWN else ""
        message = f"{len(renamed)} images got names that are unique and safe everywhere: {told}{more}"
        found.append(Finding("renamed-image", "info", renamed[0][1].name, "", message))
    if grouped := [example for example in dataset.examples if example.group]:
        message = f"{format} has no word for groups, which {len(grouped)} images are in, beyond what file names tell"
        found.append(Finding("cannot-hold", "info", grouped[0].record or grouped[0].image.name, "", message))
    return found

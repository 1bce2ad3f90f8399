"""Which split a file or folder holds, as its name tells."""

import re

_WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "eval", "evaluation", "minival"), "validation"),
    **dict.fromkeys(("test", "testing", "testdev"), "test"),
    # What tlx itself calls images of no split that are written beside splits.
    "unsplit": "",
}


def named_split(name: str) -> str | None:
    """Return the split that a name such as `coco_train2017` or `Validation` tells, or None; the last word counts."""
    words = re.findall(r"[a-z]+", name.lower())
    return next((_WORDS[word] for word in reversed(words) if word in _WORDS), None)

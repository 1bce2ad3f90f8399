"""What the files are called that somebody gave to a labelling tool."""

import re

from tlx.data.files import spellings

# Tools put the start of a random id, or a whole one, before the name that a file had.
_PREFIX = re.compile(r"(?:.*/)?(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{8})-(.+)")
# A text that goes on, such as an image in base64, names no file.
_LONGEST = 8192


def image_names(text: str) -> list[str]:
    """Return the file names that a tool's name or URL for an image can mean, the likeliest first.

    These are a URL's last segment, it with percent signs decoded, and it without the id that the tool put
    before the name at the upload.
    """
    # Label Studio serves local files under this parameter.
    names = spellings(text[:_LONGEST].rpartition("?d=")[2])
    uploaded = _PREFIX.fullmatch(names[-1])
    return [*names, uploaded[1]] if uploaded else names

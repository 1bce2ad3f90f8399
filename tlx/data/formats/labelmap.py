"""Label maps of the TF Object Detection API: which number and which name mean which class.

Format: object_detection/protos/string_int_label_map.proto, in protobuf's text form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from tlx.data.formats.protos import message_class
from tlx.errors import DataError

_MAX_BYTES = 2_000_000


@dataclass(frozen=True)
class LabelMap:
    """Classes by their number, and by their names: both what records call them and what people do.

    `problems` says what in the file cannot be meant, such as a number that is given twice.
    """

    by_id: dict[int, str]
    by_name: dict[str, str]
    problems: tuple[str, ...] = ()


def read(file: Path) -> LabelMap:
    """Read a label map; an item's class is its display_name where it has one, else its name.

    Fields that the API does not know are skipped.

    Raises:
      DataError: the file is not a label map; the message says where.
    """
    items = _STRING_INT_LABEL_MAP()
    try:
        if not file.is_file():
            raise ValueError("it is no file")
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        text_format.Parse(file.read_text("utf-8-sig"), items, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError, OSError) as error:
        raise DataError(f"{file}: not a label map: {str(error)[:300]}; repair or replace it") from error
    by_id: dict[int, str] = {}
    by_name: dict[str, str] = {}
    problems = []
    for item in items.item:
        shown = (item.display_name or item.name).strip()
        if not shown or item.id < 1:
            problems.append(f"the item with id {item.id} and name {item.name!r} needs a name, and an id from 1 on")
        elif by_id.setdefault(item.id, shown) != shown:
            problems.append(f"id {item.id} means both {by_id[item.id]!r} and {shown!r}; the first is taken")
        for name in filter(None, (item.name.strip(), item.display_name.strip())):
            by_name.setdefault(name, shown)
    return LabelMap(by_id, by_name, tuple(problems))


def write(classes: Sequence[str]) -> str:
    """Return the text of a label map that numbers `classes` from 1 on."""
    items = _STRING_INT_LABEL_MAP()
    for number, name in enumerate(classes, 1):
        items.item.add(name=name, id=number)
    return text_format.MessageToString(items, as_utf8=True)


_STRING_INT_LABEL_MAP = message_class(
    """
    name: "string_int_label_map.proto"
    message_type {
      name: "StringIntLabelMapItem"
      field { name: "name" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
      field { name: "id" number: 2 label: LABEL_OPTIONAL type: TYPE_INT32 }
      field { name: "display_name" number: 3 label: LABEL_OPTIONAL type: TYPE_STRING }
    }
    message_type {
      name: "StringIntLabelMap"
      field { name: "item" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".StringIntLabelMapItem" }
    }
    """,
    "StringIntLabelMap",
)

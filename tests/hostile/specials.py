"""Ways to break each format by what is dear to it: bombs, absurd numbers, names that lead elsewhere."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from bombs import animated, archive, encrypted, pictures, resized

Break = Callable[[Path], None]
_DEEP = 200_000
_OUT = ("../../secret.png", "/etc/passwd", "..\\..\\secret.png", "images/../../secret.png", "a\0.png", "x" * 5000, "")


def put(path: Path, content: bytes | str) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


def link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def replaced(file: str, old: str, new: str) -> Break:
    """Return what replaces a text in a file by another; it must be there."""

    def replace(root: Path) -> None:
        content = (root / file).read_bytes().decode()
        assert old in content, (file, old)
        put(root / file, content.replace(old, new))

    return replace


def written(file: str, content: bytes | str) -> Break:
    return lambda root: put(root / file, content)


def poked(file: str, at: int, new: bytes) -> Break:
    """Return what overwrites some bytes of a file."""

    def poke(root: Path) -> None:
        content = (root / file).read_bytes()
        put(root / file, content[:at] + new + content[at + len(new) :])

    return poke


def swapped(file: str, old: str, **others: str) -> dict[str, Break]:
    """Return cases by name, each with another text for one that is in a file."""
    return {f"{name} for {old[:20]}": replaced(file, old, new) for name, new in others.items()}


def named_out(file: str, old: str) -> dict[str, Break]:
    """Return cases in which a JSON string's content is a name that leads elsewhere, or nowhere."""
    return {f"{file} names {new[:20]!r}": replaced(file, old, json.dumps(new)[1:-1]) for new in _OUT}


def bombs(file: str) -> dict[str, Break]:
    """Return cases with pictures for a file that are no pictures, or too large."""
    return {f"{file} {what}": written(file, content) for what, content in pictures().items()}


def _json(file: str) -> dict[str, Break]:
    texts = {
        "nested lists": "[" * _DEEP + "]" * _DEEP,
        "nested objects": '{"a":' * _DEEP + "1" + "}" * _DEEP,
        "a number": "7",
        "a string": '"x"',
        "nothing": "null",
        "an empty list": "[]",
        "an empty object": "{}",
        "a list of null": "[null, 1, []]",
        "lone surrogates": '[{"\\ud800": "\\udfff"}]',
        "a huge number": '{"images": [{"id": ' + "9" * 5000 + "}]}",
    }
    return {what: written(file, text) for what, text in texts.items()}


def _voc() -> dict[str, Break]:
    file = "Annotations/a.xml"
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    entity = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>'
    return {
        "laughs": written(file, f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><annotation>&l9;</annotation>'),
        "entity": written(file, entity),
        "deep": written(file, "<annotation>" + "<a>" * _DEEP + "</a>" * _DEEP + "</annotation>"),
        "attributes": written(file, "<annotation " + " ".join(f'a{i}=""' for i in range(50_000)) + "/>"),
        "unknown encoding": written(file, '<?xml version="1.0" encoding="x-none"?><annotation/>'),
        "another root": written(file, "<html><body/></html>"),
        "no name": replaced(file, "<name>cup</name>", "<name/>"),
        "no box": replaced(file, "bndbox", "box"),
        **swapped(
            file, "<xmax>30", inverted="<xmax>3", far="<xmax>1e30", nan="<xmax>nan", digits="<xmax>" + "3" * 5000
        ),
        **{f"{name[:20]!r} for its name": _voc_of(name) for name in ("../../secret", "/etc/passwd", "y" * 5000)},
        **bombs("JPEGImages/a.png"),
    }


def _voc_of(name: str) -> Break:
    def change(root: Path) -> None:
        content = (root / "Annotations/a.xml").read_text().replace("a.png", name)
        (root / "Annotations/a.xml").unlink()
        put(root / "Annotations/other.xml", content)

    return change


def _kitti() -> dict[str, Break]:
    file = "training/label_2/000000.txt"
    return {
        "few columns": written(file, "Car 0 0 0 1 2 3\n"),
        "words": written(file, "Car a b c d e f g h i j k l m n\n"),
        "a long line": written(file, "Car " + "1 " * 2_000_000),
        "many bad lines": written(file, "Car 0 0\n" * 200_000),
        **swapped(file, "30.00", nan="nan", infinite="inf", huge="1e300", inverted="3", digits="3" * 5000),
        **bombs("training/image_2/000000.png"),
    }


def _coco() -> dict[str, Break]:
    file, runs = "instances.json", '"counts": [500, 500, 4000], "size": [50, 100]'
    boxes = {
        "three": "[1, 2, 3]",
        "words": '["a", 1, 2, 3]',
        "null": "null",
        "nan": "[NaN, 1, 2, 3]",
        "object": '{"x": 1}',
        "negative": "[10, 5, -20, 20]",
        "huge": "[1e300, 5, 1e300, 20]",
        "deep": "[[[[1]]]]",
    }
    crowds = {
        "huge_size": '"counts": [500, 500, 4000], "size": [2000000000, 2000000000]',
        "huge_runs": '"counts": [500, 99999999999, 4000], "size": [50, 100]',
        "negative": '"counts": [500, -500, 4000], "size": [50, 100]',
        "text": '"counts": "~~~~~~", "size": [50, 100]',
        "fraction": '"counts": [0.5], "size": [50, 100]',
        "no_size": '"counts": [1]',
        "words": '"counts": ["a"], "size": ["b", "c"]',
        "long_text": '"counts": "' + "0" * 1_000_000 + '", "size": [50, 100]',
    }
    outlines = {
        "odd": "[[10, 5, 30]]",
        "empty": "[[]]",
        "words": '[["a", "b"]]',
        "huge": "[[1e300, 1, 2, 1e300, -1e300, 7]]",
        "flat": "[10, 5, 30, 5]",
        "long": "[[" + "1, 2, " * 200_000 + "3, 4]]",
    }
    return {
        **_json(file),
        **named_out(file, "a.png"),
        **swapped(file, "[10, 5, 20, 20]", **boxes),
        **swapped(file, runs, **crowds),
        **swapped(file, "[[10, 5, 30, 5, 30, 25, 10, 25]]", **outlines),
        "no category": replaced(file, '"category_id": 3', '"category_id": 4'),
        "no image": replaced(file, '"image_id": 7', '"image_id": 70'),
        "one id for two": replaced(file, '"id": 8', '"id": 7'),
        **bombs("images/a.png"),
    }


def _labelbox_v1() -> dict[str, Break]:
    file = "export.json"
    return {
        **_json(file),
        **named_out(file, "https://x/a.png"),
        **swapped(
            file, '"left": 10', words='"left": "x"', huge='"left": 1e308', other='"right": 10', null='"left": null'
        ),
        "a label that is a number": replaced(file, '"Label": {"objects"', '"Label": 3, "x": {"objects"'),
        **bombs("images/a.png"),
    }


def _labelbox_2018() -> dict[str, Break]:
    file = "export.json"
    return {
        "no polygon": replaced(file, "MULTIPOLYGON", "MULTIPOINT"),
        "an empty polygon": replaced(file, "10 5, 30 5, 30 25, 10 25, 10 5", ""),
        "a long polygon": replaced(file, "30 25", "3 4, " * 200_000 + "30 25"),
        "brackets": replaced(file, "10 5, 30 5", "(" * 200_000),
        "long numbers": replaced(file, "30 25", "1" * 200_000 + " " + "." * 200_000),
        "spaces": replaced(file, "30 25", "30" + " " * 200_000 + "x"),
        "nested answers": replaced(file, '"Cup": [{', '"Cup": [' + "[" * 20_000 + "]" * 20_000 + ", {"),
    }


def _labelbox_v2() -> dict[str, Break]:
    file = "export.ndjson"
    return {
        **_json(file),
        "a video": replaced(file, '"annotations": {', '"annotations": {"frames": {"1": {}}, '),
        "labels that are a number": replaced(file, '"labels": [', '"labels": 3, "x": ['),
    }


def _tfrecord() -> dict[str, Break]:
    file = "train.record"
    return {
        **{f"length {n}": poked(file, 0, struct.pack("<Q", n)) for n in (0, 1, 2**31, 2**40, 2**63, 2**64 - 1)},
        "compressed": lambda root: put(root / file, zlib.compress((root / file).read_bytes(), wbits=31)),
        "something else": written(file, b"\x0a" * 5000),
        "no map": lambda root: os.unlink(root / "label_map.pbtxt"),
        **_label_map(),
    }


def _label_map() -> dict[str, Break]:
    file = "label_map.pbtxt"
    return {
        "deep": written(file, "item { " * 50_000),
        "deep and unknown": written(file, "item { x " + "{ y " * 50_000),
        **swapped(file, "id: 7", same="id: 3", zero="id: 0", negative="id: -1", huge="id: " + "9" * 5000, word="id: x"),
        "no name": replaced(file, '"mug"', '""'),
    }


def _folder() -> dict[str, Break]:
    odd = Path(os.fsdecode(b"cats/\xff\xfe.png"))
    return {
        **bombs("cats/a.png"),
        "a deep tree": lambda root: (root / "cats" / "/".join("d" * 200)).mkdir(parents=True),
        "a link to itself": lambda root: (root / "cats" / "again").symlink_to(root, target_is_directory=True),
        "a link out": lambda root: (root / "mice").symlink_to(root.parent, target_is_directory=True),
        "a name in no encoding": lambda root: put(root / odd, b"no picture"),
    }


def _archives() -> dict[str, Break]:
    odd = ("../../secret.png", "/etc/passwd.png", "cats/../../x.png", "C:\\x.png", "\u202e.png", "x" * 9999 + ".png")
    return {
        **{
            f"{n[:20]!r} in it": lambda root, n=n: put(root / "pets.zip", archive(n, "cats/b.png", "dogs/c.png"))
            for n in odd
        },
        "a bomb": lambda root: put(root / "pets.zip", archive("cats/a.png", "dogs/b.png", content=bytes(200_000_000))),
        "nothing in it": lambda root: put(root / "pets.zip", archive()),
        "empty files": lambda root: put(
            root / "pets.zip", archive(*_many("cats/{}.png", 5_000), "dogs/x.png", content=b"")
        ),
        "a zip in it": lambda root: put(
            root / "pets.zip", archive("cats/a.zip", "dogs/b.zip", content=archive("x.png"))
        ),
        "encrypted": lambda root: put(root / "pets.zip", encrypted((root / "pets.zip").read_bytes())),
        "small sizes": lambda root: put(root / "pets.zip", resized((root / "pets.zip").read_bytes(), 5)),
        "large sizes": lambda root: put(root / "pets.zip", resized((root / "pets.zip").read_bytes(), 2**32 - 2)),
    }


def _manifest() -> dict[str, Break]:
    file = "list.csv"
    return {
        **named_out(file, "https://x.org/a.png"),
        "a quote never closed": replaced(file, '"cup, large",10', '"cup, large,10'),
        "a million columns": replaced(file, "train\r\n", "train" + ",1" * 1_000_000 + "\r\n"),
        "a huge cell": replaced(file, "cup, large", "c" * 1_000_000),
        "only quotes": written(file, '"' * 1_000_001),
        "only commas": written(file, "," * 1_000_001),
        "only line ends": written(file, "\r\n" * 1_000_000),
        "many rows": written(file, "url,label\n" + "x.png,1\n" * 600_000),
        "nothing but a header": written(file, "url,label\n"),
        **bombs("images/a.png"),
    }


def _many(pattern: str, count: int) -> list[str]:
    return [pattern.format(number) for number in range(count)]


def _index() -> dict[str, Break]:
    file = "images/index.jsonl"
    return {**named_out(file, "a.png"), "nested": written(file, "[" * _DEEP + "\n")}


def _images() -> dict[str, Break]:
    return {
        **bombs("rgb.png"),
        "many frames": lambda root: put(root / "small.gif", animated(300)),
        "a page": written("photo.jpg", "<html><body>404</body></html>"),
        "vectors": written("rgb.png", '<svg xmlns="http://www.w3.org/2000/svg" width="1e9"/>'),
        "PostScript": written("rgb.png", "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"),
        "a huge PPM": written("plain.ppm", "P6 2000000000 2000000000 255\n" + "x" * 99),
        "a huge BMP": poked("bits.bmp", 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)),
        "a BMP of negative size": poked("bits.bmp", 18, struct.pack("<ii", -5, -(2**31))),
        "a huge GIF": poked("small.gif", 6, b"\xff\xff\xff\xff"),
    }


SPECIALS: dict[str, Callable[[], dict[str, Break]]] = {
    "voc": _voc,
    "kitti": _kitti,
    "coco": _coco,
    "labelbox v1": _labelbox_v1,
    "labelbox 2018": _labelbox_2018,
    "labelbox v2": _labelbox_v2,
    "tfrecord": _tfrecord,
    "folder": _folder,
    "zip": _archives,
    "manifest": _manifest,
    "index": _index,
    "label map": _label_map,
    "images": _images,
}

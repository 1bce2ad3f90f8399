"""One small sound dataset of every format, to be broken."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from tlx import registry
from tlx.data.dataset import Dataset
from tlx.data.formats import labelmap, tfexample, tfrecords
from tlx.data.images import file_hash, image_size, open_image
from tlx.data.readers.coco import coco
from tlx.data.readers.folder import folder
from tlx.data.readers.kitti import kitti
from tlx.data.readers.labelbox import labelbox
from tlx.data.readers.manifest import manifest
from tlx.data.readers.tfrecord import tfrecord
from tlx.data.readers.voc import voc
from tlx.errors import DataError

NAMES = ("a", "b", "c")
BOX = (10, 5, 30, 25)


class Seed(NamedTuple):
    """A sound dataset: `files` are those to break, `read` reads the root of a copy, as a user would."""

    files: tuple[str, ...]
    make: Callable[[Path], None]
    read: Callable[[Path], Dataset | None]


def picture(size: tuple[int, int] = (100, 50), file_format: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    image = Image.linear_gradient("L").resize(size).convert(mode)
    image.save(file, file_format)
    return file.getvalue()


def put(root: Path, name: str, content: bytes | str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def pictures(root: Path, folder: str = "images", names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        put(root, f"{folder}/{name}.png", picture())


def make_voc(root: Path) -> None:
    pictures(root, "JPEGImages")
    sides = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), BOX, strict=True))
    for name in NAMES:
        size = "<size><width>100</width><height>50</height><depth>3</depth></size>"
        body = f"<object><name>cup</name><difficult>0</difficult><bndbox>{sides}</bndbox></object>"
        text = f"<annotation><filename>{name}.png</filename>{size}{body}</annotation>\n"
        put(root, f"Annotations/{name}.xml", text)
    put(root, "ImageSets/Main/train.txt", "a\nb\n")
    put(root, "ImageSets/Main/val.txt", "c\n")


def make_kitti(root: Path) -> None:
    pictures(root, "training/image_2", ("000000", "000001", "000002"))
    for number in range(3):
        box = " ".join(f"{side}.00" for side in BOX)
        line = f"Car 0.00 0 -1.57 {box} 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
        put(
            root, f"training/label_2/00000{number}.txt", line + line.replace("10.00", "40.00").replace("30.00", "60.00")
        )


def make_coco(root: Path) -> None:
    pictures(root)
    images = [{"id": i, "file_name": f"{n}.png", "width": 100, "height": 50} for i, n in enumerate(NAMES, 7)]
    box = {"bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [[10, 5, 30, 5, 30, 25, 10, 25]]}
    runs = {"counts": [500, 500, 4000], "size": [50, 100]}
    crowd = {"bbox": [10, 0, 10, 50], "area": 500, "iscrowd": 1, "segmentation": runs}
    shapes = [(7, box), (7, crowd), (8, box), (9, box)]
    labels = [{"id": i, "image_id": image, "category_id": 3, **shape} for i, (image, shape) in enumerate(shapes, 1)]
    content = {"images": images, "annotations": labels, "categories": [{"id": 3, "name": "cup"}]}
    put(root, "instances.json", json.dumps(content))


def make_labelbox_v1(root: Path) -> None:
    pictures(root)
    corners = [{"x": x, "y": y} for x, y in ((10, 5), (30, 5), (30, 25))]
    objects = [
        {"value": "cup", "title": "Cup", "bbox": {"left": 10, "top": 5, "width": 20, "height": 20}},
        {"value": "mug", "title": "Mug", "polygon": corners},
    ]
    label = {"objects": objects}
    rows = [{"ID": n, "External ID": f"{n}.png", "Labeled Data": f"https://x/{n}.png", "Label": label} for n in NAMES]
    put(root, "export.json", json.dumps(rows))


def make_labelbox_2018(root: Path) -> None:
    pictures(root)
    text = "MULTIPOLYGON (((10 5, 30 5, 30 25, 10 25, 10 5)))"
    corners = [{"x": 10, "y": 5}, {"x": 30, "y": 25}, {"x": 9, "y": 9}]
    shapes = [{"Cup": text}, {"Cup": [{"geometry": text}]}, {"Cup": [corners]}]
    rows = [
        {"ID": n, "Labeled Data": f"https://x/{n}.png", "Label": shape} for n, shape in zip(NAMES, shapes, strict=True)
    ]
    put(root, "export.json", json.dumps(rows))


def make_labelbox_v2(root: Path) -> None:
    pictures(root)
    box = {"name": "cup", "bounding_box": {"left": 10, "top": 5, "width": 20, "height": 20}}
    rows = [
        {
            "data_row": {"id": n, "external_id": f"{n}.png", "row_data": f"https://x/{n}.png"},
            "media_attributes": {"width": 100, "height": 50},
            "projects": {"p": {"labels": [{"annotations": {"objects": [box]}}]}},
        }
        for n in NAMES
    ]
    put(root, "export.ndjson", "".join(json.dumps(row) + "\n" for row in rows))


def make_tfrecord(root: Path) -> None:
    file = io.BytesIO()
    for name in NAMES:
        features = {
            "image/encoded": [picture()],
            "image/filename": [f"{name}.png".encode()],
            "image/width": [100],
            "image/height": [50],
            "image/object/class/text": [b"cup"],
            "image/object/class/label": [3],
            "image/object/bbox/xmin": [0.1],
            "image/object/bbox/xmax": [0.3],
            "image/object/bbox/ymin": [0.1],
            "image/object/bbox/ymax": [0.5],
        }
        tfrecords.write(file, tfexample.encode(features))
    put(root, "train.record", file.getvalue())
    put(
        root,
        "label_map.pbtxt",
        'item {\n  name: "/m/1"\n  id: 3\n  display_name: "cup"\n}\nitem { name: "mug" id: 7 }\n',
    )


def make_folder(root: Path) -> None:
    for name in ("cats", "dogs"):
        pictures(root, name)


def make_zip(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cats", "dogs"):
            for number in NAMES:
                archive.writestr(f"{name}/{number}.png", picture())


def make_manifest(root: Path) -> None:
    pictures(root)
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(["url", "label", "xmin", "ymin", "xmax", "ymax", "split"])
    for name in NAMES:
        table.writerow([f"https://x.org/{name}.png", "cup, large", *BOX, "train"])
    put(root, "list.csv", file.getvalue())


def make_open_images(root: Path) -> None:
    pictures(root, "validation", NAMES)
    put(root, "class-descriptions-boxable.csv", "/m/01,Cup\n/m/02,Bottle\n")
    header = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    rows = [f"{name},xclick,/m/01,1,0.1,0.3,0.1,0.5,0,0,{i % 2},0,0" for i, name in enumerate(NAMES)]
    put(root, "validation-annotations-bbox.csv", "\n".join([header, *rows, ""]))


def read_open_images(root: Path) -> Dataset:
    registry.discover()
    return registry.find("readers.open_images").factory(root)


def make_index(root: Path) -> None:
    pictures(root)
    rows = [
        {"url": f"https://x/{n}", "file": f"{n}.png", "sha256": file_hash(root / f"images/{n}.png"), "bytes": 9}
        for n in NAMES
    ]
    put(root, "images/index.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    put(root, "list.csv", "url,label\n" + "".join(f"https://x/{n},{'cup' if n == 'a' else 'mug'}\n" for n in NAMES))


IMAGES = {
    "rgb.png": ("PNG", "RGB"),
    "palette.png": ("PNG", "P"),
    "deep.png": ("PNG", "I;16"),
    "photo.jpg": ("JPEG", "RGB"),
    "cmyk.jpg": ("JPEG", "CMYK"),
    "small.gif": ("GIF", "P"),
    "large.tif": ("TIFF", "RGB"),
    "web.webp": ("WEBP", "RGBA"),
    "bits.bmp": ("BMP", "RGB"),
    "plain.ppm": ("PPM", "RGB"),
}


def make_images(root: Path) -> None:
    for name, (file_format, mode) in IMAGES.items():
        put(root, name, picture((40, 30), file_format, mode))


def read_images(root: Path) -> None:
    for path in sorted(root.iterdir()):
        size = image_size(path)
        if open_image(path).size != size:
            raise DataError(f"{path}: says {size} px and has others")


def read_map(root: Path) -> None:
    known = labelmap.read(root / "label_map.pbtxt")
    if known.problems or not known.by_id:
        raise DataError(f"{root / 'label_map.pbtxt'}: {known.problems}")


def read_index(root: Path) -> Dataset:
    return manifest(root / "list.csv", images=root / "images")


SEEDS = {
    "voc": Seed(("Annotations/a.xml", "ImageSets/Main/train.txt", "JPEGImages/b.png"), make_voc, voc),
    "kitti": Seed(("training/label_2/000000.txt", "training/image_2/000001.png"), make_kitti, kitti),
    "coco": Seed(("instances.json", "images/b.png"), make_coco, lambda root: coco(root / "instances.json")),
    "labelbox v1": Seed(("export.json", "images/b.png"), make_labelbox_v1, labelbox),
    "labelbox 2018": Seed(("export.json",), make_labelbox_2018, labelbox),
    "labelbox v2": Seed(("export.ndjson",), make_labelbox_v2, labelbox),
    "tfrecord": Seed(("train.record", "label_map.pbtxt"), make_tfrecord, tfrecord),
    "folder": Seed(("cats/a.png",), make_folder, folder),
    "zip": Seed(("pets.zip",), make_zip, lambda root: folder(root / "pets.zip")),
    "manifest": Seed(("list.csv", "images/b.png"), make_manifest, lambda root: manifest(root / "list.csv")),
    "open images": Seed(
        ("validation-annotations-bbox.csv", "class-descriptions-boxable.csv"), make_open_images, read_open_images
    ),
    "index": Seed(("images/index.jsonl",), make_index, read_index),
    "label map": Seed(("label_map.pbtxt",), make_tfrecord, read_map),
    "images": Seed(tuple(IMAGES), make_images, read_images),
}

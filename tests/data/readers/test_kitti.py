from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.readers.kitti import kitti
from tlx.data.targets import ANY_CLASS
from tlx.errors import DataError
from tlx.registry import readers

DATA = Path(__file__).parents[3] / "../shared/data"
sniff = readers.entries["kitti"].sniff
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")


def line(name, box, truncated=0.0, occluded=0, score=""):
    return f"{name} {truncated} {occluded} -1.5 {' '.join(map(str, box))} 1.6 1.6 3.2 -2.7 1.7 3.7 -1.3 {score}".strip()


def put(root, **labels):
    for name, lines in labels.items():
        (root / "image_2").mkdir(parents=True, exist_ok=True)
        (root / "label_2").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(root / f"image_2/{name}.png")
        (root / f"label_2/{name}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("base", [".", "training"])
def test_coordinates_are_taken_as_they_stand(tmp_path, base):
    put(tmp_path / base, frame_7=[line("Car", (1.25, 2, 30.5, 40)), "", line("Car", (0, 0, 99, 49), score="0.9")])
    dataset = kitti(str(tmp_path))
    assert dataset.examples[0].objects.boxes.tolist() == [[1.25, 2, 30.5, 40], [0, 0, 99, 49]]
    assert dataset.findings == ()


def test_dontcare_is_an_ignore_region_of_no_class(tmp_path):
    put(tmp_path, a=[line("Car", (1, 2, 30, 40)), line("DontCare", (50, 2, 60, 40), -1, -1)])
    dataset = kitti(tmp_path, classes=("Car",))
    assert dataset.classes == ("Car",)
    assert dataset.examples[0].objects.labels.tolist() == [0, ANY_CLASS]
    assert dataset.examples[0].objects.ignore.tolist() == [False, True]


def test_limits_turn_objects_into_ignore_regions(tmp_path):
    cars = [
        line("Car", (i, 0, i + 9, 9), truncated, occluded)
        for i, (truncated, occluded) in enumerate([(0, 0), (0.3, 1), (0.31, 0), (0, 2), (0, 3)])
    ]
    put(tmp_path, a=cars)
    assert not kitti(tmp_path).examples[0].objects.ignore.any()
    strict = kitti(tmp_path, max_truncated=0.3, max_occluded=1).examples[0]
    assert strict.objects.ignore.tolist() == [False, False, True, True, True]
    assert strict.objects.labels.tolist() == [0] * 5


def test_clipping_is_one_note_and_merging_works(tmp_path):
    put(tmp_path, a=[line("Car", (1, 2, 130, 40)), line("Van", (1, 2, 140, 40))])
    dataset = kitti(tmp_path, merge={"Van": "Car"})
    assert dataset.counts() == {"Car": 2}
    assert dataset.examples[0].objects.boxes[:, 2].tolist() == [100, 100]
    assert [(f.code, f.severity) for f in dataset.findings] == [("clipped-box", "info")]


BROKEN = ["Car 0 0 0 1 2 3 4", line("Car", (1, "x", 3, 4)), line("Car", (1, 2, 3, 4)) + " 1 2"]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_line_costs_its_object(tmp_path, broken):
    put(tmp_path, a=[line("Car", (1, 2, 30, 40)), broken, line("Car", (2, 2, 30, 40))])
    dataset = kitti(tmp_path)
    assert len(dataset.examples[0].objects.boxes) == 2
    assert [(f.code, f.severity, f.file, f.record) for f in dataset.findings] == (
        [("broken-object", "warning", "label_2/a.txt", "line 2")]
    )


@pytest.mark.parametrize("broken", [*BROKEN, "x\n" * 2_000_000, line("Car", (1, 2, 9, 9)) + "\n\udcff"])
def test_a_file_without_a_usable_line_is_one_located_error(tmp_path, broken):
    put(tmp_path, a=[line("Car", (1, 2, 30, 40))], b=[])
    (tmp_path / "label_2/b.txt").write_bytes(broken.encode("utf-8", "surrogateescape"))
    dataset = kitti(tmp_path)
    assert len(dataset) == 1
    assert [(f.code, f.severity, f.file) for f in dataset.findings] == (
        [("broken-annotation", "error", "label_2/b.txt")]
    )


def test_images_and_labels_without_each_other_are_reported(tmp_path):
    put(tmp_path, a=[line("Car", (1, 2, 30, 40))], b=[], c=[])
    (tmp_path / "label_2/b.txt").unlink()
    (tmp_path / "image_2/c.png").unlink()
    assert Counter(f.code for f in kitti(tmp_path).findings) == {"missing-image": 1, "unlabelled-image": 1}


CAR = line("Car", (1, 2, 30, 40))


def put_at(root, name, labels="label_2", images="image_2"):
    (root / labels / name).parent.mkdir(parents=True, exist_ok=True)
    (root / images / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(root / images / f"{name}.png")
    (root / labels / f"{name}.txt").write_text(CAR)


@pytest.mark.parametrize(("policy", "count"), [("skip", 1), ("background", 2)])
def test_unlabelled_images(tmp_path, policy, count):
    put(tmp_path, a=[CAR], b=[])
    (tmp_path / "label_2/b.txt").unlink()
    assert len(kitti(tmp_path, unlabelled=policy)) == count
    with pytest.raises(DataError, match=r"b\.png"):
        kitti(tmp_path, unlabelled="error")


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["0001_000012", "0001_000013", "0002_000012"], ["0001", "0001", "0002"]),
        (["seq-1/000000", "seq-1/000001", "seq-2/000000"], ["seq-1", "seq-1", "seq-2"]),
        (["drive_0005_sync_0000000012", "drive_0009_sync_0000000012"], ["drive_0005_sync", "drive_0009_sync"]),
        (["000000", "000001"], ["", ""]),
        (["frame_1", "frame_2"], ["", ""]),
        (["cam2_000001", "cam2_000002"], ["", ""]),
        (["BB-8_12", "BB-8_13", "R2-D2_51"], ["", "", ""]),
    ],
)
def test_sequences_are_groups(tmp_path, names, groups):
    for name in names:
        put_at(tmp_path, name)
    dataset = kitti(tmp_path)
    assert [e.group for e in dataset.examples] == groups
    assert dataset.findings == ()
    assert [e.image.stem for e in dataset.examples] == [name.rpartition("/")[2] for name in names]


def test_drives_come_from_the_development_kit(tmp_path):
    for name in ("000000", "000001", "000002"):
        put_at(tmp_path / "training", name)
    folder = tmp_path / "devkit_object/mapping"
    folder.mkdir(parents=True)
    drives = [f"2011_09_26 2011_09_26_drive_{number:04d}_sync 0000000109\n" for number in (5, 9)]
    (folder / "train_mapping.txt").write_text("".join(drives))
    (folder / "train_rand.txt").write_text("2,1,2")
    nine, five = (f"2011_09_26_drive_{number}_sync" for number in ("0009", "0005"))
    assert [e.group for e in kitti(tmp_path).examples] == [nine, five, nine]
    (folder / "train_rand.txt").write_text("3,1,2")
    assert [f.code for f in kitti(tmp_path).findings] == ["broken-mapping"]


def test_lists_are_splits_except_that_of_the_testing_folder(tmp_path):
    for name in ("000000", "000001", "000002"):
        put_at(tmp_path / "training", name)
    (tmp_path / "ImageSets").mkdir()
    for name, lines in {"train": "000000\n", "val": "000001\n", "test": "000002\n"}.items():
        (tmp_path / f"ImageSets/{name}.txt").write_text(lines)
    assert [e.split for e in kitti(tmp_path).examples] == ["train", "validation", "test"]
    (tmp_path / "ImageSets/test.txt").write_text("000000\n000001\n000002\n000003\n")
    dataset = kitti(tmp_path)
    assert [e.split for e in dataset.examples] == ["train", "validation", ""]
    assert dataset.findings == ()


def test_split_folders_and_other_names(tmp_path):
    put_at(tmp_path, "train/a", "labels", "images")
    put_at(tmp_path, "val/b", "labels", "images")
    assert [(e.split, e.group) for e in kitti(tmp_path).examples] == [("train", ""), ("validation", "")]
    for part in ("train", "test"):
        put_at(tmp_path / "halves" / part, part)
    assert {e.split for e in kitti(tmp_path / "halves").examples} == {"train", "test"}


def test_sniff_tells_kitti_from_yolo(tmp_path):
    assert not sniff(tmp_path).fits
    put_at(tmp_path, "a", "labels", "images")
    assert sniff(tmp_path).fits
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert not sniff(tmp_path).fits


@needs_data
def test_sniff_on_real_folders():
    assert [folder.name for folder in DATA.iterdir() if sniff(folder).fits] == ["kitti"]


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="label_2 and image_2"):
        kitti(tmp_path)


@needs_data
def test_real_frames():
    dataset = kitti(DATA / "kitti")
    assert dataset.counts() == ({"Car": 43, "Cyclist": 2, "Misc": 1, "Pedestrian": 11, "Tram": 2, "Truck": 3, "Van": 3})
    assert sum(int(e.objects.ignore.sum()) for e in dataset.examples) == 79
    assert [(f.code, f.severity) for f in dataset.findings] == [("clipped-box", "info")]

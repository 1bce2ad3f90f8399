from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.dataset import ANY_CLASS
from tlx.data.readers.kitti import kitti
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
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
    assert dataset.examples[0].boxes.tolist() == [[1.25, 2, 30.5, 40], [0, 0, 99, 49]]
    assert dataset.findings == ()


def test_dontcare_is_an_ignore_region_of_no_class(tmp_path):
    put(tmp_path, a=[line("Car", (1, 2, 30, 40)), line("DontCare", (50, 2, 60, 40), -1, -1)])
    dataset = kitti(tmp_path, classes=("Car",))
    assert dataset.classes == ("Car",)
    assert dataset.examples[0].labels.tolist() == [0, ANY_CLASS]
    assert dataset.examples[0].ignore.tolist() == [False, True]


def test_limits_turn_objects_into_ignore_regions(tmp_path):
    cars = [
        line("Car", (i, 0, i + 9, 9), truncated, occluded)
        for i, (truncated, occluded) in enumerate([(0, 0), (0.3, 1), (0.31, 0), (0, 2), (0, 3)])
    ]
    put(tmp_path, a=cars)
    assert not kitti(tmp_path).examples[0].ignore.any()
    strict = kitti(tmp_path, max_truncated=0.3, max_occluded=1).examples[0]
    assert strict.ignore.tolist() == [False, False, True, True, True]
    assert strict.labels.tolist() == [0] * 5


def test_clipping_is_one_note_and_merging_works(tmp_path):
    put(tmp_path, a=[line("Car", (1, 2, 130, 40)), line("Van", (1, 2, 140, 40))])
    dataset = kitti(tmp_path, merge={"Van": "Car"})
    assert dataset.counts() == {"Car": 2}
    assert dataset.examples[0].boxes[:, 2].tolist() == [100, 100]
    assert [(f.code, f.severity) for f in dataset.findings] == [("clipped-box", "info")]


@pytest.mark.parametrize(
    "broken", ["Car 0 0 0 1 2 3 4", line("Car", (1, "x", 3, 4)), line("Car", (1, 2, 3, 4)) + " 1 2", "\udcff"]
)
def test_a_broken_line_is_one_located_error(tmp_path, broken):
    put(tmp_path, a=[line("Car", (1, 2, 30, 40))], b=[line("Car", (1, 2, 30, 40))])
    text = line("Car", (1, 2, 30, 40)) + "\n" + broken
    (tmp_path / "label_2/b.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
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


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="label_2 and image_2"):
        kitti(tmp_path)


@needs_data
def test_real_frames():
    dataset = kitti(DATA / "kitti")
    assert dataset.counts() == ({"Car": 43, "Cyclist": 2, "Misc": 1, "Pedestrian": 11, "Tram": 2, "Truck": 3, "Van": 3})
    assert sum(int(e.ignore.sum()) for e in dataset.examples) == 79
    assert [(f.code, f.severity) for f in dataset.findings] == [("clipped-box", "info")]

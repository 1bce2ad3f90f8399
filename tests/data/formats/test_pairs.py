import pytest

from tlx.data.assemble import Object
from tlx.data.files import ImageFiles
from tlx.data.formats.pairs import Bad, Labels, paired

CUP = Object("cup", (1, 2, 3, 4))


def pair(root, parse, unlabelled="skip", images=("a.jpg", "b.jpg")):
    for name in (*images, "a.txt"):
        (root / name).write_bytes(b"")
    findings = []
    files = ImageFiles(root, [root], findings)
    return paired("kitti", root, root, {"a": "a.txt"}, files, parse, unlabelled, findings), findings


def test_keys_images_and_what_is_left(tmp_path):
    labels = Labels([CUP], annotated=(7, 8))
    pairs, findings = pair(tmp_path, lambda content: labels, "background")
    assert [(key, record.image.name, record.file, list(record.objects)) for key, record in pairs] == (
        [("a", "a.jpg", "a.txt", [CUP]), ("b", "b.jpg", "b.jpg", [])]
    )
    assert pairs[0][1].annotated == (7, 8)
    assert [(f.code, f.file) for f in findings] == [("unlabelled-image", "b.jpg")]


def test_the_name_that_labels_give_comes_second(tmp_path):
    pairs, _ = pair(tmp_path, lambda content: Labels([CUP], ("b.png",)), images=("b.jpg",))
    assert pairs[0][1].image.name == "b.jpg"


@pytest.mark.parametrize("bad", [1, 100])
def test_bad_objects_cost_themselves(tmp_path, bad):
    objects = [*(Bad(f"line {i}", "is bad") for i in range(bad)), CUP]
    pairs, findings = pair(tmp_path, lambda content: Labels(iter(objects)), images=("a.jpg",))
    assert pairs[0][1].objects == [CUP]
    assert [(f.code, f.record) for f in findings] == [("broken-object", f"line {i}") for i in range(bad)]


@pytest.mark.parametrize("objects", [[Bad("line 1", "is bad")], [Bad("line 1", "is bad")] * 101 + [CUP]])
def test_a_file_of_bad_objects_costs_its_image_which_is_no_background(tmp_path, objects):
    pairs, findings = pair(tmp_path, lambda content: Labels(objects), "background", images=("a.jpg",))
    assert pairs == []
    assert [(f.code, f.severity, f.file) for f in findings] == [("broken-annotation", "error", "a.txt")]
    assert "line 1: is bad" in findings[0].message


def test_a_file_that_vanishes_is_located(tmp_path):
    findings = []
    files = ImageFiles(tmp_path, [tmp_path], findings)
    assert paired("kitti", tmp_path, tmp_path, {"a": "a.txt"}, files, Labels, "skip", findings) == []
    assert [(f.code, f.file) for f in findings] == [("broken-annotation", "a.txt")]

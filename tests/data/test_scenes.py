import json

import numpy as np
import pytest

from tlx.data.images import file_hash
from tlx.data.readers.voc import voc
from tlx.data.scenes import CLASSES, draw_scene, scene, write_scenes
from tlx.data.scenes.canvas import SUPERSAMPLE, Canvas, Sprite
from tlx.data.scenes.scene import Thing
from tlx.errors import DataError


def test_the_same_numbers_draw_the_same_picture():
    first, again = draw_scene(3, 5), draw_scene(3, 5)
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1] == again[1]


@pytest.mark.parametrize("other", [(3, 6), (4, 5)])
def test_other_numbers_draw_another_picture(other):
    assert draw_scene(3, 5)[0].tobytes() != draw_scene(*other)[0].tobytes()


def test_labels_are_inside_the_picture_and_large_enough_to_find():
    scenes = [draw_scene(0, index) for index in range(12)]
    for image, labels in scenes:
        for label in labels:
            x_min, y_min, x_max, y_max = label.box
            assert 0 <= x_min < x_max <= image.width
            assert 0 <= y_min < y_max <= image.height
            assert label.difficult or min(x_max - x_min, y_max - y_min) >= 16
    assert {label.name for _, labels in scenes for label in labels} == set(CLASSES)


def test_a_box_is_exactly_where_the_thing_changes_the_empty_room(monkeypatch):
    arrange = scene._arrange
    monkeypatch.setattr(Canvas, "cast", lambda *_: None)
    monkeypatch.setattr(Canvas, "finish", lambda canvas, *_: canvas.pixels.copy())

    def pixels(number):
        monkeypatch.setattr(scene, "_arrange", lambda *arguments: arrange(*arguments)[:number])
        return draw_scene(0, 4)

    (empty, none), (one, labels) = pixels(0), pixels(1)
    rows, columns = np.nonzero(np.abs(one - empty).max(axis=2) > 0.02)
    changed = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / SUPERSAMPLE
    assert none == []
    assert np.abs(changed - labels[0].box).max() <= 1.5


def test_a_hidden_thing_is_difficult_and_its_box_shows_what_can_be_seen():
    def square(x):
        return Thing("mug", 40, Sprite.solid(x, 0, np.ones((40, 40, 3), np.float32), np.ones((40, 40), np.float32)))

    def labels(x):
        owner = np.full((40, 80), -1)
        owner[:, 0:40] = 0
        owner[:, x : x + 40] = 1
        return scene._labels([square(0), square(x)], owner)

    assert [(label.box, label.difficult) for label in labels(20)] == [((0, 0, 10, 20), False), ((10, 0, 30, 20), False)]
    assert [(label.box, label.difficult) for label in labels(10)] == [((0, 0, 5, 20), True), ((5, 0, 25, 20), False)]
    assert [label.box for label in labels(4)] == [(2, 0, 22, 20)]


def test_a_written_folder_reads_back_with_the_drawn_boxes(tmp_path):
    write_scenes(tmp_path / "scenes", 5, seed=1)
    dataset = voc(tmp_path / "scenes")
    assert dataset.classes == CLASSES
    assert [example.split for example in dataset.examples] == ["train"] * 3 + ["validation", "test"]
    for index, example in enumerate(dataset.examples):
        _, labels = draw_scene(1, index)
        assert example.objects.boxes.tolist() == [list(map(float, label.box)) for label in labels]
        assert [CLASSES[label] for label in example.objects.labels] == [label.name for label in labels]
        assert example.objects.ignore.tolist() == [label.difficult for label in labels]
    assert json.loads((tmp_path / "scenes/scenes.json").read_text()) == {"images": 5, "seed": 1}


def test_two_folders_of_one_seed_are_equal_byte_for_byte(tmp_path):
    for name in "ab":
        write_scenes(tmp_path / name, 5, seed=2)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5 + 5 + 3 + 1
    assert all(file_hash(tmp_path / "a" / file) == file_hash(tmp_path / "b" / file) for file in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_too_few_pictures_and_taken_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least 5"):
        write_scenes(tmp_path / "few", 4, seed=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(DataError, match="nothing is overwritten"):
        write_scenes(tmp_path / "mine", 5, seed=0)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_pictures_differ_in_light_and_size():
    images = [draw_scene(0, index)[0] for index in range(12)]
    brightness = [np.asarray(image).mean() for image in images]
    assert max(brightness) - min(brightness) > 40
    assert len({image.size for image in images}) == 3

import pytest

from tlx.data.readers.scenes import scenes
from tlx.errors import DataError


def test_draws_once_and_then_reads(tmp_path):
    folder = tmp_path / "deep/scenes"
    first = scenes(folder, images=5)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = scenes(folder, images=5)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert [example.image for example in first.examples] == [example.image for example in again.examples]
    assert first.findings == ()


def test_other_arguments_are_refused_and_named(tmp_path):
    scenes(tmp_path / "scenes", images=5)
    with pytest.raises(DataError, match=r"'seed': 0.*'seed': 1.*another folder"):
        scenes(tmp_path / "scenes", images=5, seed=1)


@pytest.mark.parametrize("content", [{"cat.jpg": "x"}, {"scenes.json": "{broken"}])
def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"readers.voc"):
        scenes(tmp_path, images=5)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == content

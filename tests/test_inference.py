"""Which pictures a folder is taken to hold."""

import os
from pathlib import Path

import pytest

from tlx import inference, ownership
from tlx.errors import DataError


@pytest.fixture
def folder(tmp_path):
    for name in (
        *("b.png", "a.jpg", "notes.txt", ".hidden.png", "cats/2020/1.JPG", "cats/1.png", "dogs/1.png"),
        *(".thumbnails/a.jpg", "found/0000-a.jpg", "found/deeper/a.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    ownership.take(tmp_path / "drawn", "predictions")
    ownership.take(tmp_path / "downloads", "images")
    ownership.claim(tmp_path / "dogs" / "list.txt")
    (tmp_path / "downloads" / "1.png").write_text("")
    (tmp_path / "drawn" / "0000-a.jpg").write_text("")
    (tmp_path / "again").symlink_to(tmp_path)
    return tmp_path


def test_folders_are_searched_with_those_within_but_for_what_is_hidden_or_tlxs(folder):
    found = [str(path.relative_to(folder)) for path in inference._pictures(folder, [])]
    assert found == [
        *("a.jpg", "b.png", "cats/1.png", "cats/2020/1.JPG", "dogs/1.png", "downloads/1.png"),
        *("found/0000-a.jpg", "found/deeper/a.jpg"),
    ]
    # One that is named is looked at, whoever made it.
    assert [path.name for path in inference._pictures(folder / "drawn", [])] == ["0000-a.jpg"]
    assert inference._pictures(folder / "b.png", []) == [folder / "b.png"]


def test_a_folder_without_pictures_is_an_error_that_says_what_was_left_out(folder):
    (folder / "none/.hidden").mkdir(parents=True)
    (folder / "none/.hidden/a.png").write_text("")
    with pytest.raises(DataError, match=r"none holds no picture \(.*\.png.*nor do the folders within it; hidden ones"):
        inference._pictures(folder / "none", [])
    with pytest.raises(DataError, match="no picture or folder"):
        inference._pictures(folder / "nowhere", [])


def test_a_folder_that_cannot_be_opened_is_told(folder, monkeypatch):
    scandir, refused = os.scandir, []

    def closed(path):
        if Path(path).name == "cats":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    assert folder / "dogs" / "1.png" in inference._pictures(folder, refused)
    assert [Path(one.filename).name for one in refused] == ["cats"]
    # Nothing is said of pictures in a folder that could not be looked into.
    assert inference._pictures(folder / "cats", refused) == []

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.data.dataset import Example
from tlx.data.images import SUFFIXES
from tlx.data.place import Place, names, new_folder
from tlx.data.targets import NO_BOXES
from tlx.errors import DataError


def example(image):
    return Example(Path(image), 4, 4, NO_BOXES)


def test_names_stay_where_they_can_and_differ_in_any_letter_case():
    images = ["x/a.jpg", "y/a.png", "z/A.JPG", "x/a_2.jpg", "x/b c.jpeg", "x/é.png", "y/e\u0301.png"]
    assert names([example(image) for image in images]) == [
        *("a.jpg", "a_2.png", "A_3.JPG", "a_2_2.jpg", "b c.jpeg", "é.png", "e\u0301_2.png")
    ]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a\nb.jpg", "a_b.jpg"),
        ("\udcff.png", "_.png"),
        (" a .png", "a.png"),
        ("..png", "image.png"),
        ("a.jpg.png", "a_jpg.png"),
        ("a.b.png", "a.b.png"),
        ("x" * 250 + ".png", "x" * 200 + ".png"),
    ],
)
def test_a_name_that_would_break_a_list_or_a_look_up_is_made_safe(name, safe):
    assert names([example(name)]) == [safe]


@pytest.mark.parametrize(
    ("head", "suffix"), [(b"\x89PNG\r\n", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"RIFF....WEBP", ".webp"), (b"", ".jpg")]
)
def test_an_image_without_an_extension_gets_that_of_its_content(tmp_path, head, suffix):
    (tmp_path / "photo.1").write_bytes(head)
    assert names([example(tmp_path / "photo.1")]) == [f"photo.1{suffix}"]


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=9), max_size=8))
def test_names_are_unique_printable_and_no_path(drawn):
    made = names([example(f"f/{name}.png") for name in drawn])
    assert len({Path(name).stem.casefold() for name in made}) == len(drawn)
    for name in made:
        assert name.isprintable()
        assert Path(name).name == name
        assert Path(name).suffix in SUFFIXES
        assert Path(Path(name).stem).suffix.lower() not in SUFFIXES


def test_many_pictures_of_one_name_are_numbered():
    made = names([example(f"{i}/image.jpg") for i in range(3000)])
    assert (made[0], made[1], made[2999], len(set(made))) == ("image.jpg", "image_2.jpg", "image_3000.jpg", 3000)


def test_images_are_linked_or_copied_and_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(b"pixels")
    (tmp_path / "link.png").symlink_to("a.png")
    told = []
    place = Place(link=True, total=3, report=lambda *counts: told.append(counts))
    place(tmp_path / "a.png", tmp_path / "to/a.png")
    place(tmp_path / "link.png", tmp_path / "to/link.png")
    place.count()
    Place(link=False)(tmp_path / "a.png", tmp_path / "copy.png")
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (tmp_path / "to/a.png").samefile(tmp_path / "a.png")
    assert not (tmp_path / "to/link.png").is_symlink()
    assert not (tmp_path / "copy.png").samefile(tmp_path / "a.png")
    assert (tmp_path / "copy.png").read_bytes() == b"pixels"
    with pytest.raises(FileExistsError):
        place(tmp_path / "a.png", tmp_path / "copy.png")


def test_what_cannot_be_linked_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "another disk")

    (tmp_path / "a.png").write_bytes(b"pixels")
    monkeypatch.setattr(os, "link", refuse)
    Place()(tmp_path / "a.png", tmp_path / "b.png")
    assert (tmp_path / "b.png").read_bytes() == b"pixels"


@pytest.mark.parametrize("failure", [ValueError("mine"), KeyboardInterrupt()])
def test_a_folder_appears_whole_or_not_at_all(tmp_path, failure):
    def fill():
        with new_folder(tmp_path / "deep/new") as folder:
            (folder / "one").write_text("1")
            assert not (tmp_path / "deep/new").exists()
            raise failure

    with pytest.raises(type(failure)):
        fill()
    assert list((tmp_path / "deep").iterdir()) == []
    with new_folder(tmp_path / "deep/new") as folder:
        (folder / "one").write_text("1")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["new"]
    assert (tmp_path / "deep/new/one").read_text() == "1"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    def fill():
        with new_folder(tmp_path / "new") as folder:
            (folder / "one").write_text("1")
            Path("/dev/full").write_text("2")

    with pytest.raises(DataError, match="the disk is full"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_else_put_there_meanwhile_stays(tmp_path):
    def fill():
        with new_folder(tmp_path / "new"):
            (tmp_path / "new").mkdir()
            (tmp_path / "new/mine").write_text("mine")

    with pytest.raises(DataError, match="nothing is overwritten"):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "mine"]

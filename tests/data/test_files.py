import os

import pytest

from tlx.data.files import (
    ImageFiles,
    entries,
    existing,
    listing,
    read_limited,
    relative,
    spellings,
    subfolders,
)
from tlx.errors import DataError


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def found(root, *names, **how):
    return [
        path.relative_to(root).as_posix() for name in names for path in ImageFiles(root, [root], [], **how).find(name)
    ]


def test_names_lead_to_files_by_stem_and_any_extension(tmp_path):
    make(tmp_path, "a.JPG", "b.c.png", "bare", "a.xml")
    assert found(tmp_path, "a", "a.png", "b.c", "b.c.jpg", "BARE", "x\\y\\a.jpg") == (
        ["a.JPG", "a.JPG", "b.c.png", "b.c.png", "bare", "a.JPG"]
    )


def test_the_exact_name_wins_over_another_extension(tmp_path):
    make(tmp_path, "a.jpg", "a.png", "A.png")
    assert found(tmp_path, "a.png") == ["a.png"]
    assert sorted(found(tmp_path, "a")) == ["a.jpg", "a.png"]


def test_folders_in_a_name_choose_between_files_of_one_name(tmp_path):
    make(tmp_path, "x/1.jpg", "y/1.jpg")
    assert found(tmp_path, "y/1.jpg", deep=True) == ["y/1.jpg"]
    assert len(found(tmp_path, "1.jpg", deep=True)) == 2


@pytest.mark.parametrize(
    "name", ["../secret", "../secret.jpg", "/etc/passwd", "..", "", "/", "C:\\secret.jpg", "%2e%2e"]
)
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    make(tmp_path, "secret.jpg", "data/a.jpg")
    assert ImageFiles(tmp_path / "data", [tmp_path / "data"], [], deep=True).find(name) == []


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    make(tmp_path, "out/secret.jpg", "data/a.jpg")
    (tmp_path / "data/b.jpg").symlink_to(tmp_path / "out/secret.jpg")
    (tmp_path / "data/c.jpg").symlink_to("a.jpg")
    (tmp_path / "data/inner").symlink_to(tmp_path / "out")
    findings = []
    files = ImageFiles(tmp_path / "data", [tmp_path / "data"], findings, deep=True)
    assert files.find("b") == files.find("secret") == []
    assert len(files.find("c")) == 1
    assert [(f.code, f.severity, f.file) for f in findings] == (
        [("outside-folder", "error", "b.jpg"), ("outside-folder", "error", "inner")]
    )
    with pytest.raises(DataError, match="links to a folder outside"):
        subfolders(tmp_path / "data", "inner")


def test_a_link_to_its_own_folder_ends(tmp_path):
    make(tmp_path, "a.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert found(tmp_path, "a", deep=True) == ["a.jpg"]


def test_links_in_circles_and_to_nothing_are_told(tmp_path):
    make(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("b.jpg")
    (tmp_path / "c.jpg").symlink_to("gone.jpg")
    findings = []
    assert listing(tmp_path, tmp_path, None, findings) == [tmp_path / "a.jpg"]
    assert [(f.code, f.severity, f.file) for f in findings] == (
        [("broken-link", "warning", "b.jpg"), ("broken-link", "warning", "c.jpg")]
    )


def test_a_folder_that_cannot_be_listed_is_told(tmp_path):
    findings = []
    assert listing(tmp_path, tmp_path / "gone", ".jpg", findings) == []
    assert [(f.code, f.severity, f.file) for f in findings] == [("unreadable-folder", "error", "gone")]


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "~nobody-by-this-name/x", "\udcff"])
def test_impossible_paths_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="there is no"):
        existing(tmp_path / name if "~" not in name else name, "voc")
    assert entries(tmp_path / name) == []
    assert subfolders(tmp_path, name) == []


def test_pipes_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert listing(tmp_path, tmp_path, None, []) == []


def test_names_that_are_no_text_can_be_shown_and_opened(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(b"abc")
    (found,) = ImageFiles(tmp_path, [tmp_path], []).images()
    assert found.read_bytes() == b"abc"
    relative(found, tmp_path).encode()


def test_a_file_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x" * 200_000)
    assert len(read_limited(path, 200_000)) == 200_000
    for most in (199_999, 70_000, 5):
        with pytest.raises(ValueError, match=f"more than {most:,} bytes"):
            read_limited(path, most)


def test_the_rest_is_what_no_name_asked_for(tmp_path):
    make(tmp_path, "a.jpg", "b.jpg", "c.txt")
    files = ImageFiles(tmp_path, [tmp_path], [])
    files.locate(["A"], "", "", [])
    assert files.rest() == [tmp_path / "b.jpg"]


def test_ambiguity_is_settled_by_a_later_name_or_reported(tmp_path):
    make(tmp_path, "a.jpg", "a.png")
    files, findings = ImageFiles(tmp_path, [tmp_path], []), []
    assert files.locate(["a", "a.png"], "a.xml", "", findings).name == "a.png"
    assert files.locate(["a"], "a.xml", "", findings) is None
    assert files.locate(["b"], "b.xml", "", findings) is None
    assert [f.code for f in findings] == ["ambiguous-image", "missing-image"]


def test_a_missing_folder_names_the_closest_one(tmp_path):
    make(tmp_path, "raccoon/a.jpg")
    with pytest.raises(DataError, match="did you mean 'raccoon'"):
        existing(tmp_path / "racoon", "voc")


def test_folders_are_found_in_any_letter_case(tmp_path):
    make(tmp_path, "ANNOTATIONS/XMLs/a.XML")
    (folder,) = subfolders(tmp_path, "annotations/xmls", "images")
    assert [path.name for path in listing(tmp_path, folder, ".xml", [])] == ["a.XML"]


def test_a_url_means_its_last_segment():
    url = "https://host/a/b%2FPias%20(1).jpg?Expires=1&x=/y#z"
    assert spellings(url) == ["b%2FPias%20(1).jpg", "b/Pias (1).jpg"]
    assert spellings("plain name.jpg") == ["plain name.jpg"]

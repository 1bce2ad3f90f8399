import pytest

from tlx.data.files import ImageFiles, existing, listing, spellings, subfolders
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

from tlx.data.formats.imagesets import ImageSet, declared_splits, image_sets


def sets(**lists):
    return {name: ImageSet(f"{name}.txt", frozenset(lines)) for name, lines in lists.items()}


def test_lines_may_have_an_extension_a_folder_or_more_columns():
    lists = sets(train=["a.jpg", "JPEGImages/b.png", "c 1", "d e"])
    findings = []
    assert declared_splits(lists, {"a", "b", "c", "d e"}, findings) == dict.fromkeys(["a", "b", "c", "d e"], "train")
    assert findings == []


def test_what_judges_comes_before_what_trains():
    findings = []
    lists = sets(train=["a", "b"], val=["b", "c"], trainval=["a", "b", "c", "d"])
    assert declared_splits(lists, set("abcd"), findings) == (
        {"a": "train", "b": "validation", "c": "validation", "d": "train"}
    )
    assert [(f.code, f.record) for f in findings] == [("in-two-splits", "b")]


def test_listed_names_without_labels_are_told_and_keep_their_split():
    findings = []
    assert declared_splits(sets(test=["ghost.jpg"]), set(), findings) == {"ghost": "test"}
    assert [(f.code, f.record) for f in findings] == [("no-annotation", "ghost")]


def test_lists_are_found_in_either_folder(tmp_path):
    assert image_sets(tmp_path, tmp_path, []) == {}
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/train.txt").write_text("a\n\n b \n")
    assert image_sets(tmp_path, tmp_path, []) == {"train": ImageSet("ImageSets/train.txt", frozenset("ab"))}
    (tmp_path / "ImageSets/Main/VAL.txt").write_bytes(b"\xef\xbb\xbfc\r\n\xff\n")
    assert image_sets(tmp_path, tmp_path, []) == (
        {"val": ImageSet("ImageSets/Main/VAL.txt", frozenset(("c", "\ufffd")))}
    )

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlx.data.dataset import Dataset, Example, Finding
from tlx.data.images import file_hash
from tlx.data.splits import policies as split
from tlx.data.targets import ANY_CLASS, Boxes
from tlx.errors import ConfigError, DataError

CLASSES = ("cat", "dog", "owl")


def example(folder, name, content=None, labels=(0,), group="", part=""):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([ord(letter) for letter in str(content or name)])
    Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    return Example(
        image=path,
        width=16,
        height=12,
        targets=Boxes(
            boxes=np.tile(np.float32([[1, 2, 9, 8]]), (len(labels), 1)),
            labels=np.array(labels, np.int32),
            ignore=np.array(labels, np.int32) < 0,
        ),
        record=name,
        group=group,
        split=part,
    )


def dataset(examples, classes=CLASSES, name="made"):
    return Dataset(name, classes, tuple(examples), (Finding("odd", "warning", "f", "", "m"),))


def names(part):
    return [e.image.name for e in part.examples]


drawn = st.lists(
    st.tuples(st.integers(0, 12), st.lists(st.integers(0, 2), max_size=3), st.sampled_from(["", "", "", "g", "h"])),
    min_size=6,
    max_size=24,
)


@settings(max_examples=40)
@given(drawn, st.sampled_from([(0.6, 0.2), (0.5, 0.5), (0.1, 0.8)]), st.integers(0, 3), st.randoms())
def test_ratio_shares_no_picture_no_group_and_loses_none(pictures, shares, seed, shuffler):
    with tempfile.TemporaryDirectory() as folder:
        # Three pictures of their own kind, so that there are at least as many groups as parts.
        examples = [
            example(Path(folder), f"{i:02d}.png", content, labels, group)
            for i, (content, labels, group) in enumerate([*pictures, *((100 + i, [0], "") for i in range(3))])
        ]
        shuffled = shuffler.sample(examples, len(examples))
        parts = split.ratio(dataset(examples), *shares, seed=seed, group_similar=False)
        everything = [e for part in parts.parts().values() for e in part.examples]
        assert sorted(e.image for e in everything) == [e.image for e in examples]
        assert (parts.test is None) == (sum(shares) == 1)
        for key in (lambda e: file_hash(e.image), lambda e: e.group or e.image.name):
            seen = [{key(e) for e in part.examples} for part in parts.parts().values()]
            assert sum(map(len, seen)) == len(set().union(*seen))
            assert all(seen)
        again = split.ratio(dataset(shuffled), *shares, seed=seed, group_similar=False)
        assert again.lists() == parts.lists()
        assert again.fingerprint() == parts.fingerprint()


def test_ratio_keeps_shares_and_classes(tmp_path):
    labels = [(0,)] * 60 + [(0, 1)] * 30 + [(2,)] * 10
    data = dataset(example(tmp_path, f"{i}.png", labels=label) for i, label in enumerate(labels))
    parts = split.ratio(data)
    assert {name: len(part) for name, part in parts.parts().items()} == {"train": 60, "validation": 20, "test": 20}
    assert parts.train.counts() == {"cat": 54, "dog": 18, "owl": 6}
    assert parts.validation.counts() == {"cat": 18, "dog": 6, "owl": 2}
    assert split.ratio(data, seed=1).lists() != parts.lists()
    assert parts.findings[0].code == "odd"


@pytest.mark.parametrize("seed", range(4))
def test_each_part_gets_its_share_of_a_rare_class_that_only_crowded_pictures_have(tmp_path, seed):
    """Were these divided last, the many cats beside each owl would decide where it goes."""
    cats = [6, 4, 1, 4, 5, 5, 5, 4, 7, 6, 0, 1, 3, 1]
    labels = [(0,) * n for n in cats] + [(0,) * 7 + (2,)] * 3
    data = dataset(example(tmp_path, f"{i:02d}.png", labels=label) for i, label in enumerate(labels))
    parts = split.ratio(data, seed=seed).parts().values()
    assert [part.counts().get("owl") for part in parts] == [1, 1, 1]


def test_ratio_keeps_look_alikes_together_and_says_so(tmp_path):
    examples = [example(tmp_path, f"{i}.png") for i in range(9)]
    image = Image.open(examples[0].image)
    image.convert("L").save(tmp_path / "gray.png")
    data = dataset([*examples, replace(examples[0], image=tmp_path / "gray.png")])
    for seed in range(8):
        parts = split.ratio(data, seed=seed)
        assert sum({"0.png", "gray.png"} <= set(names(part)) for part in parts.parts().values()) == 1
        assert [finding.code for finding in parts.findings] == ["odd", "near-duplicate-image"]


@pytest.mark.parametrize("policy", [split.ratio, split.auto])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": 0.9, "validation": 0.2}, r"validation = 0\.2 and splits.* are together more than 1"),
        ({"train": 0, "validation": 0.5}, r"\.train = 0 makes no sense"),
        ({"validation": -1}, r"\.validation = -1 makes no sense"),
        ({"train": 6}, r"\.train = 6 makes no sense: a share of the images"),
        ({"seed": -1}, r"\.seed = -1 makes no sense"),
        ({"group_by": "a(b"}, r"group_by = 'a\(b' is no regular expression: .* at position 1"),
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, policy, values, message):
    with pytest.raises(ConfigError, match=message) as error:
        policy(dataset([example(tmp_path, "a.png")]), **values)
    assert f"splits.{policy.__name__}." in str(error.value)


def test_a_rule_keeps_together_what_it_finds_the_same_text_in(tmp_path):
    names_ = [f"drive{i % 6}/{i:02d}.png" for i in range(24)] + ["alone.png", "other.png"]
    data = dataset(example(tmp_path, name) for name in names_)
    for parts in (split.ratio(data, group_by=r"(drive\d)/"), split.kfold(data, folds=3, group_by=r"drive\d")):
        drives = [{e.image.parent.name for e in part.examples} - {tmp_path.name} for part in parts.parts().values()]
        assert sum(map(len, drives)) == len(set().union(*drives)) == 6
        assert parts.findings[1].message == "group_by puts 24 of 26 images into 6 groups"


def test_a_rule_that_finds_nothing_is_refused(tmp_path):
    data = dataset(example(tmp_path, f"{i}.png") for i in range(4))
    with pytest.raises(DataError, match=r"group_by = 'drve' finds nothing in any image's path, such as '0\.png'"):
        split.auto(data, group_by="drve")


def test_ratio_fills_every_part_or_refuses(tmp_path):
    examples = [example(tmp_path, f"{i}.png", labels=()) for i in range(3)]
    assert [len(part) for part in split.ratio(dataset(examples), 0.98, 0.01).parts().values()] == [1, 1, 1]
    with pytest.raises(DataError, match=r"2 images in 2 groups of .* cannot be divided into 3 parts"):
        split.ratio(dataset(examples[:2]))


def test_own_takes_what_the_data_declares(tmp_path):
    kinds = ["train", "test", "validation", "train", ""]
    data = dataset(example(tmp_path, f"{i}.png", part=part) for i, part in enumerate(kinds))
    parts = split.own(data)
    assert parts.lists() == {"train": ["0.png", "3.png"], "validation": ["2.png"], "test": ["1.png"]}
    assert [finding.code for finding in parts.findings] == ["odd", "in-no-split"]
    assert split.own(replace(data, examples=data.examples[2:])).test is None


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["train", "test"], r"declares 1 train, 1 test, but no validation images; .*splits.ratio"),
        (["", ""], "declares no parts at all, but no train and no validation"),
    ],
)
def test_own_carves_nothing_silently(tmp_path, kinds, message):
    data = dataset(example(tmp_path, f"{i}.png", part=part) for i, part in enumerate(kinds))
    with pytest.raises(DataError, match=message):
        split.own(data)


@pytest.mark.parametrize("way", ["own", "auto", "given"])
def test_a_picture_in_two_parts_is_refused_unless_it_is_meant(tmp_path, way):
    places = [("a.png", "train", "x"), ("b.png", "validation", "y"), ("deep/c.png", "test", "x")]
    examples = [example(tmp_path, name, content, part=part) for name, part, content in places]

    def parts(**options):
        if way != "given":
            return {"own": split.own, "auto": split.auto}[way](dataset(examples), **options)
        return split.given(*(dataset([one]) for one in examples), **options)

    with pytest.raises(DataError, match=r"c\.png \(test\) has the same bytes as .*a\.png \(train\).*allow_leakage"):
        parts()
    meant = parts(allow_leakage=True)
    assert meant.findings[-1].code == "duplicate-image-across-splits"
    assert meant.lists()["test"] == ["deep/c.png"]


def test_look_alikes_across_given_parts_are_a_warning(tmp_path):
    train = example(tmp_path, "a.png")
    Image.open(train.image).resize((40, 40)).save(tmp_path / "b.png")
    parts = split.given(dataset([train]), dataset([replace(train, image=tmp_path / "b.png", split="")]))
    finding = parts.findings[-1]
    assert (finding.code, finding.severity) == ("near-duplicate-image-across-splits", "warning")
    assert finding.message.startswith(str(tmp_path / "b.png"))


def test_given_numbers_labels_as_the_training_data_does(tmp_path):
    train = dataset([example(tmp_path, "a.png", labels=(0, 2))])
    other = dataset([example(tmp_path, "b.png", labels=(1, 0, ANY_CLASS))], classes=("cat", "owl"))
    parts = split.given(train, other)
    assert parts.validation.classes == CLASSES
    assert parts.validation.examples[0].objects.labels.tolist() == [2, 0, ANY_CLASS]
    assert parts.test is None


def test_given_refuses_a_class_that_was_never_trained(tmp_path):
    train = dataset([example(tmp_path, "a.png")])
    other = dataset([example(tmp_path, "b.png")], classes=("Owl",), name="val")
    with pytest.raises(DataError, match=r"val: the training data has no class 'Owl'.*did you mean 'owl'\?"):
        split.given(train, other)


def test_given_refuses_an_empty_part(tmp_path):
    with pytest.raises(DataError, match="there are no test images"):
        split.given(dataset([example(tmp_path, "a.png")]), dataset([example(tmp_path, "b.png")]), dataset([]))


def test_given_names_data_that_is_given_twice(tmp_path):
    data = dataset([example(tmp_path, "a.png"), example(tmp_path, "b.png")], name="raccoon")
    with pytest.raises(DataError, match="train and validation are the very same 2 images, of raccoon"):
        split.given(data, data)
    assert len(split.given(data, data, allow_leakage=True).validation) == 2
    with pytest.raises(DataError, match="validation and test are the very same"):
        split.given(dataset([example(tmp_path, "c.png")]), data, replace(data))


def test_given_refuses_data_for_two_tasks(tmp_path):
    whole = dataset([example(tmp_path, "a.png")]).of_whole_images()
    with pytest.raises(DataError, match="train is data for classification, validation for detection"):
        split.given(whole, dataset([example(tmp_path, "b.png")]))


def test_each_picture_is_validated_in_exactly_one_fold(tmp_path):
    data = dataset(example(tmp_path, f"{i:02d}.png", labels=(i % 3,), group=f"g{i // 2}") for i in range(20))
    folds = [split.kfold(data, folds=4, fold=fold) for fold in range(4)]
    assert sorted(name for fold in folds for name in names(fold.validation)) == names(data)
    for fold in folds:
        assert not {e.group for e in fold.train.examples} & {e.group for e in fold.validation.examples}
        assert len(fold.validation) in (4, 6)
    with pytest.raises(ConfigError, match=r"splits\.kfold\.fold = 4 makes no sense: .* counted from 0"):
        split.kfold(data, folds=4, fold=4)
    with pytest.raises(ConfigError, match=r"splits\.kfold\.folds = 1 makes no sense"):
        split.kfold(data, folds=1)


def test_the_fingerprint_knows_content_and_not_names(tmp_path):
    def made(folder, **changes):
        parts = [dataset([example(folder, f"{folder.name}{i}.png", f"p{i}")]) for i in range(2)]
        parts[0] = replace(parts[0], examples=(replace(parts[0].examples[0], **changes),))
        return split.given(*parts).fingerprint()

    same = made(tmp_path / "a")
    assert made(tmp_path / "b") == same
    other = example(tmp_path, "other.png")
    assert made(tmp_path / "c", targets=replace(other.targets)) == same
    assert made(tmp_path / "c", image=other.image) != same
    for field, value in {
        "boxes": np.float32([[1, 2, 9, 9]]),
        "labels": np.array([1], np.int32),
        "ignore": np.array([True]),
    }.items():
        assert made(tmp_path / "c", targets=replace(other.targets, **{field: value})) != same

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx.data.formats.labelmap import LabelMap, read, write
from tlx.errors import DataError

DATA = Path(__file__).parents[3] / "../shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real datasets are not in {DATA}")


@pytest.fixture
def put(tmp_path):
    def put(content):
        file = tmp_path / "label_map.pbtxt"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return put


def test_items_as_people_write_them(put):
    text = """\ufeff
    # Comments, gaps, either quote, any order, commas, unknown fields.
    item { id: 1 name: 'cat' }
    item: < name: "it's", id: 7; >
    item {
      name: '/m/01g317' id: 90 display_name: "person"  # the name that people know
      keypoints { id: 1 label: "nose" }
      frequency: FREQUENT
    }
    item{id:91,name:"a" 'b'}
    """
    found = read(put(text))
    assert found.by_id == {1: "cat", 7: "it's", 90: "person", 91: "ab"}
    named = {"cat": "cat", "it's": "it's", "/m/01g317": "person", "person": "person", "ab": "ab"}
    assert found == LabelMap(found.by_id, named)


def test_what_cannot_be_meant_is_told(put):
    found = read(put("item { id: 1 name: 'a' } item { id: 1 name: 'b' } item { id: 0 name: 'c' } item { id: 4 }"))
    assert found.by_id == {1: "a"}
    assert [problem.split()[1] for problem in found.problems] == ["1", "item", "item"]
    assert "both 'a' and 'b'" in found.problems[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("item { id: 'x' }", "1:12"),
        ("item { id: 1 name: 'a'\nitem { id: 2 }", "label map"),
        ("item { id: 99999999999 }", "1:12"),
        ("item {\n id: 1\n name: unquoted\n}", "3:8"),
        ("a {" * 5000, "label map"),
        ("\x00\x01", "1:1"),
        (b"item { id: 1 name: '\xff' }", "utf-8"),
        ("#" * 2_000_001, "2,000,000 bytes"),
    ],
)
def test_what_is_broken_is_refused_where_it_is(put, content, told):
    with pytest.raises(DataError, match=r"label_map\.pbtxt: not a label map") as caught:
        read(put(content))
    assert told in str(caught.value)
    assert len(str(caught.value)) < 600


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: name == name.strip()))
)
def test_written_classes_come_back(tmp_path_factory, classes):
    file = tmp_path_factory.mktemp("map") / "label_map.pbtxt"
    file.write_text(write(classes), encoding="utf-8", newline="\n")
    assert list(read(file).by_id.items()) == list(enumerate(classes, 1))


@needs_data
@pytest.mark.parametrize(
    ("name", "count", "number", "shown"),
    [
        ("mscoco", 80, 90, "toothbrush"),
        ("pet", 37, 1, "Abyssinian"),
        ("oid_v4", 601, 1, "Tortoise"),
        ("kangaroo", 1, 1, "kangaroo"),
    ],
)
def test_real_label_maps(name, count, number, shown):
    found = read(DATA / f"tf_object_detection_api/label_maps/{name}_label_map.pbtxt")
    assert (len(found.by_id), found.by_id[number], found.problems) == (count, shown, ())

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tlx.data.objects import Object, columns, joined

boxes = st.tuples(*[st.floats(-10, 10)] * 4)
objects = st.builds(Object, st.sampled_from(["cup", "", None]), boxes, st.booleans(), st.text(max_size=3))
images = st.lists(st.lists(objects, max_size=3), max_size=5)


def rows(found, count):
    """Return the objects of each of so many images."""
    one_by_one = [Object(n, tuple(b), i, w) for n, b, i, w in zip(*(c.tolist() for c in found[1:]), strict=True)]
    return [[obj for owner, obj in zip(found.owners, one_by_one, strict=True) if owner == i] for i in range(count)]


@given(images)
def test_columns_hold_what_rows_hold(wanted):
    found = columns(wanted)
    assert rows(found, len(wanted)) == wanted
    assert (found.boxes.shape, found.boxes.dtype, found.ignore.dtype) == ((len(found.owners), 4), np.float64, np.bool_)


@given(images, st.data())
def test_objects_move_with_their_images(wanted, data):
    places = data.draw(st.lists(st.integers(-1, 3), min_size=len(wanted), max_size=len(wanted)))
    moved = columns(wanted).moved(np.array(places, np.int64))
    assert (np.diff(moved.owners) >= 0).all()
    assert rows(moved, 4) == [
        [obj for place, own in zip(places, wanted, strict=True) if place == i for obj in own] for i in range(4)
    ]


@given(st.lists(images, min_size=1, max_size=3))
def test_parts_are_joined_in_order(parts):
    found = joined([columns(part) for part in parts])
    assert found.wheres.tolist() == [obj.where for part in parts for own in part for obj in own]

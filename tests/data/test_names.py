import pytest

from tlx.data.names import near_misses


@pytest.mark.parametrize(
    ("counts", "pairs"),
    [
        ({"r2d2": 101, "r2-d2": 1, "bb8": 101}, [("r2-d2", "r2d2")]),
        ({"car": 2, "Car": 5}, [("car", "Car")]),
        ({"traffic light": 9, "traffic_light": 1}, [("traffic_light", "traffic light")]),
        ({"raccoon": 200, "racoon": 3}, [("racoon", "raccoon")]),
        ({"bottle": 40, "bottel": 2}, [("bottel", "bottle")]),
        ({"raccoon": 50, "racoon": 30}, []),
        ({"player1": 100, "player2": 1}, []),
        ({"cat": 100, "car": 1}, []),
        ({"猫": 3, "犬": 3}, []),
        ({"-": 3, "_": 3}, []),
        ({"one": 1}, []),
    ],
)
def test_which_names_are_near_misses(counts, pairs):
    assert list(near_misses(counts)) == pairs

"""The input size is chosen from the training boxes, told with its cost, and kept for evaluation and prediction."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx import config
from tlx import run as room
from tlx.data.dataset import Dataset, Example
from tlx.data.splits.parts import Splits
from tlx.data.targets import NO_BOXES, Boxes
from tlx.errors import ConfigError, DataError
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.fcos import Fcos
from tlx.policies import last_layers
from tlx.run import Run, evaluate, reopen, train
from tlx.runfolder import trained_size
from tlx.search import space
from tlx.sizing import Boxed, advise, choose
from tlx.tiles import Tiles
from tlx.work.kinds import changes

MINIMAL = Path(__file__).with_name("minimal.gin")


def pictures(*rows):
    """Return a dataset of (width, height, sides of its square boxes) that is nowhere."""
    examples = []
    for width, height, sides in rows:
        boxes = np.array([[0, 0, side, side] for side in sides], np.float32).reshape(-1, 4)
        truth = Boxes(boxes, np.zeros(len(boxes), np.int32), np.zeros(len(boxes), np.bool_))
        examples.append(Example(Path("none.png"), width, height, truth))
    return Dataset("none", ("one",), tuple(examples))


CASES = {
    # A quarter of that would be enough, and yet more is seen of what is larger.
    "large boxes": ([(640, 640, [100])], None, (320, 320)),
    # 16 of 640 pixels are 8 at 320.
    "just enough": ([(640, 640, [16])], None, (320, 320)),
    "a little less": ([(640, 640, [15.9])], None, (352, 352)),
    "one in twenty may be small": ([(640, 640, [1] + [16] * 19)], None, (320, 320)),
    "two in twenty may not": ([(640, 640, [8] * 2 + [16] * 18)], None, (640, 640)),
    "nothing is enough": ([(4000, 4000, [12])], None, (1024, 1024)),
    "wide pictures": ([(1242, 375, [20])] * 3, None, (160, 512)),
    "tall pictures": ([(480, 640, [16])] * 3, None, (320, 256)),
    "some lie and some stand": ([(480, 640, [16]), (640, 480, [16])], None, (320, 320)),
    "tiles": ([(4000, 3000, [12])], Tiles(640), (448, 448)),
    "tiles of another shape": ([(4000, 3000, [12])], Tiles((320, 640)), (224, 448)),
    "a picture that is a tile": ([(4000, 3000, [24]), (320, 320, [24])], Tiles(640), (320, 320)),
    "tiny tiles": ([(4000, 3000, [1])], Tiles(50), (192, 192)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_size_is_chosen_that_shows_enough(case):
    rows, tiles, size = CASES[case]
    assert choose(pictures(*rows), tiles).size == size


sides = st.integers(20, 5000)


@given(st.lists(st.tuples(sides, sides, st.lists(st.integers(1, 20), min_size=1, max_size=5)), min_size=1, max_size=8))
def test_any_pictures_have_a_size_within_bounds(rows):
    chosen = choose(pictures(*rows))
    assert all(side % 32 == 0 and side >= 32 for side in chosen.size)
    assert 320 <= max(chosen.size) <= 1024
    boxed = Boxed(pictures(*rows).examples)
    assert chosen.small <= 0.05 or max(chosen.size) == 1024
    assert boxed.small(chosen.size) == chosen.small
    # The next smaller one of this shape would not do.
    smaller = boxed.shaped(max(chosen.size) - 32)
    assert max(chosen.size) == 320 or boxed.small(smaller) > 0.05


def test_what_is_ignored_does_not_choose_and_nothing_is_an_error():
    dataset = pictures((640, 640, [16]), (640, 640, [1, 1]))
    first, second = dataset.examples
    ignored = replace(second, targets=replace(second.targets, ignore=np.ones(2, np.bool_)))
    assert choose(replace(dataset, examples=(first, ignored))).size == (320, 320)
    for nothing in ((ignored,), (replace(first, targets=NO_BOXES),), ()):
        with pytest.raises(DataError, match=r"'auto' is chosen by boxes, and none has none that count: give pixels"):
            choose(replace(dataset, examples=nothing))


def test_a_choice_is_told_in_one_line_with_its_cost():
    told = str(choose(pictures((640, 320, [16, 12, 30, 40] * 5))))
    assert told == (
        "run.image_size = 'auto': 448 x 224 px, where 100% of 20 boxes are at least 8 px on their shorter side"
        " (75% at 320 x 320), for 0.98 times the time and memory of that"
    )
    assert str(choose(pictures((4000, 4000, [12, 99])))).endswith("; run.tiles would show more")


def test_a_classifier_has_no_boxes_to_choose_by():
    with pytest.raises(ConfigError, match=re.escape("classification has none: give pixels, such as 224")):
        config.load([MINIMAL], ["run.image_size = 'auto'", "run.head = @heads.classifier()"])
    with pytest.raises(ConfigError, match="did you mean 'auto'"):
        config.load([MINIMAL], ["run.image_size = 'automatic'"])


def test_auto_is_searched_beside_numbers_and_has_a_smaller_size():
    bounds = "search.space = {'run.image_size': ('choice', 'auto', 320, 448)}"
    experiment = config.load([MINIMAL], ["run.image_size = 'auto'", bounds])
    space.check(experiment, config.build(experiment.trees["search"]))
    assert next(iter(changes(experiment))) == (["run.image_size = 320"], [])
    given = config.load([MINIMAL], ["run.image_size = (320, 640)"])
    assert next(iter(changes(given))) == (["run.image_size = (224, 480)"], [])


class Hearing(Listener):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def test_a_run_keeps_the_size_that_was_chosen(draw, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("tlx.sizing.SMALLEST", 64)
    data = Splits(draw(4, size=96), draw(2, size=96, seed=1), None)
    settings = {"fit": Fit(batch_size=4, epochs=1, evaluations=1), "features": Features(folder=tmp_path / "features")}
    run = Run(data, tiny(), Fcos(channels=16), last_layers(1), **settings, image_size="auto")
    listener = Hearing()
    result = train(run, tmp_path / "run", "", listener)
    (told,) = [line for line in listener.said if line.startswith("run.image_size = 'auto'")]
    assert told.startswith("run.image_size = 'auto': 64 x 64 px, where 100% of 4 boxes")
    assert trained_size(tmp_path / "run") == run.size == (64, 64)
    # Other data may ask for another size, and the detector stays what it is.
    monkeypatch.setattr("tlx.sizing.SMALLEST", 128)
    other = replace(run, seed=1)
    assert other.size == (128, 128)
    seen = []
    monkeypatch.setattr(room, "reopen", lambda *given: seen.append(given[2]) or reopen(*given))
    again = evaluate(other, tmp_path / "run")
    assert seen == [(64, 64)]
    assert again["metrics"]["values"] == pytest.approx(result["metrics"]["values"], abs=1e-4)


ADVISED = {
    "a size alone": ([(640, 480, [20])], ("run.image_size = (256, 320)",), 1),
    "tiles with room for most objects": (
        [(3840, 2160, [12] * 19 + [40])],
        ("run.image_size = (320, 320)", "run.tiles = @tiles()", "tiles.size = 320", "tiles.overlap = 0.1"),
        14 * 8,
    ),
    "larger tiles for larger objects": (
        [(3840, 2160, [12] * 10 + [150] * 10)],
        ("run.image_size = (448, 448)", "run.tiles = @tiles()", "tiles.size = 640", "tiles.overlap = 0.25"),
        8 * 5,
    ),
    "no tiles larger than the pictures": ([(300, 300, [2])], ("run.image_size = (1024, 1024)",), 1),
}


@pytest.mark.parametrize("case", ADVISED)
def test_inspection_advises_sizes_and_tiles_with_the_numbers(case):
    rows, bindings, windows = ADVISED[case]
    advice = advise(pictures(*rows).examples)
    assert advice.bindings == bindings
    assert advice.windows == windows
    assert list(advice.small)[:2] == ["at 320 x 320", "at 640 x 640"]
    said = str(advice).splitlines()
    assert said[0].startswith("boxes under 8 px on their shorter side: ")
    assert said[1].startswith(f"advice: {'; '.join(bindings)}")
    # What is advised is what tlx takes.
    config.load([MINIMAL], list(bindings))


def test_nothing_is_advised_where_no_box_counts():
    assert advise(pictures((640, 480, [])).examples) is None
    assert advise(()) is None

"""`run.augment` in a gin file: one operation, a preset, or several of them."""

from pathlib import Path

import pytest

from tlx import config
from tlx.augment import NoAugmentation, Standard
from tlx.augment.flips import Flip
from tlx.augment.pixels import Blur
from tlx.augment.zoom import Zoom
from tlx.errors import ConfigError
from tlx.registry import catalogue

MINIMAL = Path(__file__).parents[1] / "minimal.gin"
SEVERAL = "run.augment = (@augmentations.flip(), @augmentations.zoom(), @augmentations.blur())"


def augment(*bindings):
    given = config.load([MINIMAL], bindings).value("run.augment")
    return tuple(map(config.build, given)) if isinstance(given, tuple) else config.build(given)


def test_one_operation_or_preset_stands_for_itself():
    assert augment("run.augment = @augmentations.standard()") == Standard()
    assert augment("run.augment = @augmentations.none()") == NoAugmentation()
    assert config.load([MINIMAL]).value("run.augment") == Standard()


def test_several_operations_come_as_a_tuple_with_their_arguments():
    given = augment(SEVERAL, "augmentations.zoom.range = (0.9, 1.5)", "augmentations.flip.probability = 1")
    assert given == (Flip(1.0), Zoom((0.9, 1.5)), Blur())
    # A scope makes two of one kind.
    twice = "run.augment = (@weak/augmentations.blur(), @strong/augmentations.blur())"
    assert augment(twice, "strong/augmentations.blur.sigma = (2.0, 4.0)") == (Blur(), Blur((2.0, 4.0)))


@pytest.mark.parametrize(
    ("bindings", "said"),
    [
        (["run.augment = (@augmentations.flip(), @augmentations.zom())"], "did you mean 'zoom'"),
        (["run.augment = (@augmentations.flip(), 'zoom')"], r"run\.augment: expected"),
        (["run.augment = (@augmentations.flip(), @heads.fcos())"], r"run\.augment"),
        ([SEVERAL, "augmentations.zoom.range = (1.5, 0.9)"], r"augmentations\.zoom\.range = \(1\.5, 0\.9\)"),
        ([SEVERAL, "augmentations.hue.degrees = 3.0"], "nothing in the experiment uses augmentations.hue"),
        (["run.resize = 'strech'"], "did you mean 'stretch'"),
    ],
)
def test_mistakes_are_found_before_any_data_is_read(bindings, said):
    with pytest.raises(ConfigError, match=said):
        config.load([MINIMAL], bindings)


def test_the_names_of_the_ssd_configurations_are_there():
    config.load([MINIMAL])
    names = ("horizontal_flip", "crop_image", "adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation")
    assert {f"augmentations.random_{name}" for name in names} | {"augmentations.ssd_random_crop"} <= set(catalogue())

"""Random crops keep what they promise, and bounded arguments are refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlx import registry
from tlx.augment import Picture, Scene, arranged, draw_view, move
from tlx.augment.affine import after, scaled, shifted
from tlx.augment.crops import CropByOverlap, CropKeepingCentres
from tlx.augment.flips import Flip
from tlx.augment.tf_object_detection import RandomCropImage, SsdRandomCrop
from tlx.augment.turns import Rotate
from tlx.augment.zoom import Expand
from tlx.errors import ConfigError
from tlx.registry import augmentations

BOXES = np.array([[40, 30, 90, 80], [200, 100, 280, 180], [120, 20, 130, 30]], np.float32)
PICTURE = Picture(0, 300, 200, BOXES, np.array([False, False, True]))
seeds = st.integers(0, 2**32 - 1)


def cropped(operation, seed):
    """The part of the picture that an operation chooses."""
    scene = operation(np.random.default_rng(seed), Scene.of(PICTURE, (96, 96)))
    x0, y0, x1, y1 = box = scene.layers[0].crop
    assert (scene.width, scene.height) == pytest.approx((x1 - x0, y1 - y0))
    assert scene.layers[0].matrix[:, 2].tolist() == pytest.approx([-x0, -y0])
    return np.array(box)


def overlap(a, b):
    return np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()


def area(box):
    return (box[2:] - box[:2]).prod()


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([0.1, 0.3, 0.5]))
def test_an_object_overlaps_the_crop_by_at_least_so_much(seed, least):
    box = cropped(CropByOverlap((least,), (0.05, 0.5), probability=1.0), seed)
    if box.tolist() != [0, 0, 300, 200]:
        shared = [overlap(box, other) for other in BOXES[:2]]
        ious = [s / (area(box) + area(other) - s) for s, other in zip(shared, BOXES, strict=False)]
        assert max(ious) >= least - 1e-6
        assert 0.05 - 1e-9 <= area(box) / 60000 <= 0.5 + 1e-9
        assert 0.5 - 1e-9 <= (box[2] - box[0]) / (box[3] - box[1]) <= 2 + 1e-9


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([0.5, 1.0]))
def test_so_much_of_an_object_stays_in_the_crop(seed, least):
    for operation in (RandomCropImage(least), SsdRandomCrop((least,), random_coef=0.0)):
        box = cropped(operation, seed)
        assert max(overlap(box, other) / area(other) for other in BOXES[:2]) >= least - 1e-6


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_centres_stay_where_rounding_leaves_less_than_no_room(seed):
    rng = np.random.default_rng(seed)
    # Objects as far apart as the picture is wide, at places that no float32 holds, as in a mosaic.
    corners = np.array([[0, 0, 4, 4], [296, 196, 300, 200]], np.float32)
    scene = Scene.of(Picture(0, 300, 200, corners, np.zeros(2, np.bool_)), (96, 96))
    scene = scene.moved(after(shifted(*rng.uniform(0, 9, 2)), scaled(*rng.uniform(0.9, 0.95, 2))))
    x0, y0, x1, y1 = CropKeepingCentres(0.1)(rng, scene).layers[0].crop
    assert max(x0, y0) < 2 + 1e-6
    assert min(x1, y1 + 100) > 298 - 1e-6


def test_crops_are_found_and_differ():
    for operation in (CropByOverlap(probability=1.0), SsdRandomCrop(random_coef=0.0), CropKeepingCentres()):
        boxes = {tuple(cropped(operation, seed)) for seed in range(50)}
        assert len(boxes) > 20
    assert all(cropped(CropByOverlap(probability=0.0), seed).tolist() == [0, 0, 300, 200] for seed in range(9))


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from([0.1, 0.5, 1.0]))
def test_the_middle_of_every_object_that_counts_stays(seed, smallest):
    box = cropped(CropKeepingCentres(smallest), seed)
    for other in BOXES[:2]:
        centre = (other[:2] + other[2:]) / 2
        assert (box[:2] <= centre + 1e-6).all()
        assert (centre <= box[2:] + 1e-6).all()
    assert ((box[2:] - box[:2]) >= np.array([300, 200]) * smallest - 1e-6).all()


def test_a_crop_without_objects_and_one_of_nothing_but_grey_show_something():
    empty = Picture(0, 300, 200)
    for seed in range(40):
        for operations in ((CropKeepingCentres(0.2),), (Expand(8.0, 1.0), CropByOverlap((0.0,), (0.01, 0.05)))):
            view = draw_view(operations, np.random.default_rng(seed), empty, (96, 96))
            assert len(view.layers) == 1


def test_what_is_cropped_away_is_not_shown_beside_the_crop():
    scene = Scene.of(PICTURE, (96, 96)).cropped((100.0, 0.0, 150.0, 200.0)).fitted()
    # The input is wider than the crop, and what lies beside it is not there any more.
    moved, visible = move(BOXES, draw_view((), np.random.default_rng(0), PICTURE, (96, 96)))
    assert (visible > 0).all()
    assert scene.objects().tolist() == []
    assert scene.layers[0].crop == (100.0, 0.0, 150.0, 200.0)
    assert moved.shape == (3, 4)


def test_objects_are_seen_where_earlier_operations_left_them():
    scene = Flip(1.0)(np.random.default_rng(0), Scene.of(PICTURE, (96, 96)))
    assert scene.objects().tolist() == [[210, 30, 260, 80], [20, 100, 100, 180]]
    turned = Rotate(180.0)(np.random.default_rng(3), scene)
    assert len(turned.objects()) <= 2


WRONG = {
    "flip": {"probability": 1.5},
    "vertical_flip": {"probability": -1.0},
    "quarter_turns": {"probability": 2.0},
    "zoom": {"range": (0.0, 1.0)},
    "expand": {"largest": 0.5},
    "rotate": {"degrees": 200.0},
    "shear": {"degrees": 90.0},
    "crop_by_overlap": {"overlaps": (0.5, 1.5)},
    "crop_keeping_centres": {"smallest": 0.0},
    "brightness": {"change": 2.0},
    "contrast": {"change": -0.1},
    "saturation": {"change": 1.1},
    "hue": {"degrees": -1.0},
    "blur": {"sigma": (2.0, 1.0)},
    "noise": {"sigma": (-1.0, 1.0)},
    "jpeg": {"quality": (0, 50)},
    "cut_out": {"holes": 0},
    "mosaic": {"meet": (0.0, 0.5)},
    "mixup": {"alpha": 0.0},
    "copy_paste": {"scale": (0.0, 1.0)},
    "photometric": {"hue": 360.0},
    "standard": {"stretch": 0.9},
    "random_horizontal_flip": {"probability": 1.5},
    "random_vertical_flip": {"probability": 1.5},
    "random_rotation90": {"probability": 1.5},
    "random_adjust_brightness": {"max_delta": 2.0},
    "random_adjust_contrast": {"min_delta": 2.0},
    "random_adjust_hue": {"max_delta": 0.6},
    "random_adjust_saturation": {"min_delta": -1.0},
    "random_crop_image": {"min_area": 0.0},
    "ssd_random_crop": {"min_object_covered": ()},
}


@pytest.fixture(scope="module")
def builtin():
    """Every augmentation of tlx's own by name."""
    registry.discover()
    return {e.name: e for e in augmentations.entries.values() if e.package == "tlx"}


def test_every_argument_that_makes_no_sense_is_refused_by_name(builtin):
    assert set(builtin) - {"none"} == set(WRONG)
    for name, wrong in WRONG.items():
        (argument,) = wrong
        with pytest.raises(ConfigError, match=rf"augmentations\.{name}\.{argument} = "):
            builtin[name].factory(**wrong)


def test_every_operation_tells_in_its_repr_what_it_depends_on(builtin):
    for entry in builtin.values():
        made = entry.factory()
        for name in entry.parameters:
            assert f"{name}={getattr(made, name)!r}" in repr(made)
        assert arranged(made) == made.operations

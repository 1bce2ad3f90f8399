"""The head whose boxes are distributions: where it begins, what it is punished for, and that it learns."""

from pathlib import Path

import numpy as np
import pytest

from tlx import config
from tlx.data.targets import ANY_CLASS
from tlx.errors import ConfigError, MisfitError
from tlx.lazy import keras, tf
from tlx.models.assigners.centre_sampling import CentreSampling
from tlx.models.boxes import iou
from tlx.models.head import TapShape
from tlx.models.heads.gfl import BuiltGfl, Gfl
from tlx.models.pyramid import locations
from tlx.tasks.detection import PADDING

SIZE = (128, 128)
SHAPES = [TapShape(16, 16, 8, 8), TapShape(8, 8, 12, 16), TapShape(4, 4, 16, 32)]
PLACES = locations(SHAPES, SIZE)
N = len(PLACES.strides)
SETTINGS = Gfl(channels=16, depth=1)
# Without layers: its geometry, losses and decoding need none.
HEAD = BuiltGfl(SETTINGS, None, PLACES)
OBJECT = ((10, 10, 60, 50), 0, False)


def outputs(images=1, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "logits": tf.constant(rng.normal(-2, 1, (images, N, classes)), tf.float32),
        "sides": tf.constant(rng.normal(0, 1, (images, N, 4, SETTINGS.bins + 1)), tf.float32),
    }


def targets(*images, slots=4):
    """Each image is a list of (box, label, ignore)."""
    boxes = np.zeros((len(images), slots, 4), np.float32)
    labels, ignore = np.full((len(images), slots), PADDING, np.int32), np.zeros((len(images), slots), bool)
    for i, rows in enumerate(images):
        for j, (box, label, ignored) in enumerate(rows):
            boxes[i, j], labels[i, j], ignore[i, j] = box, label, ignored
    return {"boxes": tf.constant(boxes), "labels": tf.constant(labels), "ignore": tf.constant(ignore)}


def gradients(rows, head=HEAD, made=None):
    """The gradients of the whole loss of one image by its outputs, in NumPy."""
    made = made or outputs()
    with tf.GradientTape() as tape:
        tape.watch(made)
        loss = sum(tf.reduce_sum(value) for value, _ in head.losses(made, targets(rows)).values())
    found = tape.gradient(loss, made, unconnected_gradients="zero")
    return {name: gradient.numpy()[0] for name, gradient in found.items()}


def sure_of(distances):
    """Logits [4, bins + 1] of sides that lie at `distances`, in strides, for certain."""
    places = np.arange(SETTINGS.bins + 1)
    shares = np.maximum(0, 1 - np.abs(places - np.array(distances)[:, None]))
    return np.log(np.maximum(shares, 1e-9)).astype(np.float32)


def test_an_untrained_head_expects_three_strides_to_each_side():
    keras.utils.set_random_seed(0)
    head = SETTINGS.build(SHAPES, 3, SIZE)
    taps = [np.random.default_rng(0).normal(size=(2, *shape[:3])).astype(np.float32) for shape in SHAPES]
    dense = head.predict(head.forward(taps))
    assert dense["boxes"].shape == (2, N, 1, 4)
    wide = np.concatenate(
        [PLACES.centres - 3 * PLACES.strides[:, None], PLACES.centres + 3 * PLACES.strides[:, None]], 1
    )
    off = np.abs(dense["boxes"].numpy()[:, :, 0] - wide) / PLACES.strides[:, None]
    assert off.max() < 0.5
    np.testing.assert_allclose(dense["scores"].numpy(), 0.01, atol=0.01)


def test_the_distribution_loss_is_least_where_the_side_is():
    box, at = np.array([44.0, 40.0, 90.0, 94.0], np.float32), 16 * 8 + 8  # The centre (68, 68), at stride 8.
    true = np.array([24, 28, 22, 26]) / 8
    losses = []
    for sides in (sure_of(true), sure_of(true + 0.4), sure_of(true + 2)):
        made = outputs()
        logits = np.full((1, N, 2), -9, np.float32)
        logits[0, at] = 3
        made = {"logits": tf.constant(logits), "sides": tf.tensor_scatter_nd_update(made["sides"], [[0, at]], [sides])}
        head = BuiltGfl(Gfl(channels=16, assigner=CentreSampling(0.5)), None, PLACES)
        found = head.losses(made, targets([(box, 0, False)]))
        assert found["boxes"][1].numpy()[0] >= 1
        losses.append([found[name][0].numpy()[0] for name in ("distribution", "boxes")])
        boxes = head.predict(made)["boxes"].numpy()[0, at, 0]
    np.testing.assert_allclose(boxes, box + np.array([-1, -1, 1, 1]) * 16, atol=1e-2)
    assert losses[0][0] < losses[1][0] < losses[2][0]
    assert losses[0][1] < losses[1][1] < losses[2][1]


def test_sides_beyond_the_last_place_are_finite():
    head = BuiltGfl(Gfl(channels=16, bins=4, assigner=CentreSampling(1.5)), None, PLACES)
    made = outputs()
    made["sides"] = made["sides"][..., :5]
    found = head.losses(made, targets([((0, 0, 128, 128), 0, False)]))
    assert found["boxes"][1].numpy()[0] > 0
    assert all(np.isfinite(loss.numpy()).all() for loss, _ in found.values())


def test_only_what_learns_an_object_learns_a_box():
    sides = np.abs(gradients([OBJECT])["sides"]).sum((1, 2))
    x, y = PLACES.centres.T
    inside = (x > 10) & (y > 10) & (x < 60) & (y < 50)
    assert 1 <= (sides > 0).sum() <= SETTINGS.assigner.candidates
    assert (sides[~inside] == 0).all()


def test_an_ignore_region_hides_its_own_class_only():
    plain, spared = (gradients(rows)["logits"] for rows in ([OBJECT], [OBJECT, ((64, 64, 128, 128), 1, True)]))
    there = (PLACES.centres > 64).all(1)
    assert (spared[there, 1] == 0).all()
    assert (plain[there, 1] != 0).all()
    np.testing.assert_array_equal(spared[:, 0], plain[:, 0])


@pytest.mark.parametrize("rows", [[], [((0, 0, 128, 128), ANY_CLASS, True)]])
def test_a_picture_without_objects_is_finite_and_teaches_no_box(rows):
    found = gradients(rows)
    assert (found["sides"] == 0).all()
    assert np.isfinite(found["logits"]).all()
    assert (found["logits"] > 0).all() == (not rows)


def test_losses_of_a_batch_are_those_of_its_parts():
    rows = [[OBJECT], [], [((64, 30, 120, 120), 1, False), OBJECT], [((64, 30, 120, 120), ANY_CLASS, True)]]
    made = outputs(images=4)
    whole = HEAD.losses(made, targets(*rows))
    for i, row in enumerate(rows):
        alone = HEAD.losses({name: array[i : i + 1] for name, array in made.items()}, targets(row, slots=9))
        for name, parts in alone.items():
            for ours, its in zip(whole[name], parts, strict=True):
                np.testing.assert_allclose(ours[i], its[0], rtol=1e-4, atol=1e-5)


def test_losses_are_traced_whatever_the_number_of_pictures_and_boxes():
    made, true = outputs(images=2), targets([OBJECT], [])
    free = {name: tf.TensorSpec([None, *array.shape[1:]], array.dtype) for name, array in made.items()}
    some = {name: tf.TensorSpec([None, None, *array.shape[2:]], array.dtype) for name, array in true.items()}
    traced = tf.function(HEAD.losses, input_signature=[free, some])
    for name, parts in HEAD.losses(made, true).items():
        np.testing.assert_allclose(traced(made, true)[name], parts, rtol=1e-5)


def test_boxes_of_one_object_become_their_mean():
    logits, sides = np.full((1, N, 1), -12, np.float32), np.zeros((1, N, 4, SETTINGS.bins + 1), np.float32)
    boxes = np.array([[40, 40, 90, 90], [44, 42, 94, 92]], np.float32)
    for at, box, probability in zip((16 * 8 + 7, 16 * 8 + 8), boxes, (0.8, 0.5), strict=True):
        centre = PLACES.centres[at]
        sides[0, at] = sure_of(np.concatenate([centre - box[:2], box[2:] - centre]) / 8)
        logits[0, at] = np.log(probability / (1 - probability))
    made = {"logits": tf.constant(logits), "sides": tf.constant(sides)}
    overlap = iou(*boxes).numpy()
    weights = np.array([0.8, 0.5 * np.exp(-((1 - overlap) ** 2) / 0.025)])
    for voting, wanted in ((1.0, boxes[0]), (0.6, weights @ boxes / weights.sum())):
        head = BuiltGfl(Gfl(channels=16, voting=voting), None, PLACES)
        found = head.postprocess(head.predict(made))
        np.testing.assert_allclose(found["boxes"][0, 0], wanted, atol=2e-2)
        assert (found["scores"].numpy() > 0).sum() == 1


@pytest.mark.parametrize("wrong", [{"bins": 2}, {"distribution_weight": -1.0}, {"voting": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"heads\.gfl\.{next(iter(wrong))}"):
        Gfl(**wrong)


def test_an_input_larger_than_any_box_could_be_is_refused():
    with pytest.raises(ConfigError, match=r"heads\.gfl\.bins = 4 makes boxes of up to 256 .* heads\.gfl\.bins = 5"):
        Gfl(channels=16, bins=4).refuse_size((128, 300))
    Gfl(channels=16, bins=5).refuse_size((128, 300))


def test_bins_too_few_for_the_input_are_refused_by_the_first_check():
    minimal = Path(__file__).parents[2] / "minimal.gin"
    with pytest.raises(MisfitError, match=r"heads\.gfl\.bins = 4 makes boxes of up to 256 pixels"):
        config.load([minimal], ["run.head = @heads.gfl()", "heads.gfl.bins = 4"])

"""The anchor-free head: what it is punished for, what it decodes, and that it learns."""

import numpy as np
import pytest

from tlx.data.targets import ANY_CLASS
from tlx.lazy import keras, tf
from tlx.models.assigners.centre_sampling import CentreSampling
from tlx.models.backbone import Backbone, tap_table
from tlx.models.head import TapShape
from tlx.models.heads.fcos import BuiltFcos, Fcos
from tlx.models.pyramid import locations
from tlx.tasks.detection import PADDING

SIZE = (128, 128)
SHAPES = [TapShape(16, 16, 8, 8), TapShape(8, 8, 12, 16), TapShape(4, 4, 16, 32)]
LOCATIONS = 16 * 16 + 8 * 8 + 4 * 4
SETTINGS = Fcos(channels=16, depth=1)


def test_the_form_of_its_taps_is_the_backbones_unless_it_says_another():
    taps, final = tap_table({8: "a", 16: "b"}, wide={8: "c", 16: "d"})
    backbone = Backbone("own", None, taps[::-1], final, "")
    chosen = {form: [tap.layer for tap in Fcos(strides=(8, 16), taps=form).select(backbone)] for form in (None, "ends")}
    assert chosen == {None: ["c", "d"], "ends": ["a", "b"]}


def built(shapes=SHAPES, size=SIZE, settings=SETTINGS):
    """A head without layers: its geometry, losses and decoding need none."""
    return BuiltFcos(settings, None, locations(shapes, size))


def outputs_of(logits, distances):
    return {"logits": logits, "distances": distances}


def outputs(images=1, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 1, (images, LOCATIONS, classes)).astype(np.float32)
    return outputs_of(tf.constant(logits), tf.constant(rng.uniform(5, 40, (images, LOCATIONS, 4)).astype(np.float32)))


def losses(outputs, targets):
    """The summed score loss, the summed box loss and the positives of each image."""
    found = HEAD.losses(outputs, targets)
    assert found["scores"][1] is found["boxes"][1]
    return found["scores"][0], *found["boxes"]


def targets(*images, slots=4):
    """Each image is a list of (box, label, ignore)."""
    boxes = np.zeros((len(images), slots, 4), np.float32)
    labels = np.full((len(images), slots), PADDING, np.int32)
    ignore = np.zeros((len(images), slots), bool)
    for i, rows in enumerate(images):
        for j, (box, label, ignored) in enumerate(rows):
            boxes[i, j], labels[i, j], ignore[i, j] = box, label, ignored
    return {"boxes": tf.constant(boxes), "labels": tf.constant(labels), "ignore": tf.constant(ignore)}


def score_gradient(rows, classes=2):
    """The gradient of the score loss by the logits of one image: [locations, classes]."""
    made = outputs(classes=classes)
    logits = made["logits"]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        scores, _, _ = losses(made, targets(rows))
        loss = tf.reduce_sum(scores)
    return tape.gradient(loss, logits).numpy()[0]


def inside(box):
    x, y = HEAD.locations.centres.T
    return (x > box[0]) & (y > box[1]) & (x < box[2]) & (y < box[3])


HEAD = built()
OBJECT = ((10, 10, 60, 50), 0, False)
REGION = (64, 30, 120, 120)


def test_an_ignore_region_hides_its_own_class_only():
    plain, spared = score_gradient([OBJECT]), score_gradient([OBJECT, (REGION, 1, True)])
    there = inside(REGION)
    assert (spared[there, 1] == 0).all()
    assert (plain[there, 1] != 0).all()
    np.testing.assert_array_equal(spared[:, 0], plain[:, 0])
    np.testing.assert_array_equal(spared[~there], plain[~there])


def test_a_region_of_any_class_hides_all_of_them():
    plain, spared = score_gradient([OBJECT]), score_gradient([OBJECT, (REGION, ANY_CLASS, True)])
    there = inside(REGION)
    assert (spared[there] == 0).all()
    np.testing.assert_array_equal(spared[~there], plain[~there])


def test_an_object_inside_an_ignore_region_is_learnt_all_the_same():
    thing, whole = (70, 40, 110, 80), (0, 0, 128, 128)
    _, box, positives = losses(outputs(), targets([(thing, 0, False)]))
    _, hidden_box, hidden_positives = losses(outputs(), targets([(thing, 0, False), (whole, ANY_CLASS, True)]))
    assert positives.numpy()[0] > 0
    assert (positives.numpy(), box.numpy()) == (hidden_positives.numpy(), hidden_box.numpy())
    learnt = np.abs(score_gradient([(thing, 0, False), (whole, ANY_CLASS, True)])).sum(1) > 0
    assert learnt.sum() == positives.numpy()[0]


def test_an_ignored_box_is_no_object():
    _, box, positives = losses(outputs(), targets([(REGION, 1, True)]))
    assert box.numpy().tolist() == positives.numpy().tolist() == [0]


def test_a_picture_without_objects_is_finite_and_only_background():
    scores, box, positives = losses(outputs(), targets([]))
    assert np.isfinite(scores.numpy()).all()
    assert scores.numpy()[0] > 0
    assert box.numpy()[0] == positives.numpy()[0] == 0
    assert np.isfinite(score_gradient([])).all()
    assert (score_gradient([]) > 0).all()


def test_losses_of_a_batch_are_those_of_its_parts():
    rows = [[OBJECT], [], [(REGION, 1, False), OBJECT], [(REGION, ANY_CLASS, True)]]
    made = outputs(images=4)
    whole = [part.numpy() for part in losses(made, targets(*rows))]
    for i, row in enumerate(rows):
        alone = losses({name: array[i : i + 1] for name, array in made.items()}, targets(row))
        np.testing.assert_allclose([part[i] for part in whole], [part.numpy()[0] for part in alone], rtol=1e-5)


def test_padding_changes_nothing():
    few, many = targets([OBJECT], slots=1), targets([OBJECT], slots=9)
    for a, b in zip(losses(outputs(), few), losses(outputs(), many), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


@pytest.mark.parametrize("side", [12, 20, 33, 60, 100, 126])
def test_an_object_of_any_size_has_locations_that_learn_it(side):
    box = (64 - side / 2, 64 - side / 2, 64 + side / 2, 64 + side / 2)
    _, _, positives = losses(outputs(), targets([(box, 0, False)]))
    assert 1 <= positives.numpy()[0] <= 4 * SETTINGS.radius**2 * 3


def test_the_smaller_of_two_objects_is_learnt_where_they_overlap():
    large, small = ((0, 0, 60, 60), 0, False), ((20, 20, 40, 40), 1, False)
    chosen, positive, *_ = CentreSampling(1.5)(HEAD.locations, targets([large, small]), 2)
    of_small = inside(small[0]) & positive.numpy()[0]
    assert (chosen.numpy()[0][of_small & (HEAD.locations.strides == 8)] == 1).all()


def hand_made(found, classes):
    """Outputs of a head that is sure of these (box, label, probability), and of nothing else."""
    logits = np.full((1, LOCATIONS, classes), -12, np.float32)
    distances = np.full((1, LOCATIONS, 4), 4, np.float32)
    for box, label, probability in found:
        middle = (np.array(box[:2]) + box[2:]) / 2
        at = np.argmin(np.abs(HEAD.locations.centres - middle).sum(1))
        logits[0, at, label] = np.log(probability / (1 - probability))
        centre = HEAD.locations.centres[at]
        distances[0, at] = [*(centre - box[:2]), *(np.array(box[2:]) - centre)]
    return outputs_of(tf.constant(logits), tf.constant(distances))


def decode(outputs, head=None):
    found = (head or HEAD).postprocess((head or HEAD).predict(outputs))
    return found["boxes"], found["scores"], found["labels"]


def test_decoding_gives_the_boxes_back_best_first():
    found = [((10, 12, 40, 50), 2, 0.7), ((80, 20, 100, 44), 0, 0.9), ((60, 70, 120, 126), 1, 0.2)]
    boxes, scores, labels = (out.numpy()[0] for out in decode(hand_made(found, 3)))
    wanted = sorted(found, key=lambda row: -row[2])
    np.testing.assert_allclose(boxes[:3], [row[0] for row in wanted], atol=1e-3)
    np.testing.assert_allclose(scores[:3], [row[2] for row in wanted], rtol=1e-4)
    assert labels[:3].tolist() == [row[1] for row in wanted]
    assert (scores[3:] == 0).all()
    assert len(scores) <= SETTINGS.max_detections


def test_one_class_suppresses_and_two_do_not():
    same = [((10, 10, 50, 50), 0, 0.9), ((12, 10, 54, 50), 0, 0.8)]
    other = [same[0], ((12, 10, 54, 50), 1, 0.8)]
    assert (decode(hand_made(same, 2))[1].numpy() > 0).sum() == 1
    assert (decode(hand_made(other, 2))[1].numpy() > 0).sum() == 2


@pytest.mark.parametrize("batch", [None, 2])
def test_decoding_serves_inputs_with_few_locations(batch):
    """A small input has fewer locations than detections are allowed."""
    head = built([TapShape(2, 2, 8, 32)], (64, 64), Fcos(channels=16, depth=1, strides=(32,)))

    @tf.function(input_signature=[tf.TensorSpec([batch, 4, 1]), tf.TensorSpec([batch, 4, 4])])
    def traced(logits, distances):
        return decode(outputs_of(logits, distances), head)

    boxes, scores, labels = traced(np.zeros((2, 4, 1), np.float32), np.ones((2, 4, 4), np.float32))
    assert boxes.shape[1] == scores.shape[1] == labels.shape[1]
    np.testing.assert_allclose(np.sort(scores.numpy(), 1)[:, -4:], 0.5)


@pytest.mark.parametrize("classes", [1, 2, 7, 20])
def test_any_number_of_classes(classes):
    keras.utils.set_random_seed(0)
    head = SETTINGS.build(SHAPES, classes, SIZE)
    taps = [np.random.default_rng(0).normal(size=(2, *shape[:3])).astype(np.float32) for shape in SHAPES]
    made = head.forward(taps)
    logits, distances = made["logits"], made["distances"]
    assert logits.shape == (2, LOCATIONS, classes)
    assert distances.shape == (2, LOCATIONS, 4)
    assert (distances.numpy() > 0).all()
    # Before anything is learnt, one location in a hundred is an object.
    np.testing.assert_allclose(tf.sigmoid(logits).numpy(), 0.01, atol=0.005)
    rows = [(OBJECT[0], classes - 1, False)]
    scores, _, _ = losses(made, targets(rows, []))
    assert np.isfinite(scores.numpy()).all()


def test_the_grid_is_in_pixels_of_the_input_whatever_its_shape():
    shapes = [TapShape(5, 7, 8, 8), TapShape(3, 4, 8, 16), TapShape(2, 2, 8, 32)]
    found = locations(shapes, (40, 56))
    centres, strides = found.centres, found.strides
    assert len(centres) == len(strides) == 35 + 12 + 4
    np.testing.assert_allclose(centres[:2], [[4, 4], [12, 4]])
    np.testing.assert_allclose(centres[35], [7, 40 / 6], rtol=1e-5)
    np.testing.assert_allclose(centres[-1], [42, 30])


def test_an_object_between_all_locations_is_learnt_by_the_nearest():
    head = built([TapShape(8, 8, 1, 8), TapShape(4, 4, 1, 16), TapShape(2, 2, 1, 32)], (64, 64))
    rows = [((9.0, 9.0, 11.0, 11.0), 0, False), ((8.0, 8.0, 40.0, 40.0), 1, False)]
    chosen, positive, *_ = CentreSampling(1.5)(head.locations, targets(rows), 2)
    at = np.flatnonzero(positive[0].numpy() & (chosen[0].numpy() == 0))
    assert head.locations.centres[at].tolist() == [[12.0, 12.0]]


@pytest.mark.parametrize(("reach", "learns"), [(63, True), (65, False)])
def test_a_level_learns_what_reaches_no_further_than_eight_of_its_strides(reach, learns):
    head = built([TapShape(50, 50, 1, 8), TapShape(25, 25, 1, 16), TapShape(13, 13, 1, 32)], (400, 400))
    # Its centre is that of a cell of stride 8.
    box = (204 - reach, 204 - reach, 204 + reach, 204 + reach)
    _, positive, *_ = CentreSampling(0.5)(head.locations, targets([(box, 0, False)]), 1)
    assert (positive[0].numpy() & (head.locations.strides == 8)).any() == learns

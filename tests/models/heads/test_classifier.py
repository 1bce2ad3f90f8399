"""The head that tells the class of a whole picture."""

import numpy as np
import pytest

from tlx import policies
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import ImageClass
from tlx.errors import ConfigError
from tlx.fit import Fit
from tlx.lazy import tf
from tlx.models.head import TapShape
from tlx.models.heads.classifier import Classifier
from tlx.pipeline import Unit
from tlx.predict import predict

CHANNELS, CLASSES = 200, 4


def built(**settings):
    return Classifier(**settings).build([TapShape(1, 1, CHANNELS, 32)], CLASSES, (64, 64))


def vectors(count, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(1, 2, (count, CHANNELS)).astype(np.float32))


def seeds(*rows):
    return tf.constant(rows, tf.int32)


def dropped(head, taps, drawn):
    """What is left of the vectors of which logits are made: the dense layer passes on their first numbers."""
    kernel = np.eye(CHANNELS, CLASSES, dtype=np.float32)
    head.network.get_layer("scores").set_weights([kernel, np.zeros(CLASSES, np.float32)])
    forward = tf.function(lambda taps, drawn: head.forward([taps], {}, True, drawn)["logits"])
    return forward(taps, drawn).numpy()


def test_before_it_learns_all_classes_are_as_likely():
    head = built()
    outputs = head.forward([vectors(3)])
    np.testing.assert_allclose(head.predict(outputs)["scores"], np.full((3, CLASSES), 1 / CLASSES), atol=1e-6)
    loss, weight = head.losses(outputs, {"label": tf.constant([0, 1, 3])})["scores"]
    np.testing.assert_allclose(loss, np.log(CLASSES), rtol=1e-5)
    assert weight.numpy().tolist() == [1, 1, 1]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_with_labels_of_which_a_share_is_spread(smoothing):
    logits = np.random.default_rng(0).normal(0, 2, (5, CLASSES)).astype(np.float32)
    labels = np.array([0, 3, 1, 1, 2], np.int32)
    found = built(label_smoothing=smoothing).losses({"logits": tf.constant(logits)}, {"label": tf.constant(labels)})
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = np.eye(CLASSES)[labels] * (1 - smoothing) + smoothing / CLASSES
    np.testing.assert_allclose(found["scores"][0], -(wanted * np.log(chances)).sum(1), rtol=1e-4)


def test_dropout_is_drawn_from_an_examples_own_seed():
    head, taps = built(dropout=0.5), vectors(3)
    whole = dropped(head, taps, seeds((1, 2), (1, 3), (9, 2)))
    parts = [dropped(head, taps[i : i + 1], seeds(seed)) for i, seed in enumerate([(1, 2), (1, 3), (9, 2)])]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    masks = dropped(head, tf.repeat(taps[:1], 200, 0), seeds(*((0, i) for i in range(200)))) == 0
    assert 0.4 < masks.mean() < 0.6
    assert len({tuple(mask) for mask in masks}) > 8


def test_dropout_keeps_the_mean_and_is_for_training_alone():
    head, taps = built(dropout=0.25), vectors(1)
    kept = dropped(head, tf.repeat(taps, 400, 0), seeds(*((0, i) for i in range(400)))).mean(0)
    np.testing.assert_allclose(kept, taps[0, :CLASSES], rtol=0.15)
    np.testing.assert_allclose(head.forward([taps])["logits"][0], taps[0, :CLASSES], rtol=1e-6)


def test_what_is_normalized_are_signed_roots_and_only_training_moves_its_statistics(arrays):
    head = built(normalize=True, dropout=0.0)
    head.network.get_layer("scores").set_weights([np.eye(CHANNELS, CLASSES), np.zeros(CLASSES)])
    numbers = vectors(64) * tf.constant([10.0, 100.0] * (CHANNELS // 2)) - 40.0
    roots = (numbers / np.sqrt(np.abs(numbers) + 1e-3)).numpy()
    wanted = (roots - roots.mean(0)) / np.sqrt(roots.var(0) + 1e-3)
    for _ in range(150):
        seen = head.forward([numbers], {}, True, None)["logits"]
    np.testing.assert_allclose(seen, wanted[:, :CLASSES], atol=1e-3)
    before = arrays(head.normalization.weights)
    np.testing.assert_allclose(head.forward([numbers])["logits"], wanted[:, :CLASSES], atol=0.02)
    np.testing.assert_equal(arrays(head.normalization.weights), before)


def test_what_normalizes_has_nothing_that_trains_and_is_kept_with_the_model(labelled, assemble):
    made = assemble(labelled, policies.backbone(), head=Classifier(normalize=True))
    assert [v.path.split("/")[-2:] for v in made.detector.head_variables] == [["scores", "kernel"], ["scores", "bias"]]
    kept = {id(v) for v in made.detector.model.variables} & {id(v) for v in made.learner.state}
    assert {id(v) for v in made.detector.head.normalization.variables} <= kept


@pytest.mark.parametrize("wrong", [{"dropout": 1.0}, {"dropout": -0.1}, {"label_smoothing": 1.0}])
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError, match=rf"heads\.classifier\.{next(iter(wrong))} = "):
        Classifier(**wrong)


@pytest.fixture
def labelled(draw):
    """Pictures with one filled box each, that are of the class of the box."""
    drawn = draw(12)
    examples = tuple(Example(e.image, e.width, e.height, ImageClass(int(e.objects.labels[0]))) for e in drawn.examples)
    return Dataset("labelled", drawn.classes, examples, task="classification")


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_of_frozen_layers_one_vector_a_picture_is_cached(labelled, assemble, pooling):
    made = assemble(labelled, policies.backbone(), head=Classifier(pooling=pooling))
    assert made.cut.shapes == [(24,)]
    assert made.source.cached
    (vector,), targets = made.source.load(Unit(3))
    assert (vector.shape, targets) == ((24,), {"label": 1})


def test_it_learns_to_tell_what_is_drawn(labelled, assemble, part):
    policy, fit = policies.last_layers(4), Fit(batch_size=12, backbone_rate=1.0)
    made = assemble(labelled, policy, fit, traced=True, head=Classifier(dropout=0.1))
    batch = part(next(iter(made.source.batches([Unit(i) for i in range(12)], 12))))
    for _ in range(100):
        made.learner.update([batch], 5e-3)
    found = predict(made.detector, made.cut, labelled, 12)
    assert [seen.best for seen in found] == [int(example.targets.labels[0]) for example in labelled.examples]


def test_micro_batches_give_the_same_update(labelled, assemble, part, arrays):
    after = []
    for micro in (12, 5):
        made = assemble(labelled, policies.last_layers(1), Fit(batch_size=12), head=Classifier(dropout=0.4))
        batch = part(next(iter(made.source.batches([Unit(i) for i in range(12)], 12))))
        pieces = [slice(i, i + micro) for i in range(0, 12, micro)]
        loss = made.learner.update([tf.nest.map_structure(lambda a, p=p: a[p], batch) for p in pieces], 1e-2)["loss"]
        after.append((loss, arrays(made.learner.variables)))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    for a, b in zip(after[0][1], after[1][1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)

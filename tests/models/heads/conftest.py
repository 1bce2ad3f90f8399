"""What any head must do: learn what is drawn, give one update whatever the parts, and come back from a file."""

import numpy as np
import pytest

from tlx import ownership, policies
from tlx.fit import Fit
from tlx.lazy import tf
from tlx.models.boxes import iou
from tlx.models.detector import build, load_weights
from tlx.pipeline import Unit
from tlx.predict import predict
from tlx.run import WEIGHTS, save_weights

# The tiny backbone's last layer has no BatchNorm, whose statistics would be a micro-batch's.
LAST = policies.last_layers(1)


@pytest.fixture(scope="session")
def taught(draw, assemble, part):
    """Return a function that teaches a head four drawn pictures, and gives what was put together and the pictures."""

    def taught(head, updates=80, rate=1e-2):
        dataset = draw(4)
        made = assemble(dataset, policies.none(), Fit(backbone_rate=1.0), traced=True, head=head)
        batch = part(next(iter(made.source.batches([Unit(i) for i in range(4)], 4))))
        for update in range(updates):
            # What is drawn at random is drawn anew in each update.
            *arrays, seeds = batch
            parts = [(*arrays, seeds + tf.constant([[update, 0]]))]
            made.learner.update(parts, rate * min(1, (update + 1) / 5, (updates - update) / (updates / 2)))
        return made, dataset

    return taught


@pytest.fixture(scope="session")
def assert_found():
    """Return a function that checks that a detector's best box of each picture is the one that was drawn."""

    def assert_found(made, dataset):
        for example, found in zip(dataset.examples, predict(made.detector, made.cut, dataset), strict=True):
            best = int(found.scores.argmax())
            assert found.labels[best] == example.objects.labels[0]
            assert iou(found.boxes[best], example.objects.boxes[0]).numpy() > 0.5

    return assert_found


@pytest.fixture(scope="session")
def updated(draw, assemble, part, arrays):
    """Return a function that gives all losses, and the variables' changes, of an update by six examples in parts."""
    dataset = draw(3)

    def updated(head, micro, policy=LAST, shift=0):
        made = assemble(dataset, policy, Fit(batch_size=6), head=head)
        inputs, targets, seeds = part(next(iter(made.source.batches(made.source.views.units, 6))))
        batch = inputs, targets, seeds + shift
        before = arrays(made.learner.variables)
        parts = [tf.nest.map_structure(lambda a, i=i: a[i : i + micro], batch) for i in range(0, 6, micro)]
        known = made.learner.update(parts, 1e-3)
        changes = [a - b for a, b in zip(arrays(made.learner.variables), before, strict=True)]
        return known, changes

    return updated


@pytest.fixture(scope="session")
def assert_same_in_parts(updated):
    """Return a function that checks that micro-batches give the update that the whole batch gives."""

    def assert_same_in_parts(head, policy=LAST):
        known, changes = updated(head, 6, policy)
        assert max(np.abs(change).max() for change in changes) > 1e-4
        for micro in (4, 1):
            others, other_changes = updated(head, micro, policy)
            assert others == pytest.approx(known, rel=1e-4, abs=1e-6)
            for change, other in zip(changes, other_changes, strict=True):
                np.testing.assert_allclose(change, other, atol=1e-5)

    return assert_same_in_parts


@pytest.fixture(scope="session")
def assert_comes_back(tiny, tmp_path_factory):
    """Return a function that saves a detector, and checks that another one with its weights predicts the same."""

    def assert_comes_back(made, head, dataset):
        folder = tmp_path_factory.mktemp("run")
        ownership.take(folder, "run")
        save_weights(made.detector, folder)
        other = build(tiny(), head, dataset.classes, (64, 64))
        load_weights(other, folder / WEIGHTS)
        pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
        before, after = (
            one.head.predict(one.head.forward(tf.nest.flatten(one.network(pictures)))) for one in (made.detector, other)
        )
        for name, array in before.items():
            np.testing.assert_array_equal(array.numpy(), after[name].numpy())

    return assert_comes_back

"""One update is one update, whatever fits in memory at once."""

import numpy as np
import pytest

from tlx import policies
from tlx.fit import Fit
from tlx.lazy import tf
from tlx.optimizers import Sgd
from tlx.tasks.detection import PADDING

# The last convolution of the tiny backbone has no BatchNorm, whose statistics would be a micro-batch's.
POLICY = policies.last_layers(1)


@pytest.fixture(scope="module")
def learning(draw, assemble, part):
    """Return a function that gives a fresh learner and one batch of six."""
    dataset = draw(3)

    def learning(policy=POLICY, **settings):
        made = assemble(dataset, policy, Fit(batch_size=6, **settings))
        batch = next(iter(made.source.batches(made.source.views.units, 6)))
        return made.learner, part(batch)

    return learning


@pytest.fixture(scope="module")
def whole(learning, arrays):
    """The loss and the weights after an update by all six examples at once."""
    return updated(learning, arrays, 6)


def parts(batch, micro):
    pieces = (slice(i, i + micro) for i in range(0, len(batch[2]), micro))
    return [tf.nest.map_structure(lambda a, piece=piece: a[piece], batch) for piece in pieces]


def updated(learning, arrays, micro):
    learner, batch = learning()
    return learner.update(parts(batch, micro), 1e-3)["loss"], arrays(learner.variables)


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_micro_batches_give_the_same_update(learning, arrays, whole):
    before = arrays(learning()[0].variables)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(before, whole[1], strict=True))
    # Four and two: the last one is short.
    assert_same(whole, updated(learning, arrays, 4))


def exhausted(learner, fits):
    """Make a learner fail as TensorFlow does where a micro-batch is larger than `fits`, from the second one on."""
    add, asked = learner._add, []

    def short_of_memory(part):
        asked.append(len(part[2]))
        if asked[-1] > fits and len(asked) > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nmore")
        add(part)

    learner._add = short_of_memory
    return asked


def test_an_update_that_does_not_fit_changes_nothing(learning, arrays, whole):
    learner, batch = learning()
    before = arrays(learner.variables)
    # The first micro-batch of four has been added up already when the next one fails.
    exhausted(learner, fits=1)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        learner.update(parts(batch, 4), 1e-3)
    for variable, value in zip(learner.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert_same(whole, (learner.update(parts(batch, 1), 1e-3)["loss"], arrays(learner.variables)))


def test_only_kernels_decay(learning, arrays):
    learner, _ = learning(weight_decay=0.5)
    before = arrays(learner.variables)
    for optimizer in learner.optimizers:
        optimizer.learning_rate.assign(0.1)
    learner._apply()  # No gradient has been added up, so there is nothing but decay.
    for variable, value in zip(learner.variables, before, strict=True):
        factor = 0.95 if len(variable.shape) >= 2 else 1.0
        np.testing.assert_allclose(variable.numpy(), factor * value, rtol=1e-5)


def test_the_backbone_learns_at_its_own_rate(learning, arrays):
    learner, batch = learning(policy=policies.last_layers(3), backbone_rate=0.1, weight_decay=0.0)
    head = {id(v) for v in learner.detector.head_variables}
    before = arrays(learner.variables)
    learner.update([batch], 1e-2)
    # Adam's first step is as long as its rate wherever the gradient is not tiny.
    steps = {True: [], False: []}
    for variable, value in zip(learner.variables, before, strict=True):
        steps[id(variable) in head].append(np.abs(variable.numpy() - value).max())
    assert max(steps[True]) == pytest.approx(1e-2, rel=0.01)
    assert max(steps[False]) == pytest.approx(1e-3, rel=0.01)


def test_each_group_learns_at_the_rate_that_the_policy_names(learning, arrays):
    rates = (("block4_b", 0.01), ("block3", 0.5), ("head", 2.0))
    policy = policies.patterns((("block[34]", "train"), ("", "freeze")), rates)
    learner, batch = learning(policy=policy, backbone_rate=0.1, weight_decay=0.0)
    wanted = {"head": 2e-2, "backbone": 1e-3, "backbone/block4_b": 1e-4, "backbone/block3": 5e-3}
    assert learner.rates(1e-2) == pytest.approx(wanted)
    head = {id(v) for v in learner.detector.head_variables}
    before = arrays(learner.variables)
    learner.update([batch], 1e-2)
    steps = {}
    for variable, value in zip(learner.variables, before, strict=True):
        layer = variable.path.split("/")[-2]
        group = "head" if id(variable) in head else next((g for g in wanted if g[9:] and g[9:] in layer), "backbone")
        steps[group] = max(steps.get(group, 0), np.abs(variable.numpy() - value).max())
    assert steps == pytest.approx(wanted, rel=0.02)


def test_the_chosen_optimizer_is_the_one_that_steps(learning, arrays):
    learner, batch = learning(weight_decay=0.0, clip=1e9, optimizer=Sgd(momentum=0.5))
    before = arrays(learner.variables)
    learner.update([batch], 1e-3)
    first = arrays(learner.variables)
    learner.update([batch], 0.0)
    # Without a rate only the momentum is left of the first step.
    for now, a, b in zip(arrays(learner.variables), before, first, strict=True):
        np.testing.assert_allclose(now - b, 0.5 * (b - a), atol=1e-6)


def test_with_nothing_unfrozen_only_the_head_is_in_the_groups(learning):
    learner, _ = learning(policy=policies.backbone())
    assert len(learner.optimizers) == 1
    assert len(learner.variables) == len(learner.detector.head_variables)


def test_gradients_are_clipped_by_their_global_norm(learning):
    learner, batch = learning(clip=1e-3)
    learner.update([batch], 1e-3)
    # Adam's first moment after one step is a tenth of the clipped gradient.
    moments = [v.numpy() for o in learner.optimizers for v in o.variables if "momentum" in v.path]
    assert np.sqrt(sum((m**2).sum() for m in moments)) == pytest.approx(1e-4, rel=1e-3)


def test_a_batch_without_objects_is_learnt_from(learning, arrays):
    learner, batch = learning()
    inputs, targets, seeds = batch
    none = {**targets, "boxes": tf.zeros_like(targets["boxes"]), "labels": tf.fill(targets["labels"].shape, PADDING)}
    before = arrays(learner.variables)
    loss = learner.update([(inputs, none, seeds)], 1e-3)["loss"]
    assert 0 < loss < np.inf
    assert all(np.isfinite(v.numpy()).all() for v in learner.variables)
    assert any((v.numpy() != value).any() for v, value in zip(learner.variables, before, strict=True))


def fail_while_averaged(learner):
    with learner.averaged():
        raise KeyError


def test_averages_follow_the_weights_and_stand_in_for_them(learning, arrays):
    learner, batch = learning(ema=0.75)
    start = arrays(learner.variables)
    learner.update([batch], 1e-2)
    after = arrays(learner.variables)
    with learner.averaged():
        for variable, a, b in zip(learner.variables, start, after, strict=True):
            np.testing.assert_allclose(variable.numpy(), 0.75 * a + 0.25 * b, atol=1e-6)
    with pytest.raises(KeyError):
        fail_while_averaged(learner)
    for variable, value in zip(learner.variables, after, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_state_holds_all_that_training_changes(draw, assemble, arrays, part):
    made = assemble(draw(3), policies.last_layers(3), Fit(batch_size=6, ema=0.9), dropout=0.2)
    everything = [*made.detector.model.variables, *(v for o in made.learner.optimizers for v in o.variables)]
    before = arrays(everything)
    batch = next(iter(made.source.batches(made.source.views.units, 6)))
    made.learner.update([part(batch)], 1e-3)
    kept = {id(v) for v in made.learner.state}
    changed = [v for v, value in zip(everything, before, strict=True) if (v.numpy() != value).any()]
    assert any("seed" in v.path for v in changed)
    assert [v.path for v in changed if id(v) not in kept] == []


def test_products_in_bfloat16_are_of_updates_alone(learning, arrays):
    (plain, batch), (rounded, _) = learning(), learning(matmul="bfloat16")
    inputs, targets, seeds = batch

    def looked_at(learner):
        return {name: loss[0].numpy() for name, loss in learner.losses(inputs, targets, False, seeds).items()}

    for name, loss in looked_at(plain).items():
        np.testing.assert_array_equal(loss, looked_at(rounded)[name])
    exact, near = (learner.update(parts(batch, 6), 1e-3)["loss"] for learner in (plain, rounded))
    assert near != exact
    assert near == pytest.approx(exact, rel=0.01)

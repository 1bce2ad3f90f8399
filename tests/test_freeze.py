"""Frozen means bit for bit, and exactly what was asked for trains."""

import numpy as np
import pytest

from tlx import freeze, policies
from tlx.errors import ModelError
from tlx.fit import Fit
from tlx.freeze import Freeze, Phase, Span
from tlx.lazy import keras
from tlx.pipeline import Unit


def trains(model):
    return [layer.name for layer in model.layers if layer.trainable_weights]


def test_a_policy_forgets_what_another_left(network):
    model, layers = network
    freeze.apply(policies.none(), model, layers)
    freeze.apply(policies.last_layers(1), model, layers)
    assert trains(model) == ["block4_b"]


@pytest.mark.parametrize(("momentum", "moved"), [(0.99, 0.1), (0.999, 0.1), (0.5, 0.5)])
def test_statistics_that_train_follow_their_batches_soon_enough(network, momentum, moved):
    """Those of a thousand updates would not have caught up when training is over; what is quicker stays so."""
    model, layers = network
    trained, frozen = model.get_layer("block4_a_bn"), model.get_layer("block3_left_bn")
    trained.momentum = frozen.momentum = momentum
    freeze.apply(policies.last_layers(2), model, layers)
    trained.moving_mean.assign(np.zeros(24))
    trained(np.ones((2, 1, 1, 24), np.float32), training=True)
    np.testing.assert_allclose(trained.moving_mean.numpy(), moved, rtol=1e-5)
    assert frozen.momentum == momentum


@pytest.mark.parametrize(
    ("shares", "updates", "bounds"),
    [
        ((1.0,), 7, [(0, 7)]),
        ((0.3, 0.7), 10, [(0, 3), (3, 10)]),
        ((0.3, 0.7), 1, [(0, 0), (0, 1)]),
        ((1 / 3, 1 / 3, 1 / 3), 100, [(0, 33), (33, 67), (67, 100)]),
    ],
)
def test_every_update_is_of_one_phase(shares, updates, bounds):
    policy = Freeze("some", tuple(Phase(share, lambda layers: []) for share in shares))
    assert policy.spans(updates) == tuple(Span(i, *bound, updates) for i, bound in enumerate(bounds))


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.6), (1.2, -0.2), (1.0, 0.0)])
def test_shares_that_are_not_the_whole_are_refused(shares):
    with pytest.raises(ModelError, match=r"freeze policy some: its phases' shares are \["):
        Freeze("some", tuple(Phase(share, lambda layers: []) for share in shares))


def test_what_some_phase_changes_is_known_beforehand(network):
    model, layers = network
    whole = keras.Model(model.inputs, keras.layers.Dense(2, name="head")(model.outputs[0]))
    policy = Freeze(
        "turns",
        (
            Phase(0.5, lambda layers: [layer.name == "stem_conv" for layer in layers]),
            Phase(0.5, lambda layers: [layer.name == "block4_b" for layer in layers]),
        ),
    )
    names = [v.path.split("/")[-2] for v in freeze.changing(policy, whole, model, layers)]
    assert names == ["stem_conv"] * 2 + ["stem_conv_bn"] * 4 + ["block4_b"] * 2 + ["head"] * 2


def test_statistics_of_layers_that_train_follow_ten_updates_and_no_others_do(network):
    model, layers = network
    freeze.apply(policies.last_layers(2), model, layers)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.name: layer.momentum for layer in norms if layer.momentum != 0.99} == {"block4_a_bn": 0.9}
    norm = model.get_layer("block4_a_bn")
    before = norm.moving_mean.numpy()
    x = np.random.default_rng(0).normal(3, 1, (64, 1, 1, before.size)).astype(np.float32)
    norm(x, training=True)
    np.testing.assert_allclose(norm.moving_mean.numpy(), 0.9 * before + 0.1 * x.mean((0, 1, 2)), rtol=1e-4)


def test_a_slower_momentum_is_left_as_it_is(network):
    model, layers = network
    norm = model.get_layer("block4_a_bn")
    norm.momentum = 0.5
    freeze.apply(policies.none(), model, layers)
    assert norm.momentum == 0.5


def test_the_account_tells_what_trains(network):
    frozen = freeze.apply(policies.last_layers(3), *network)
    assert frozen.summary().startswith("3 of the backbone's 9 weight layers train, in block3, block4;")
    rows = frozen.table().splitlines()[2:]
    assert len(rows) == 9
    assert sum(row.endswith("| yes |") for row in rows) == 3
    total = sum(int(row.split("|")[3].replace(",", "")) for row in rows)
    assert total == network[0].count_params()
    assert "all 9 weight layers" in freeze.apply(policies.backbone(), *network).summary()


def test_frozen_weights_and_statistics_stay_bit_for_bit(draw, assemble, arrays, part):
    made = assemble(draw(4), policies.last_layers(2), Fit(batch_size=4))
    weights = made.detector.network.weights
    before = arrays(weights)
    batch = next(iter(made.source.batches([Unit(i) for i in range(4)], 4)))
    for _ in range(3):
        made.learner.update([part(batch)], 1e-2)
    made.frozen.verify()
    frozen = {id(variable) for variable in made.frozen.frozen_variables}
    changed = {v.path for v, value in zip(weights, before, strict=True) if not np.array_equal(v.numpy(), value)}
    assert changed == {v.path for v in weights if id(v) not in frozen}
    assert any("moving_mean" in path for path in changed)


@pytest.mark.parametrize("name", ["kernel", "moving_variance"])
def test_a_change_of_anything_frozen_is_noticed(network, name):
    frozen = freeze.apply(policies.last_layers(2), *network)
    frozen.verify()
    variable = next(v for v in frozen.frozen_variables if v.name == name)
    value = variable.numpy().copy()
    value.flat[0] = np.nextafter(value.flat[0], np.inf, dtype=value.dtype)
    variable.assign(value)
    with pytest.raises(ModelError, match="frozen weights changed"):
        frozen.verify()


def test_a_frozen_normalization_uses_its_statistics_in_training(network):
    model, layers = network
    freeze.apply(policies.backbone(), model, layers)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(pictures, training=True)),
        keras.ops.convert_to_numpy(model(pictures, training=False)),
    )

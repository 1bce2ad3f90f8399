"""Frozen means bit for bit, and exactly what was asked for trains."""

import numpy as np
import pytest

from tlx import freeze
from tlx.errors import ConfigError, MisfitError, ModelError
from tlx.fit import Fit
from tlx.lazy import keras
from tlx.models.graph import weight_layers


@pytest.fixture
def network(tiny):
    backbone = tiny()
    model, _ = backbone.build((32, 32))
    return model, weight_layers(model, backbone.blocks)


def trains(model):
    return [layer.name for layer in model.layers if layer.trainable_weights]


@pytest.mark.parametrize("k", range(10))
def test_exactly_the_last_k_weight_layers_train(network, k):
    model, layers = network
    frozen = freeze.apply(freeze.last_layers(k), model, layers)
    assert sum(frozen.trains) == k
    expected = {layer.name for unit in layers[len(layers) - k :] for layer in unit.layers}
    assert set(trains(model)) == expected
    assert len(frozen.frozen_variables) == sum(
        len(layer.weights) for layer in model.layers if layer.name not in expected
    )


@pytest.mark.parametrize(("k", "first"), [(0, None), (1, "block4"), (2, "block3"), (5, "stem")])
def test_the_last_blocks_train(network, k, first):
    model, layers = network
    freeze.apply(freeze.last_blocks(k), model, layers)
    assert {unit.block for unit in layers if unit.layers[0].trainable} == {
        unit.block for unit in layers if first is not None and unit.block >= first and unit.block != "stem"
    } | ({"stem", "block1", "block2", "block3", "block4"} if first == "stem" else set())


def test_none_and_backbone(network):
    model, layers = network
    assert all(freeze.apply(freeze.none(), model, layers).trains)
    assert freeze.apply(freeze.none(), model, layers).frozen_variables == ()
    assert not any(freeze.apply(freeze.backbone(), model, layers).trains)
    assert trains(model) == []


def test_a_policy_forgets_what_another_left(network):
    model, layers = network
    freeze.apply(freeze.none(), model, layers)
    freeze.apply(freeze.last_layers(1), model, layers)
    assert trains(model) == ["block4_b"]


@pytest.mark.parametrize("policy", [freeze.last_layers, freeze.last_blocks])
@pytest.mark.parametrize("k", [-1, 99])
def test_too_many_unfrozen_names_the_limit(network, policy, k):
    model, layers = network
    limit = 9 if policy is freeze.last_layers else 5
    with pytest.raises(MisfitError, match=rf"unfrozen = {k}.*0 to {limit}"):
        freeze.apply(policy(k), model, layers)


@pytest.mark.parametrize(("momentum", "moved"), [(0.99, 0.1), (0.999, 0.1), (0.5, 0.5)])
def test_statistics_that_train_follow_their_batches_soon_enough(network, momentum, moved):
    """Those of a thousand updates would not have caught up when training is over; what is quicker stays so."""
    model, layers = network
    trained, frozen = model.get_layer("block4_a_bn"), model.get_layer("block3_left_bn")
    trained.momentum = frozen.momentum = momentum
    freeze.apply(freeze.last_layers(2), model, layers)
    trained.moving_mean.assign(np.zeros(24))
    trained(np.ones((2, 1, 1, 24), np.float32), training=True)
    np.testing.assert_allclose(trained.moving_mean.numpy(), moved, rtol=1e-5)
    assert frozen.momentum == momentum


def test_the_first_pattern_found_decides(network):
    model, layers = network
    rules = (("block3_left", "freeze"), ("block3|block4_b$", "train"), ("", "freeze"))
    freeze.apply(freeze.patterns(rules), model, layers)
    assert trains(model) == ["block3_right", "block3_right_bn", "block4_b"]


def test_a_pattern_that_decides_nothing_is_an_error(network):
    with pytest.raises(ModelError, match=r"'blok4' decides for no layer; the layers are stem_conv"):
        freeze.apply(freeze.patterns((("blok4", "train"), ("", "freeze"))), *network)
    # It is found, but an earlier rule decides.
    with pytest.raises(ModelError, match="'block4_a' decides for no layer"):
        freeze.apply(freeze.patterns((("block4", "train"), ("block4_a", "freeze"), ("", "freeze"))), *network)


def test_a_layer_without_a_rule_is_an_error(network):
    with pytest.raises(ModelError, match="no rule is for stem_conv"):
        freeze.apply(freeze.patterns((("block", "train"),)), *network)


def test_a_broken_pattern_is_an_error(network):
    with pytest.raises(ConfigError, match="no regular expression"):
        freeze.apply(freeze.patterns((("block(", "train"),)), *network)


def test_the_account_tells_what_trains(network):
    frozen = freeze.apply(freeze.last_layers(3), *network)
    assert frozen.summary().startswith("3 of the backbone's 9 weight layers train, in block3, block4;")
    rows = frozen.table().splitlines()[2:]
    assert len(rows) == 9
    assert sum(row.endswith("| yes |") for row in rows) == 3
    total = sum(int(row.split("|")[3].replace(",", "")) for row in rows)
    assert total == network[0].count_params()
    assert "all 9 weight layers" in freeze.apply(freeze.backbone(), *network).summary()


def test_frozen_weights_and_statistics_stay_bit_for_bit(draw, assemble, arrays, part):
    made = assemble(draw(4), freeze.last_layers(2), Fit(batch_size=4))
    weights = made.detector.network.weights
    before = arrays(weights)
    batch = next(iter(made.source.batches([(i, 0) for i in range(4)], 4)))
    for _ in range(3):
        made.learner.update([part(batch)], 1e-2)
    made.frozen.verify()
    frozen = {id(variable) for variable in made.frozen.frozen_variables}
    changed = {v.path for v, value in zip(weights, before, strict=True) if not np.array_equal(v.numpy(), value)}
    assert changed == {v.path for v in weights if id(v) not in frozen}
    assert any("moving_mean" in path for path in changed)


@pytest.mark.parametrize("name", ["kernel", "moving_variance"])
def test_a_change_of_anything_frozen_is_noticed(network, name):
    frozen = freeze.apply(freeze.last_layers(2), *network)
    frozen.verify()
    variable = next(v for v in frozen.frozen_variables if v.name == name)
    value = variable.numpy().copy()
    value.flat[0] = np.nextafter(value.flat[0], np.inf, dtype=value.dtype)
    variable.assign(value)
    with pytest.raises(ModelError, match="frozen weights changed"):
        frozen.verify()


def test_a_frozen_normalization_uses_its_statistics_in_training(network):
    model, layers = network
    freeze.apply(freeze.backbone(), model, layers)
    pictures = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(pictures, training=True)),
        keras.ops.convert_to_numpy(model(pictures, training=False)),
    )

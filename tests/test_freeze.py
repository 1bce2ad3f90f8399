"""Frozen means bit for bit, and exactly what was asked for trains."""

import numpy as np
import pytest

from tlx import freeze
from tlx.errors import ConfigError, MisfitError, ModelError
from tlx.fit import Fit
from tlx.freeze import Freeze, Phase, Span
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


def test_first_the_head_then_the_last_layers(network):
    model, layers = network
    policy = freeze.head_then_last_layers(3, head_share=0.2)
    assert policy.spans(10) == (Span(0, 0, 2, 10), Span(1, 2, 10, 10))
    assert not any(freeze.apply(policy, model, layers, 0).trains)
    assert trains(model) == []
    later = freeze.apply(policy, model, layers, 1)
    assert later.trains == (False,) * 6 + (True,) * 3
    for share in (0.0, 1.0):
        with pytest.raises(ConfigError, match=r"head_share = .* makes no sense.*freezes\.backbone"):
            freeze.head_then_last_layers(3, share)


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


def test_rates_are_those_of_the_first_pattern_found(network):
    rates = (("block4_b$", 0.1), ("block4", 0.5), ("head", 2.0))
    policy = freeze.patterns((("block[34]", "train"), ("", "freeze")), rates)
    found = freeze.apply(policy, *network).rates
    assert found.head == 2.0
    by_layer = {
        v.path.split("/")[-2]: found.groups.get(id(v))
        for unit in network[1]
        for part in unit.layers
        for v in part.weights
    }
    assert {name: rate for name, rate in by_layer.items() if rate} == {
        "block4_a": ("block4", 0.5),
        "block4_a_bn": ("block4", 0.5),
        "block4_b": ("block4_b$", 0.1),
    }
    assert freeze.apply(freeze.last_layers(2), *network).rates == freeze.Rates()


def test_a_rate_for_nothing_that_trains_is_an_error(network):
    rules = (("block4", "train"), ("", "freeze"))
    with pytest.raises(ModelError, match=r"rate of 'block3' is for no layer that trains; these are block4_a, block4_b"):
        freeze.apply(freeze.patterns(rules, (("block3", 0.5),)), *network)
    with pytest.raises(ConfigError, match=r"rates: the rate of 'block4' is -1\.0"):
        freeze.patterns(rules, (("block4", -1.0),))
    with pytest.raises(ConfigError, match=r"rates: 'block\(' is no regular expression"):
        freeze.patterns(rules, (("block(", 1.0),))


def test_statistics_of_layers_that_train_follow_ten_updates_and_no_others_do(network):
    model, layers = network
    freeze.apply(freeze.last_layers(2), model, layers)
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
    freeze.apply(freeze.none(), model, layers)
    assert norm.momentum == 0.5


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

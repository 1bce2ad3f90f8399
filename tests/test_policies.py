"""Each policy that tlx brings unfreezes exactly what its arguments say, and refuses what does not fit."""

import pytest

from tlx import freeze, policies
from tlx.errors import ConfigError, MisfitError, ModelError
from tlx.freeze import Span


def trains(model):
    return [layer.name for layer in model.layers if layer.trainable_weights]


@pytest.mark.parametrize("k", range(10))
def test_exactly_the_last_k_weight_layers_train(network, k):
    model, layers = network
    frozen = freeze.apply(policies.last_layers(k), model, layers)
    assert sum(frozen.trains) == k
    expected = {layer.name for unit in layers[len(layers) - k :] for layer in unit.layers}
    assert set(trains(model)) == expected
    assert len(frozen.frozen_variables) == sum(
        len(layer.weights) for layer in model.layers if layer.name not in expected
    )


@pytest.mark.parametrize(("k", "first"), [(0, None), (1, "block4"), (2, "block3"), (5, "stem")])
def test_the_last_blocks_train(network, k, first):
    model, layers = network
    freeze.apply(policies.last_blocks(k), model, layers)
    assert {unit.block for unit in layers if unit.layers[0].trainable} == {
        unit.block for unit in layers if first is not None and unit.block >= first and unit.block != "stem"
    } | ({"stem", "block1", "block2", "block3", "block4"} if first == "stem" else set())


def test_none_and_backbone(network):
    model, layers = network
    assert all(freeze.apply(policies.none(), model, layers).trains)
    assert freeze.apply(policies.none(), model, layers).frozen_variables == ()
    assert not any(freeze.apply(policies.backbone(), model, layers).trains)
    assert trains(model) == []


@pytest.mark.parametrize("policy", [policies.last_layers, policies.last_blocks])
@pytest.mark.parametrize("k", [-1, 99])
def test_too_many_unfrozen_names_the_limit(network, policy, k):
    model, layers = network
    limit = 9 if policy is policies.last_layers else 5
    with pytest.raises(MisfitError, match=rf"unfrozen = {k}.*0 to {limit}"):
        freeze.apply(policy(k), model, layers)


def test_the_first_pattern_found_decides(network):
    model, layers = network
    rules = (("block3_left", "freeze"), ("block3|block4_b$", "train"), ("", "freeze"))
    freeze.apply(policies.patterns(rules), model, layers)
    assert trains(model) == ["block3_right", "block3_right_bn", "block4_b"]


def test_a_pattern_that_decides_nothing_is_an_error(network):
    with pytest.raises(ModelError, match=r"'blok4' decides for no layer; the layers are stem_conv"):
        freeze.apply(policies.patterns((("blok4", "train"), ("", "freeze"))), *network)
    # It is found, but an earlier rule decides.
    with pytest.raises(ModelError, match="'block4_a' decides for no layer"):
        freeze.apply(policies.patterns((("block4", "train"), ("block4_a", "freeze"), ("", "freeze"))), *network)


def test_a_layer_without_a_rule_is_an_error(network):
    with pytest.raises(ModelError, match="no rule is for stem_conv"):
        freeze.apply(policies.patterns((("block", "train"),)), *network)


def test_a_broken_pattern_is_an_error(network):
    with pytest.raises(ConfigError, match="no regular expression"):
        freeze.apply(policies.patterns((("block(", "train"),)), *network)


def test_first_the_head_then_the_last_layers(network):
    model, layers = network
    policy = policies.head_then_last_layers(3, head_share=0.2)
    assert policy.spans(10) == (Span(0, 0, 2, 10), Span(1, 2, 10, 10))
    assert not any(freeze.apply(policy, model, layers, 0).trains)
    assert trains(model) == []
    later = freeze.apply(policy, model, layers, 1)
    assert later.trains == (False,) * 6 + (True,) * 3
    for share in (0.0, 1.0):
        with pytest.raises(ConfigError, match=r"head_share = .* makes no sense.*freezes\.backbone"):
            policies.head_then_last_layers(3, share)


@pytest.mark.parametrize("policy", [policies.last_layers, policies.last_blocks, policies.head_then_last_layers])
def test_batch_norm_may_stay_frozen_in_layers_that_train(network, policy):
    model, layers = network
    chosen = policy(3, batch_norm="frozen")
    last = len(chosen.phases) - 1
    frozen = freeze.apply(chosen, model, layers, last)
    names = {layer.name for layer in model.layers if layer.trainable_weights}
    assert {"block4_a", "block4_b"} <= names
    assert not any(name.endswith("_bn") for name in names)
    assert {"moving_mean", "moving_variance", "gamma", "beta"} <= {v.name for v in frozen.frozen_variables}
    trained = freeze.changing(chosen, model, model, layers)
    assert {v.path.split("/")[-2] for v in trained} == names
    assert chosen.name.endswith(", batch_norm='frozen')")
    freeze.apply(policy(3), model, layers, last)
    assert model.get_layer("block4_a_bn").trainable


def test_rates_are_those_of_the_first_pattern_found(network):
    rates = (("block4_b$", 0.1), ("block4", 0.5), ("head", 2.0))
    policy = policies.patterns((("block[34]", "train"), ("", "freeze")), rates)
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
    assert freeze.apply(policies.last_layers(2), *network).rates == freeze.Rates()


def test_a_rate_for_nothing_that_trains_is_an_error(network):
    rules = (("block4", "train"), ("", "freeze"))
    with pytest.raises(ModelError, match=r"rate of 'block3' is for no layer that trains; these are block4_a, block4_b"):
        freeze.apply(policies.patterns(rules, (("block3", 0.5),)), *network)
    with pytest.raises(ConfigError, match=r"rates: the rate of 'block4' is -1\.0"):
        policies.patterns(rules, (("block4", -1.0),))
    with pytest.raises(ConfigError, match=r"rates: 'block\(' is no regular expression"):
        policies.patterns(rules, (("block(", 1.0),))

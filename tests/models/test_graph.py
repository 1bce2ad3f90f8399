"""Weight layers in order, and a network in two parts that are together what it was."""

from dataclasses import replace

import numpy as np
import pytest

from tlx import freeze, policies
from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.backbone import Tap, choose_taps
from tlx.models.graph import cut, describe_taps, prune, split_after, steps, weight_layers
from tlx.registry import backbones, discover

MOBILE = r"^(?:bn_)?(Conv1|expanded_conv|block_\d+)"
SIZE = (64, 64)
TINY_LAYERS = [
    ("stem_conv", "stem"),
    ("block1_a", "block1"),
    ("block1_b", "block1"),
    ("block2_a", "block2"),
    ("block2_b", "block2"),
    ("block3_left", "block3"),
    ("block3_right", "block3"),
    ("block4_a", "block4"),
    ("block4_b", "block4"),
]


@pytest.fixture
def network(tiny):
    """The tiny backbone with all its taps as its outputs, each layer's twice: here both forms are one."""
    keras.utils.set_random_seed(0)
    backbone = tiny()
    base, _ = backbone.build(SIZE)
    return prune(base, backbone.taps), backbone.blocks


@pytest.fixture(scope="module")
def mobile():
    keras.utils.set_random_seed(0)
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(*SIZE, 3), alpha=0.35)
    names = ("block_5_add", "block_12_add", "block_16_project_BN")
    return keras.Model(base.inputs[0], [base.get_layer(name).output for name in names])


def pictures(seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (2, *SIZE, 3)).astype(np.float32)


def assert_whole(network, parts):
    whole = network(pictures(), training=False)
    together = parts.finish(parts.start(pictures()), training=False)
    assert len(whole) == len(together)
    for a, b in zip(whole, together, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def trains(model):
    return {layer.name for layer in model.layers if layer.trainable_weights} if model is not None else set()


def test_weight_layers_are_in_order_and_own_their_normalizations(network):
    network, blocks = network
    layers = weight_layers(network, blocks)
    assert sorted((unit.name, unit.block) for unit in layers) == sorted(TINY_LAYERS)
    assert [unit.block for unit in layers] == [block for _, block in TINY_LAYERS]
    for unit in layers:
        norm = [f"{unit.name}_bn"] if unit.name != "block4_b" else []
        assert [layer.name for layer in unit.layers] == [unit.name, *norm]


def test_every_weight_of_a_mobilenet_belongs_to_one_weight_layer(mobile):
    layers = weight_layers(mobile, MOBILE)
    assert (
        len(layers) == 51
    )  # The stem, 2 in the first block and 3 in each of 16 more; the last 1x1 is behind the taps.
    assert all(len(unit.layers) == 2 for unit in layers)
    assert all("BatchNormalization" in type(unit.layers[1]).__name__ for unit in layers)
    assert {id(w) for unit in layers for ly in unit.layers for w in ly.weights} == {id(w) for w in mobile.weights}


def test_a_normalization_alone_stands_for_itself():
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="first")(x)
    x = keras.layers.Conv2D(4, 1, name="conv")(x)
    names = [[layer.name for layer in unit.layers] for unit in weight_layers(keras.Model(image, x), r"^(none)")]
    assert names == [["first"], ["conv"]]


@pytest.mark.parametrize("k", range(len(TINY_LAYERS) + 1))
def test_prefix_and_suffix_are_the_whole_network(network, k):
    network, blocks = network
    layers = weight_layers(network, blocks)
    freeze.apply(policies.last_layers(k), network, layers)
    parts = cut(network, blocks)
    assert trains(parts.prefix) == set()
    assert trains(parts.suffix) == {ly.name for unit in layers[len(layers) - k :] for ly in unit.layers}
    assert_whole(network, parts)


@pytest.mark.parametrize("k", [0, 1, 3, 20, 44, 51])
def test_a_mobilenet_is_whole_wherever_it_is_cut(mobile, k):
    layers = weight_layers(mobile, MOBILE)
    freeze.apply(policies.last_layers(k), mobile, layers)
    parts = cut(mobile, MOBILE)
    assert trains(parts.prefix) == set()
    assert len(trains(parts.suffix)) == 2 * k
    assert_whole(mobile, parts)


def test_all_frozen_leaves_nothing_to_compute_again(network):
    network, blocks = network
    freeze.apply(policies.backbone(), network, weight_layers(network, blocks))
    parts = cut(network, blocks)
    assert parts.suffix is None
    assert parts.shapes == [(8, 8, 16), (4, 4, 24), (2, 2, 24)]


def test_all_trainable_leaves_nothing_frozen_but_plain_operations(network):
    network, blocks = network
    freeze.apply(policies.none(), network, weight_layers(network, blocks))
    assert cut(network, blocks).prefix.weights == []


def test_the_cut_is_the_narrowest_place_of_the_block(network):
    network, blocks = network
    rules = (("block3_right", "train"), ("", "freeze"))
    freeze.apply(policies.patterns(rules), network, weight_layers(network, blocks))
    # Right before block3_right the output of block3_left would be needed as well, which is cheap to compute again.
    assert cut(network, blocks).shapes == [(8, 8, 16)]
    assert_whole(network, cut(network, blocks))


def test_a_cut_leaves_the_network_as_it_was(network):
    network, blocks = network
    freeze.apply(policies.last_layers(2), network, weight_layers(network, blocks))
    before = network(pictures())
    for _ in range(2):
        parts = cut(network, blocks)
        assert_whole(network, parts)
        assert [step.operation.name for step in steps(network)][-1] in ("block4_add", "add")
    for a, b in zip(before, network(pictures()), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("after", [lambda x: x, lambda x: x + 1.0])
def test_a_layer_that_is_used_twice_is_refused(after):
    image = keras.Input((8, 8, 3))
    shared = keras.layers.Conv2D(3, 3, padding="same")
    with pytest.raises(ModelError, match="used more than once"):
        steps(keras.Model(image, after(shared(shared(image)))))


def test_plain_operations_keep_their_constants(network):
    constants = [step.constants for step in steps(network[0]) if "127.5" in step.constants]
    assert len(constants) == 1


def test_pruning_keeps_what_the_taps_need_in_their_order(tiny):
    backbone = tiny()
    base, _ = backbone.build(SIZE)
    fine, middle = choose_taps(backbone.taps, (8, 16), "test")
    pruned = prune(base, [middle, replace(fine, pool="max"), replace(middle, name="mean", pool="avg")])
    assert [unit.name for unit in weight_layers(pruned, backbone.blocks)] == [name for name, _ in TINY_LAYERS[:7]]
    maps, largest, mean = (output.numpy() for output in pruned(pictures()))
    np.testing.assert_array_equal(largest, base_output(base, fine).max((1, 2)))
    np.testing.assert_array_equal(maps, base_output(base, middle))
    np.testing.assert_allclose(mean, maps.mean((1, 2)), rtol=1e-5)


def base_output(base, tap):
    return keras.Model(base.inputs[0], base.get_layer(tap.layer).output)(pictures()).numpy()


def test_taps_are_described_as_they_were_built(tiny):
    backbone = tiny()
    base, _ = backbone.build((64, 97))
    taps = [*choose_taps(backbone.taps, (8, 16, 32), "test"), replace(backbone.final, pool="avg")]
    described = describe_taps(prune(base, taps), taps)
    assert described == {
        "stride8": (8, 13, 16, 8),
        "stride16": (4, 7, 24, 16),
        "stride32": (2, 4, 24, 32),
        "final": (1, 1, 24, 32),
    }


def test_the_cache_holds_vectors_where_a_head_pools(tiny):
    backbone = tiny()
    base, _ = backbone.build(SIZE)
    pruned = prune(base, [replace(backbone.final, pool="avg")])
    freeze.apply(policies.backbone(), pruned, weight_layers(pruned, backbone.blocks))
    parts = cut(pruned, backbone.blocks)
    assert parts.suffix is None
    assert parts.shapes == [(24,)]


def test_frozen_maps_are_pooled_before_the_cut_though_later_layers_train(tiny):
    backbone = tiny()
    base, _ = backbone.build(SIZE)
    pruned = prune(base, [replace(backbone.taps[0], pool="avg"), replace(backbone.final, pool="avg")])
    freeze.apply(policies.last_layers(2), pruned, weight_layers(pruned, backbone.blocks))
    parts = cut(pruned, backbone.blocks)
    # The maps at stride 8 are needed as vectors only, and the rest begins at the concatenation.
    assert sorted(parts.shapes) == [(4, 4, 24), (16,)]
    assert trains(parts.suffix) == {"block4_a", "block4_a_bn", "block4_b"}
    assert_whole(pruned, parts)


@pytest.fixture(scope="module")
def resnet():
    keras.utils.set_random_seed(0)
    discover()
    backbone = backbones.entries["resnet50"].factory(weights=None)
    return backbone, backbone.build(SIZE)[0]


def test_a_last_stage_split_off_is_the_same_stage_at_any_size(resnet):
    backbone, base = resnet
    front, rest = split_after(base, next(tap for tap in backbone.taps if tap.stride == 16))
    np.testing.assert_array_equal(rest(front(pictures())).numpy(), base(pictures()).numpy())
    assert rest(np.zeros((3, 14, 14, 1024), np.float32)).shape == (3, 7, 7, 2048)
    assert rest(np.zeros((3, 7, 7, 1024), np.float32)).shape == (3, 4, 4, 2048)
    owned = {id(variable) for variable in base.variables}
    assert {id(v) for v in (*front.variables, *rest.variables)} == owned
    counts = [len(weight_layers(part, backbone.blocks)) for part in (base, front, rest)]
    assert counts == [53, 43, 10]
    rest.get_layer("conv5_block1_1_conv").trainable = False
    assert not base.get_layer("conv5_block1_1_conv").trainable


def test_a_place_that_others_pass_by_cannot_be_split_after(resnet):
    _, base = resnet
    with pytest.raises(ModelError, match=r"resnet50 cannot be split after conv5_block1_1_relu"):
        split_after(base, Tap("inner", 32, "conv5_block1_1_relu"))

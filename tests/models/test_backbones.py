"""The networks of keras.applications: same numbers, right taps, names that no session changes."""

import inspect
import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.backbones import NETWORKS
from tlx.models.detector import build
from tlx.models.graph import describe_taps, prune, weight_layers
from tlx.models.heads.fcos import Fcos
from tlx.models.weights import Restored, leaves
from tlx.registry import backbones

# Keras 3.15 reads its variables in a way that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ROWS = {network.name: network for network in NETWORKS}
# One of each kind, those that build in a second or two, with their number of blocks; TLX_SLOW=1 adds the others.
BLOCKS = {
    "vgg16": 5,
    "resnet50": 1 + 16,
    "resnet50_v2": 1 + 16,
    "mobilenet": 1 + 13,
    "mobilenet_v2": 1 + 17 + 1,
    "mobilenet_v3_small": 1 + 11 + 1,
    "inception_v3": 11,
    "xception": 14,
    "densenet121": 1 + 58 + 3,
    "efficientnet_v2_b0": 1 + 21 + 1,
    "convnext_tiny": 1 + 18,
}
# Whose levels are as "same" padding makes them: of ceil(side / stride) steps.
AS_SAME = re.compile("resnet|mobilenet|efficientnet")
# Whose blocks are wider within than at their ends.
WIDE_WITHIN = re.compile("mobilenet_v|efficientnet|convnext")
VALID_PADDING = re.compile("inception|xception|convnext")


def factory(name):
    return backbones.entries[name].factory


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def published(name, size):
    """The network as keras.applications has it, with statistics that make every preprocessing step matter."""
    model = getattr(keras.applications, ROWS[name].builder)(include_top=False, weights=None, input_shape=(*size, 3))
    rng = np.random.default_rng(0)
    for layer in leaves(model):
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            standard = {"0": [0.485, 0.456, 0.406], "1": [0.229**2, 0.224**2, 0.225**2], "2": 0}
            layer.load_own_variables({key: np.array(value) for key, value in standard.items()})
        elif isinstance(layer, keras.layers.BatchNormalization):
            for weight in layer.weights:
                weight.assign(weight + rng.uniform(0.05, 0.5, weight.shape))
    return model


def weighted(model):
    """The layers that have weights in both versions of a network, in order."""
    return [layer for layer in leaves(model) if layer.weights and not isinstance(layer, keras.layers.Normalization)]


def skip_the_large(name):
    if name not in BLOCKS and os.environ.get("TLX_SLOW") != "1":
        pytest.skip("large or one of a family; TLX_SLOW=1 builds all 40 networks, in four minutes")


@pytest.mark.parametrize("name", [*ROWS])
def test_a_network_is_the_published_one_with_preprocessing_and_taps(name):
    skip_the_large(name)
    size = (96, 128)
    backbone = factory(name)(weights=None)
    model, restored = backbone.build(size)
    assert restored is None
    assert (model.name, model.input.shape, model.input.dtype) == (name, (None, *size, 3), "float32")
    for tap in (*backbone.taps, backbone.final):
        slack = 4 if VALID_PADDING.match(name) else 0
        for side, got in zip(size, model.get_layer(tap.layer).output.shape[1:3], strict=True):
            assert math.ceil(side / tap.stride) - slack <= got <= math.ceil(side / tap.stride)
    assert [tap.stride for tap in backbone.taps if tap.name.startswith("stride")] == [4, 8, 16, 32]
    assert model.output is model.get_layer(backbone.final.layer).output
    taps = (*backbone.taps, backbone.final)
    for i, tap in enumerate(taps):
        layers = weight_layers(prune(model, [tap]), backbone.blocks)
        assert tap.depth == (len(layers), len({layer.block for layer in layers}))
        # What several taps need is what the deepest of them needs.
        layers = weight_layers(prune(model, taps[: i + 1]), backbone.blocks)
        assert max(tap.depth for tap in taps[: i + 1]) == (len(layers), len({layer.block for layer in layers}))
    channels = describe_taps(prune(model, backbone.taps), backbone.taps)
    ratios = [channels[f"expanded{s}"][2] / channels[f"stride{s}"][2] for s in (4, 8, 16, 32)]
    assert (min(ratios) > 2) if WIDE_WITHIN.match(name) else ratios == [1, 1, 1, 1]

    found = [match[1] for layer in weighted(model) if (match := re.match(backbone.blocks, layer.name))]
    assert len(set(found)) == BLOCKS.get(name, len(set(found))) > 4
    free = [layer.name for layer in weighted(model) if not re.match(backbone.blocks, layer.name)]
    assert len(free) <= len(weighted(model)) / 20 + 4

    reference = published(name, size)
    for layer, source in zip(weighted(model), weighted(reference), strict=True):
        for weight, value in zip(layer.weights, source.weights, strict=True):
            weight.assign(value)
    images = np.random.default_rng(1).integers(0, 256, (2, *size, 3)).astype(np.float32)
    prepared = getattr(keras.applications, ROWS[name].module).preprocess_input(images.copy())
    expected = numpy(reference(prepared))
    np.testing.assert_allclose(numpy(model(images)), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(32, 32), (97, 131)])
@pytest.mark.parametrize("name", [*ROWS])
def test_a_network_and_a_pyramid_are_built_for_the_smallest_and_for_odd_sizes(name, size):
    skip_the_large(name)
    backbone = factory(name)(weights=None)
    model, _ = backbone.build(size)
    for tap in (*backbone.taps, backbone.final):
        got = model.get_layer(tap.layer).output.shape[1:3]
        assert min(got) >= 1
        if AS_SAME.match(name) or (min(size) < 75 and name.startswith("inception")):
            assert got == tuple(math.ceil(side / tap.stride) for side in size)
    backbone = replace(backbone, build=lambda *_: (model, None))
    detector = build(backbone, Fcos(channels=8, strides=(4, 8, 16, 32)), ("cat",), size)
    places = sum(math.prod(output.shape[1:3]) for output in detector.network.outputs)
    assert len(detector.head.locations.centres) == detector.head.network.output_shape[0][1] == places


@pytest.mark.parametrize("size", [(33, 33), (34, 35), (97, 131)])
def test_mobilenet_pads_odd_sides_as_tensorflow_does(size):
    """Its stride-2 blocks computed anew by TensorFlow's own "same" convolution on the same weights."""
    model, _ = factory("mobilenet")(weights=None, alpha=0.25).build(size)
    images = np.random.default_rng(0).uniform(0, 255, (1, *size, 3)).astype(np.float32)
    for number in (2, 4, 6, 12):
        layer = model.get_layer(f"conv_dw_{number}")
        before = model.get_layer(f"conv_pad_{number}").input
        x, y = keras.Model(model.inputs[0], [before, layer.output])(images)
        same = keras.ops.depthwise_conv(x, layer.kernel, 2, "same")
        np.testing.assert_allclose(numpy(y), numpy(same), atol=1e-5)


def test_the_published_depths_agree_with_the_last_blocks():
    """Repeats and depth factors as the EfficientNet papers give them; a ResNet's name counts its convolutions."""
    depths = {"b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4, "b4": 1.8, "b5": 2.2, "b6": 2.6, "b7": 3.1}
    for variant, depth in depths.items():
        ends = [(stage, math.ceil(repeats * depth)) for stage, repeats in ((2, 2), (3, 2), (5, 3), (7, 1))]
        assert last_blocks(f"efficientnet_{variant}") == [f"block{stage}{chr(96 + count)}" for stage, count in ends]
    for variant, depth in {"b0": 1.0, "b1": 1.1, "b2": 1.2, "b3": 1.4}.items():
        ends = [(stage, math.ceil(repeats * depth)) for stage, repeats in ((2, 2), (3, 2), (5, 5), (6, 8))]
        assert last_blocks(f"efficientnet_v2_{variant}") == [f"block{stage}{chr(96 + count)}" for stage, count in ends]
    for depth in (50, 101, 152):
        for name in (f"resnet{depth}", f"resnet{depth}_v2"):
            counts = [int(re.search(r"block(\d+)", tap)[1]) for tap in list(ROWS[name].ends.values())[:3]]
            assert 3 * (sum(counts) + 3) + 2 == depth


def last_blocks(name):
    return [tap.partition("_")[0] for tap in ROWS[name].ends.values()]


def test_names_and_files_of_auto_numbered_networks_hold_in_any_session(tmp_path):
    first, _ = factory("xception")(weights=None).build((71, 71))
    source = published("xception", (71, 71))
    assert "conv2d" not in [layer.name for layer in source.layers]
    for file in ("w.weights.h5", "w.h5"):
        path = tmp_path / file
        source.save_weights(path) if file == "w.weights.h5" else source.save(path)
        second, report = factory("xception")(weights=str(path), min_restored=1.0).build((71, 71))
        assert [layer.name for layer in second.layers] == [layer.name for layer in first.layers]
        assert report == Restored(len(source.weights))
        for weight, value in zip(second.weights, source.weights, strict=True):
            np.testing.assert_array_equal(numpy(weight), numpy(value))


def test_the_published_efficientnet_file_means_the_same_downloaded_and_local(tmp_path, monkeypatch):
    """Keras corrects EfficientNet's preprocessing only when asked for "imagenet"; here it never needs that."""
    size, path = (64, 64), tmp_path / "efficientnetb0_notop.h5"
    source = published("efficientnet_b0", size)
    normalization = next(layer for layer in source.layers if isinstance(layer, keras.layers.Normalization))
    # The published file holds deviations where variances belong.
    values = {"0": [0.485, 0.456, 0.406], "1": [0.229, 0.224, 0.225], "2": 0}
    normalization.load_own_variables({key: np.array(value) for key, value in values.items()})
    source.save(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(path))

    official = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(*size, 3))
    downloaded, whole = factory("efficientnet_b0")().build(size)
    local, report = factory("efficientnet_b0")(weights=str(path), min_restored=1.0).build(size)
    assert report == whole == Restored(len(local.weights))
    assert len({re.match(r"^(stem|block\d[a-z]|top)_", layer.name)[1] for layer in weighted(local)}) == 1 + 16 + 1
    assert [layer.name for layer in local.layers] == [layer.name for layer in downloaded.layers]
    images = np.random.default_rng(1).integers(0, 256, (1, *size, 3)).astype(np.float32)
    expected = numpy(official(images))
    for model in (downloaded, local):
        np.testing.assert_allclose(numpy(model(images)), expected, atol=1e-5 * np.abs(expected).max())


def test_a_failed_download_and_another_networks_file_say_what_to_do(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise Exception("URL fetch failure on https://storage.googleapis.com")  # As Keras does.

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(ModelError, match=r"mobilenet_v3_small: Keras could not load.*URL fetch.*weights = '/path"):
        factory("mobilenet_v3_small")().build((64, 64))

    small, _ = factory("mobilenet_v3_small")(weights=None).build((64, 64))
    small.save_weights(tmp_path / "small.weights.h5")
    large = factory("mobilenet_v3_large")(weights=str(tmp_path / "small.weights.h5"))
    with pytest.raises(ModelError, match=r"small\.weights\.h5: restored \d+ of 262 .*mobilenet_v3_large\.min_restored"):
        large.build((64, 64))
    with pytest.raises(ModelError, match="'imagnet' is no file; did you mean 'imagenet'"):
        factory("vgg16")(weights="imagnet")


def test_a_narrower_mobilenet_has_narrower_taps():
    backbone = factory("mobilenet_v2")(weights=None, alpha=0.35)
    model, _ = backbone.build((64, 64))
    channels = describe_taps(prune(model, backbone.taps), backbone.taps)
    assert [channels[f"stride{stride}"][2] for stride in (4, 8, 16, 32)] == [8, 16, 32, 112]
    assert [channels[f"expanded{stride}"][2] for stride in (4, 8, 16, 32)] == [48, 96, 192, 1280]


def test_every_network_is_listed_without_tensorflow():
    code = "import sys, tlx.models.backbones as b; print(len(b.NETWORKS), {'tensorflow', 'keras'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split(maxsplit=1) == ["40", "set()\n"]
    for name, row in ROWS.items():
        entry = backbones.entries[name]
        assert entry.file.endswith("tlx/models/backbones.py")
        assert entry.summary == f"{row.builder} of keras.applications, with taps at strides 4, 8, 16 and 32."
        expected = {"weights": str | None, "min_restored": float} | ({"alpha": float} if row.scalable else {})
        assert {n: p.annotation for n, p in entry.signature.parameters.items()} == expected
        assert set(expected) <= set(re.findall(r"^  (\w+):", inspect.getdoc(entry.factory), re.M))

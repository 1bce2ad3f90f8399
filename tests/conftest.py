"""What several tests need: drawn pictures, a tiny network, and the parts of a training run put together."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tlx import freeze
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import Boxes
from tlx.events import Listener
from tlx.features import Features, source
from tlx.fit import Fit
from tlx.lazy import keras, tf
from tlx.learner import Learner
from tlx.models.backbone import Backbone, tap_table
from tlx.models.detector import build
from tlx.models.graph import cut, weight_layers
from tlx.models.heads.fcos import Fcos
from tlx.pipeline import Views
from tlx.windows import WholePicture

COLOURS = {"red": (230, 30, 30), "blue": (30, 60, 230)}


def pytest_configure(config):
    # Keras 3.15 reads its variables in a way that NumPy 2.4 deprecates.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="session")
def draw(tmp_path_factory):
    """Return a function that draws pictures with one filled box each, of alternating classes."""

    def draw(count=4, size=64, seed=0, splits=("",)):
        rng = np.random.default_rng(seed)
        folder = tmp_path_factory.mktemp("drawn")
        examples = []
        for i in range(count):
            pixels = rng.integers(90, 150, (size, size, 3), np.uint8)
            low, side = rng.integers(0, size // 2, 2), rng.integers(size // 4, size // 2, 2)
            x0, y0, x1, y1 = box = [*low.tolist(), *(low + side).tolist()]
            pixels[y0:y1, x0:x1] = COLOURS[list(COLOURS)[i % 2]]
            path = folder / f"{i}.png"
            Image.fromarray(pixels).save(path)
            truth = Boxes(np.array([box], np.float32), np.array([i % 2], np.int32), np.array([False]))
            examples.append(Example(path, size, size, truth, split=splits[i % len(splits)]))
        return Dataset("drawn", tuple(COLOURS), tuple(examples))

    return draw


@pytest.fixture(scope="session")
def tiny():
    """Return a function that describes a tiny random backbone: residuals, a branch, BatchNorm, and plain operations."""

    def build_network(size, pretrained=True, dropout=0.0):
        def conv(x, name, filters, stride=1, norm=True):
            x = keras.layers.Conv2D(filters, 3, stride, "same", name=name, bias_initializer="normal")(x)
            if norm:
                x = keras.layers.BatchNormalization(name=f"{name}_bn", moving_mean_initializer="normal")(x)
            return keras.layers.ReLU(name=f"{name}_relu")(x)

        image = keras.Input((*size, 3), name="image")
        x = conv(image / 127.5 - 1.0, "stem_conv", 8, 2)
        x = conv(x, "block1_a", 8, 2)
        x = keras.layers.Add(name="block1_add")([x, conv(x, "block1_b", 8)])
        x = conv(x, "block2_a", 16, 2)
        x = keras.layers.Add(name="block2_add")([x, conv(x, "block2_b", 16)])
        left, right = conv(x, "block3_left", 12, 2), conv(x, "block3_right", 12, 2)
        x = keras.layers.Concatenate(name="block3_concat")([left, right])
        x = keras.layers.Dropout(dropout, name="block4_drop")(x) if dropout else x
        x = conv(x, "block4_a", 24, 2)
        x = keras.layers.Add(name="block4_add")([x, conv(x, "block4_b", 24, norm=False)])
        return keras.Model(image, x, name="tiny"), None

    def tiny(dropout=0.0):
        taps, final = tap_table({8: "block2_add", 16: "block3_concat", 32: "block4_add"})
        network = partial(build_network, dropout=dropout)
        return Backbone("tiny", network, taps, final, r"^(stem|block\d)_")

    return tiny


@pytest.fixture(scope="session")
def assemble(tmp_path_factory, tiny):
    """Return a function that puts together everything that trains: detector, cut, frozen, source and learner.

    Tracing its two functions takes a learner seconds, which a few updates are not worth: they run as they are
    unless `traced`.
    """
    folder = tmp_path_factory.mktemp("features")

    def assemble(
        dataset,
        policy,
        fit=None,
        features=None,
        augment=None,
        dropout=0.0,
        traced=False,
        precision="float32",
        head=None,
        windows=WholePicture(),
    ):
        keras.utils.set_random_seed(0)
        head = head or Fcos(channels=16, depth=1)
        detector = build(tiny(dropout), head, dataset.classes, (64, 64), precision=precision)
        frozen = freeze.apply(policy, detector.backbone, weight_layers(detector.backbone, detector.blocks))
        parts = cut(detector.network, detector.blocks)
        features = features or Features(views=2, folder=folder)
        train = source(Views(dataset, (64, 64), augment, features.views, windows=windows), parts, features)
        learner = Learner(detector, parts, train, fit or Fit(), rates=frozen.rates)
        if not traced:
            learner._add, learner._apply = learner._add_graph, learner._apply_graph
        return SimpleNamespace(detector=detector, frozen=frozen, cut=parts, source=train, learner=learner)

    return assemble


@pytest.fixture(scope="session")
def arrays():
    """Return a function that copies the values of variables."""
    return lambda variables: [np.array(v.numpy()) for v in variables]


@pytest.fixture(scope="session")
def part():
    """Return a function that makes what a learner takes, (inputs, targets, seeds), of a batch that a source gives."""
    return lambda batch: (*batch[1:], tf.constant(batch[0][:, ::2]))


@pytest.fixture
def heard():
    """A listener that keeps in `told` how far it is told that things are."""

    class Heard(Listener):
        def __init__(self):
            self.told = []

        def progress(self, what, done, total, note=""):
            self.told.append((what, done, total))

    return Heard()


@pytest.fixture
def network(tiny):
    """A built tiny backbone, and its weight layers."""
    backbone = tiny()
    model, _ = backbone.build((32, 32))
    return model, weight_layers(model, backbone.blocks)

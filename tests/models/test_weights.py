"""Weights from files: every layout, wherever the layers stand, and what is said of the rest."""

import pickle
import shutil

import h5py
import numpy as np
import pytest

from tlx.errors import ModelError
from tlx.lazy import keras
from tlx.models.weights import Restored, restore, weights_file

# Keras 3.15 reads its variables in a way that NumPy 2.4 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WEIGHTS = 2 + 4 + 2  # of `network`: a convolution, a normalization and a depthwise convolution


def network(names=("conv", "bn", "depthwise"), name="net", filters=4, kernel=3, seed=0):
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(filters, kernel, padding="same", name=names[0], bias_initializer="normal")(x)
    x = keras.layers.BatchNormalization(name=names[1], moving_mean_initializer="normal")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", name=names[2], bias_initializer="normal")(x)
    return keras.Model(image, x, name=name)


def chain(names, seed=0):
    """Convolutions that all have the same shape, so that only names or order can tell them apart."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((8, 8, 4))
    for name in names:
        x = keras.layers.Conv2D(4, 3, padding="same", name=name)(x)
    return keras.Model(image, x, name="net")


def detector(backbone):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, keras.layers.Conv2D(7, 1, name="scores")(backbone(image)), name="detector")


def subclassed_detector(backbone):
    class Detector(keras.Model):
        def __init__(self):
            super().__init__()
            self.heads = [keras.layers.Conv2D(7, 1, name="scores")]
            self.backbone = backbone

        def call(self, images):
            return self.heads[0](self.backbone(images))

    model = Detector()
    model(np.zeros((1, 8, 8, 3), np.float32))
    return model


def arrays(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def same(model, other):
    return all(np.array_equal(a, b) for a, b in zip(arrays(model), arrays(other), strict=True))


def save(model, path):
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)
    return path


@pytest.mark.parametrize("file", ["w.weights.h5", "w.keras", "w.h5"])
@pytest.mark.parametrize("wrap", [lambda net: net, detector], ids=["alone", "in a detector"])
def test_every_layout_is_restored_whole_also_from_inside_a_detector(tmp_path, file, wrap):
    source, target = network(seed=1), network(seed=2)
    assert not same(source, target)
    report = restore(target, save(wrap(source), tmp_path / file), 1.0)
    assert report == Restored(WEIGHTS)
    assert same(source, target)


def test_a_backbone_is_found_in_a_subclassed_detector_and_a_detector_takes_its_backbone(tmp_path):
    source, target = network(seed=1), network(seed=2)
    restore(target, save(subclassed_detector(source), tmp_path / "w.weights.h5"), 1.0)
    assert same(source, target)

    whole = detector(network(seed=3))
    report = restore(whole, save(source, tmp_path / "v.weights.h5"), 0.5)
    assert report == Restored(WEIGHTS, ("scores/kernel", "scores/bias"))
    assert str(report) == "restored 8 of 10 weights (2 missing: scores/kernel, scores/bias)"
    assert report.fraction == 0.8


@pytest.mark.parametrize("file", ["w.weights.h5", "w.h5"])
def test_a_partial_file_is_accounted_for_and_the_floor_leaves_the_model_alone(tmp_path, file):
    path = save(network(("other", "bn", "depthwise"), filters=5), tmp_path / file)
    target = network(("conv", "bn", "depthwise"))
    before = arrays(target)
    with pytest.raises(ModelError, match=r"restored 0 of 8 weights .* backbones\.net\.min_restored = 0\.5.*other"):
        restore(target, path, 0.5)

    path = save(network(("other", "bn", "depthwise"), kernel=5), path)
    with pytest.raises(
        ModelError, match=r"restored 6 of 8 weights \(2 missing: conv/kernel, conv/bias\), which is 75%"
    ):
        restore(target, path, 0.9)
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays(target), strict=True))

    report = restore(target, path, 0.7)
    assert (report.restored, report.missing, report.mismatched) == (6, ("conv/kernel", "conv/bias"), ())
    assert np.array_equal(arrays(target)[0], before[0])


def test_another_shape_is_a_mismatch(tmp_path):
    path = save(detector(network()), tmp_path / "w.weights.h5")
    target = detector(network(seed=1))
    assert restore(target, path, 1.0).fraction == 1
    image = keras.Input((8, 8, 3))
    wider = keras.Model(image, keras.layers.Conv2D(9, 1, name="scores")(network()(image)))
    assert restore(wider, path, 0.5) == Restored(WEIGHTS, (), ("scores/kernel", "scores/bias"))


def test_an_account_can_be_of_a_part_of_the_model_alone():
    image = keras.Input((8, 8, 3))
    middle = keras.layers.Conv2D(4, 3, name="a")(image)
    whole = keras.Model(image, keras.layers.Conv2D(5, 3, name="b")(middle))
    account = Restored(1, ("a/bias", "b/bias"), ("b/kernel",))
    assert account.within(keras.Model(image, middle)) == Restored(1, ("a/bias",))
    assert account.within(whole) == account


@pytest.mark.parametrize("file", ["w.weights.h5", "w.h5"])
def test_auto_numbered_layers_are_taken_by_order_and_only_if_all_fit(tmp_path, file):
    source = chain(("conv2d_7", "conv2d_8", "conv2d_9"), seed=1)
    path = save(source, tmp_path / file)
    # By name, conv2d_8 and conv2d_9 would get each other's neighbours.
    target = chain(("conv2d_8", "conv2d_9", "conv2d_10"), seed=2)
    assert restore(target, path, 1.0) == Restored(6)
    assert same(source, target)
    with pytest.raises(ModelError, match="restored 0 of 8"):
        restore(network(("a", "b", "c")), path, 0.1)


def test_a_file_without_names_is_read_by_class_and_counter(tmp_path):
    source, target = network(seed=1), network(seed=2)
    path = save(detector(source), tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        file.visititems(lambda _, item: item.attrs.pop("name", None) and None)
    assert restore(target, path, 1.0) == Restored(WEIGHTS)
    assert same(source, target)


def test_a_name_that_occurs_twice_is_not_guessed(tmp_path):
    image = keras.Input((8, 8, 3))
    twice = [network(name="left", seed=1), network(name="right", seed=2)]
    both = keras.Model(image, keras.layers.Add()([net(image) for net in twice]))
    path = save(both, tmp_path / "w.weights.h5")
    with h5py.File(path, "r+") as file:
        del file["layers/functional_1/layers/depthwise_conv2d"]
        del file["layers/functional/layers/conv2d"]
    report = restore(network(), path, 0.3)
    assert report.restored == 4
    assert report.mismatched == ("bn/gamma", "bn/beta", "bn/moving_mean", "bn/moving_variance")


def test_what_a_layer_derives_from_its_weights_is_refreshed(tmp_path):
    def normalizing():
        image = keras.Input((3,))
        return keras.Model(image, keras.layers.Normalization(name="scale")(image))

    source, target = normalizing(), normalizing()
    source.get_layer("scale").adapt(np.array([[1, 2, 3], [3, 6, 9]], np.float32))
    restore(target, save(source, tmp_path / "w.weights.h5"), 1.0)
    out = keras.ops.convert_to_numpy(target(np.array([[3, 6, 9]], np.float32)))
    assert out == pytest.approx(np.ones((1, 3)))


@pytest.mark.parametrize("file", ["w.weights.h5", "w.keras", "w.h5"])
def test_a_truncated_file_is_one_error_that_names_it(tmp_path, file):
    data = save(network(), tmp_path / file).read_bytes()
    target, cut = network(), tmp_path / ("cut-" + file)
    for length in np.linspace(0, len(data) - 1, 12).astype(int):
        cut.write_bytes(data[:length])
        with pytest.raises(ModelError, match=f"{cut.name}: cannot be read"):
            restore(target, cut, 0.5)


class Planted:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_a_pickle_and_a_foreign_archive_are_refused_unread(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Planted()))
    with pytest.raises(ModelError, match=r"model\.pth: cannot be read as Keras weights"):
        restore(network(), path, 0.5)
    path = shutil.make_archive(tmp_path / "foreign", "zip", tmp_path)
    with pytest.raises(ModelError, match=r"foreign\.zip: cannot be read.*model\.weights\.h5"):
        restore(network(), tmp_path / "foreign.zip", 0.5)


def test_links_and_data_kept_outside_the_file_are_not_followed(tmp_path):
    elsewhere = save(network(), tmp_path / "elsewhere.weights.h5")
    for link in (h5py.ExternalLink(elsewhere, "/layers"), h5py.SoftLink("/missing")):
        path = tmp_path / "linked.weights.h5"
        with h5py.File(path, "w") as file:
            file["layers"] = link
        with pytest.raises(ModelError, match="restored 0 of 8"):
            restore(network(), path, 0.5)
    (tmp_path / "secret").write_bytes(bytes(432))
    with h5py.File(tmp_path / "outside.weights.h5", "w") as file:
        group = file.create_group("layers/conv2d/vars")
        group.attrs["name"] = "conv"
        group.create_dataset("0", (3, 3, 3, 4), "f4", external=[(tmp_path / "secret", 0, 432)])
        group["1"] = np.zeros(4, np.float32)
    with pytest.raises(ModelError, match="restored 0 of 8"):
        restore(network(), tmp_path / "outside.weights.h5", 0.1)


def test_weights_are_imagenet_none_or_a_file(tmp_path):
    file = tmp_path / "w.weights.h5"
    file.touch()
    assert weights_file("backbones.net", "imagenet", "imagenet", 0.9) is None
    assert weights_file("backbones.net", "imagenet", None, 0.9) is None
    assert weights_file("backbones.net", "imagenet", str(file), 0.9) == file
    with pytest.raises(ModelError, match=r"backbones\.net\.weights = 'imagnet' is no file; did you mean 'imagenet'"):
        weights_file("backbones.net", "imagenet", "imagnet", 0.9)
    with pytest.raises(ModelError, match=r"min_restored = 90: expected a fraction"):
        weights_file("backbones.net", "imagenet", str(file), 90)

"""Half precision computes faster where there is hardware for it, and learns the same."""

import numpy as np
import pytest

from tlx import policies
from tlx.errors import ConfigError, ModelError
from tlx.events import Listener
from tlx.features import Features, _key
from tlx.fit import Fit, fit
from tlx.lazy import keras, tf
from tlx.models.detector import build
from tlx.models.heads.fcos import Fcos
from tlx.predict import Predictor

UNFROZEN = policies.last_layers(1)


@pytest.fixture(scope="module")
def learning(draw, assemble, part):
    """Return a function that gives a learner of one precision, its parts, and one batch of four."""
    dataset = draw(4)

    def learning(precision, policy=UNFROZEN, features=None, **settings):
        made = assemble(dataset, policy, Fit(batch_size=4, **settings), features, precision=precision)
        made.batch = part(next(iter(made.source.batches(made.source.views.units, 4))))
        return made

    return learning


def trained(made, updates=6):
    """The losses of a few updates by the same batch; one that overflows is begun again."""
    losses = []
    while len(losses) < updates:
        try:
            losses.append(made.learner.update([made.batch], 3e-3)["loss"])
        except OverflowError:
            assert made.learner.scale.used
    return losses


def learnt(made, arrays):
    """The losses of a few updates, by how much they changed the weights, and the losses of an evaluation then."""
    before = arrays(made.learner.variables)
    losses = trained(made)
    changes = [(now - then).ravel() for now, then in zip(arrays(made.learner.variables), before, strict=True)]
    return losses, np.concatenate(changes), Predictor(made.detector, made.cut, made.source, 4)()[1]


@pytest.fixture(scope="module")
def exact(learning, arrays):
    return learnt(learning("float32"), arrays)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns_the_same(learning, exact, arrays, precision):
    losses, changes, evaluated = learnt(learning(precision), arrays)
    assert losses == pytest.approx(exact[0], rel=0.05)
    assert losses != exact[0]
    assert changes @ exact[1] > 0.9 * np.linalg.norm(changes) * np.linalg.norm(exact[1])
    assert evaluated == pytest.approx(exact[2], rel=0.1)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_weights_and_outputs_stay_float32(learning, precision):
    made = learning(precision)
    assert {str(v.dtype) for v in made.detector.model.weights if "seed" not in v.path} == {"float32"}
    half = precision.removeprefix("mixed_")
    assert {t.dtype for t in made.cut.prefix.outputs} == {half}
    found, sums = Predictor(made.detector, made.cut, made.source, 4).run(*made.batch[:2])
    assert (found["boxes"].dtype, found["scores"].dtype, sums["boxes"].dtype) == (tf.float32,) * 3
    assert keras.config.dtype_policy().name == "float32"


def test_the_policy_is_put_back_where_building_fails(tiny):
    with pytest.raises(ConfigError):
        build(tiny(), Fcos(strides=(4,)), ("a",), (64, 64), precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


class HalfHead(Fcos):
    def network(self, shapes, outputs):
        whole = super().network(shapes, outputs)
        return keras.Model(whole.inputs, [keras.layers.Activation("linear")(output) for output in whole.outputs])


def test_a_head_whose_outputs_are_not_float32_is_refused(tiny):
    build(tiny(), HalfHead(channels=8), ("a",), (64, 64))
    with pytest.raises(ModelError, match="HalfHead: its outputs must be float32"):
        build(tiny(), HalfHead(channels=8), ("a",), (64, 64), precision="mixed_bfloat16")


def test_features_of_another_precision_are_other_features(learning, tmp_path):
    cached, uncached = (
        learning("mixed_bfloat16", features=Features(views=2, folder=tmp_path, cache=cache)) for cache in (True, False)
    )
    assert (cached.source.cached, uncached.source.cached) == (True, False)
    np.testing.assert_allclose(trained(cached, 2), trained(uncached, 2), rtol=1e-3)
    made = learning("float32")
    settings = Features(views=2, folder=tmp_path)
    keys = {_key(one.source.views, one.cut, settings) for one in (made, cached, uncached)}
    assert len(keys) == 2


def test_an_overflow_changes_nothing_but_the_scale(learning, arrays):
    made = learning("mixed_float16", weight_decay=0.0)
    learner = made.learner
    learner.scale.factor.assign(2.0**60)
    before = arrays(learner.variables)
    with pytest.raises(OverflowError):
        learner.update([made.batch], 1e-2)
    for variable, value in zip(learner.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert learner.scale.factor.numpy() == 2.0**59
    loss = trained(made, 1)[0]
    assert learner.scale.factor.numpy() < 2.0**30
    assert loss == pytest.approx(trained(learning("mixed_float16"), 1)[0], rel=1e-3)


def test_the_scale_grows_again_and_is_part_of_the_state(learning, monkeypatch):
    monkeypatch.setattr("tlx.scale._PATIENCE", 3)
    learner = (made := learning("mixed_float16")).learner
    learner.scale.factor.assign(8.0)
    trained(made, 4)
    assert (learner.scale.factor.numpy(), learner.scale.sound.numpy()) == (16.0, 1)
    assert [v is learner.state[-2 + i] for i, v in enumerate(learner.scale.variables)] == [True, True]
    assert learning("float32").learner.scale.variables == []


def test_a_run_begins_an_update_that_overflows_again(learning, tmp_path):
    made = learning("mixed_float16", policy=policies.backbone(), epochs=2, evaluations=1)
    made.learner.scale.factor.assign(2.0**60)
    told, listener = [], Listener()
    listener.progress = lambda what, done, total, note: told.append((what, done, float(note.removeprefix("loss "))))
    fit(
        made.learner,
        made.source,
        made.learner.settings,
        seed=0,
        evaluate=lambda: (0.0, {}, {}),
        folder=tmp_path,
        listener=listener,
    )
    assert [(what, update) for what, update, _ in told] == [("training", 1), ("training", 2)]
    assert np.isfinite([loss for _, _, loss in told]).all()
    assert made.learner.scale.factor.numpy() < 2.0**60


def test_gradients_that_are_infinite_unscaled_are_the_update_s_own(learning):
    made = learning("mixed_float16")
    kernel = next(v for v in made.learner.variables if "block4_b/kernel" in v.path)
    kernel.assign(kernel * np.nan)
    assert np.isnan(trained(made, 1)[0])
    assert made.learner.scale.factor.numpy() == 1.0

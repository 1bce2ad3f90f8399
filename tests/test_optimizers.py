"""Each optimizer's first steps, against steps worked out by hand."""

import numpy as np
import pytest

from tlx.errors import ConfigError
from tlx.lazy import tf
from tlx.optimizers import Adam, AdamW, RmsProp, Sgd
from tlx.registry import optimizers as registered

RATE, DECAY = 0.1, 0.01
START, GRADIENTS = np.array([1.0, -2.0]), (np.array([0.5, 0.25]), np.array([-1.0, 0.75]))


def steps(optimizer, weight_decay=DECAY):
    """The weights after each gradient."""
    variable, built, seen = tf.Variable(START, dtype=tf.float32), optimizer.build(weight_decay), []
    built.build([variable])
    assert float(built.learning_rate) == 0.0
    for gradient in GRADIENTS:
        built.learning_rate.assign(RATE)
        built.apply([tf.constant(gradient, tf.float32)], [variable])
        seen.append(variable.numpy())
    return seen


def by_hand(step, weight_decay=DECAY):
    """The same, where `step(gradient, number from 1, memory)` is what is added after the decoupled weight decay."""
    weights, memory, seen = START, {}, []
    for number, gradient in enumerate(GRADIENTS, 1):
        weights = weights * (1 - RATE * weight_decay)
        weights = weights + step(gradient, number, memory)
        seen.append(weights)
    return seen


def sgd(momentum, nesterov=False):
    def step(gradient, _, memory):
        memory["v"] = momentum * memory.get("v", 0) - RATE * gradient
        return momentum * memory["v"] - RATE * gradient if nesterov else memory["v"]

    return step


def adam(b1=0.9, b2=0.999, epsilon=1e-7, amsgrad=False):
    def step(gradient, number, memory):
        memory["m"] = b1 * memory.get("m", 0) + (1 - b1) * gradient
        memory["v"] = b2 * memory.get("v", 0) + (1 - b2) * gradient**2
        memory["most"] = np.maximum(memory.get("most", 0), memory["v"]) if amsgrad else memory["v"]
        rate = RATE * np.sqrt(1 - b2**number) / (1 - b1**number)
        return -rate * memory["m"] / (np.sqrt(memory["most"]) + epsilon)

    return step


def rmsprop(rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    def step(gradient, _, memory):
        memory["v"] = rho * memory.get("v", 0) + (1 - rho) * gradient**2
        memory["g"] = rho * memory.get("g", 0) + (1 - rho) * gradient
        square = memory["v"] - memory["g"] ** 2 if centered else memory["v"]
        memory["m"] = momentum * memory.get("m", 0) + RATE * gradient / np.sqrt(square + epsilon)
        return -memory["m"]

    return step


CASES = [
    (AdamW(), adam()),
    (AdamW(0.8, 0.9, 1e-3), adam(0.8, 0.9, 1e-3)),
    (Adam(), adam()),
    (Adam(0.5, 0.1, amsgrad=True), adam(0.5, 0.1, amsgrad=True)),
    (Sgd(0.0), sgd(0.0)),
    (Sgd(), sgd(0.9)),
    (Sgd(0.5, nesterov=True), sgd(0.5, nesterov=True)),
    (RmsProp(), rmsprop()),
    (RmsProp(0.8, 0.9, 1.0), rmsprop(0.8, 0.9, 1.0)),
    (RmsProp(centered=True), rmsprop(centered=True)),
]


@pytest.mark.parametrize(("optimizer", "step"), CASES, ids=[str(optimizer) for optimizer, _ in CASES])
@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
def test_steps_are_those_of_the_formula(optimizer, step, weight_decay):
    # The rounding of float32 is larger where a mean is taken off a square.
    np.testing.assert_allclose(steps(optimizer, weight_decay), by_hand(step, weight_decay), rtol=2e-5)


def test_every_optimizer_is_tested_here():
    assert {type(optimizer) for optimizer, _ in CASES} == {
        entry.factory for entry in registered.entries.values() if entry.package == "tlx"
    }


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: AdamW(beta_1=1.0), "adamw.beta_1"),
        (lambda: Adam(beta_2=-0.1), "adam.beta_2"),
        (lambda: Adam(epsilon=0.0), "adam.epsilon"),
        (lambda: Sgd(momentum=1.0), "sgd.momentum"),
        (lambda: Sgd(momentum=0.0, nesterov=True), "sgd.nesterov"),
        (lambda: RmsProp(rho=1.0), "rmsprop.rho"),
        (lambda: RmsProp(momentum=-0.5), "rmsprop.momentum"),
    ],
)
def test_a_value_out_of_bounds_is_named(make, name):
    with pytest.raises(ConfigError, match=rf"optimizers\.{name} = "):
        make()

"""Optimizers: how a gradient becomes a step. Rates, weight decay and clipping are `fit`'s, and the same for all."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from tlx.errors import above, at_least, refuse_values
from tlx.lazy import keras
from tlx.registry import optimizers


class Optimizer(ABC):
    """The settings of an optimizer, of which one is built for each group of weights with a rate of its own.

    The weight decay is decoupled in all of them: a weight shrinks by learning rate x weight decay x weight before
    each step, and the gradient is left alone (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019).
    """

    @abstractmethod
    def build(self, weight_decay: float) -> Any:
        """Return a new `keras.optimizers.Optimizer` with learning rate 0.0, which is set before each update."""


@optimizers.register("adam")
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: steps by the gradient's running mean over the root of its running square.

    `beta_1` and `beta_2`, in 0..1, are how slowly the mean and the square follow; `epsilon` is added to the root.
    With `amsgrad` the square never shrinks. Since weight decay is decoupled here, this is the same as `adamw`.
    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015; as in `keras.optimizers.Adam`.
    """

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    amsgrad: bool = False

    def __post_init__(self):
        sound = {"beta_1": at_least(0, below=1), "beta_2": at_least(0, below=1), "epsilon": above(0)}
        refuse_values(f"optimizers.{type(self).__name__.lower()}", self, sound)

    def build(self, weight_decay: float) -> Any:
        return keras.optimizers.Adam(
            0.0, self.beta_1, self.beta_2, self.epsilon, amsgrad=self.amsgrad, weight_decay=weight_decay
        )


@optimizers.register("adamw")
@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW: Adam with decoupled weight decay.

    `beta_1` and `beta_2`, in 0..1, are how slowly the gradient's running mean and square follow; `epsilon` is added
    to the square's root. With `amsgrad` the square never shrinks.
    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; as in `keras.optimizers.AdamW`.
    """

    def build(self, weight_decay: float) -> Any:
        return keras.optimizers.AdamW(0.0, weight_decay, self.beta_1, self.beta_2, self.epsilon, amsgrad=self.amsgrad)


@optimizers.register("sgd")
@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent, with momentum.

    Each step is `momentum`, in 0..1, times the last one, minus the learning rate times the gradient; with `nesterov`
    the gradient counts as if that step had been taken already, which wants a momentum above 0. Learning rates are
    some ten times Adam's. Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013; as in `keras.optimizers.SGD`.
    """

    momentum: float = 0.9
    nesterov: bool = False

    def __post_init__(self):
        moves = self.momentum > 0 or not self.nesterov or "False where momentum is 0"
        refuse_values("optimizers.sgd", self, {"momentum": at_least(0, below=1), "nesterov": moves})

    def build(self, weight_decay: float) -> Any:
        return keras.optimizers.SGD(0.0, self.momentum, self.nesterov, weight_decay=weight_decay)


@optimizers.register("rmsprop")
@dataclass(frozen=True)
class RmsProp(Optimizer):
    """RMSprop: steps by the gradient over the root of its running square, with momentum if wanted.

    `rho`, in 0..1, is how slowly the square follows, `momentum`, in 0..1, how much of the last step is taken again;
    `epsilon` is added to the square. With `centered` the square of the running mean is taken off it. MobileNet and
    SSD were published with rho 0.9, momentum 0.9 and epsilon 1.0. Source: Tieleman and Hinton, "Lecture 6.5:
    rmsprop", 2012; as in `keras.optimizers.RMSprop`.
    """

    rho: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1e-7
    centered: bool = False

    def __post_init__(self):
        sound = {"rho": at_least(0, below=1), "momentum": at_least(0, below=1), "epsilon": above(0)}
        refuse_values("optimizers.rmsprop", self, sound)

    def build(self, weight_decay: float) -> Any:
        return keras.optimizers.RMSprop(
            0.0, self.rho, self.momentum, self.epsilon, self.centered, weight_decay=weight_decay
        )

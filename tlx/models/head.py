"""What a head is: the part of a model that learns from scratch, with its losses and its predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from tlx.models.backbone import Backbone, Tap

Size = tuple[int, int]
# Arrays [b, ...] by name: targets, outputs and predictions are such.
Tensors = Mapping[str, Any]
# Of each example, the sum of a loss [b], and the weight that the batch's sum is divided by [b].
Losses = dict[str, tuple[Any, Any]]


class TapShape(NamedTuple):
    """What a tap gives for an input of a certain size: [b, height, width, channels], at a stride in pixels.

    A pooled tap gives [b, channels]; its height and width are 1.
    """

    height: int
    width: int
    channels: int
    stride: int


class Head(ABC):
    """A head's settings, from which it is built for a backbone, a number of classes and an input size.

    `task` is the registered name of the task whose data it learns from and whose predictions it makes.
    `takes_rest` says whether the head takes over what of the backbone lies behind the last tap that it selects, with
    its pretrained weights, such as Faster R-CNN's C4 form does to compute it for each proposal.
    """

    task: ClassVar[str] = "detection"
    takes_rest: ClassVar[bool] = False

    @abstractmethod
    def select(self, backbone: Backbone) -> tuple[Tap, ...]:
        """Return those of a backbone's taps that it reads, in the order in which `build` and `forward` get them.

        This must not need TensorFlow: configurations are checked by it.

        Raises:
          ConfigError: the backbone has no such tap.
        """

    def refuse_size(self, size: Size) -> None:  # noqa: B027 - most heads refuse none
        """Raise a MisfitError if it cannot be trained at an input of `size` (height, width); by default any will do.

        This must not need TensorFlow, either.
        """

    @abstractmethod
    def build(self, taps: Sequence[TapShape], classes: int, size: Size) -> "BuiltHead":
        """Return the head with its layers, for taps of these shapes and an input of `size` (height, width).

        A head that `takes_rest` has a further argument `rest`: a functional `keras.Model` from maps [n, h, w, c] like
        the last tap's, of any height and width, to what is behind the backbone's last layer. It is for `forward` to
        call, with `training`, and none of the head's `parts`: its layers are the backbone's, frozen or not by the same
        policy and learnt at the same rate.
        """


class BuiltHead(ABC):
    """A head's layers and geometry.

    `parts` are its layers, as functional `keras.Model`s with float32 outputs: what trains, and what is saved.
    `loss_groups` names
    its losses, those together whose sums are divided by one and the same weight.
    """

    parts: tuple[Any, ...]
    loss_groups: tuple[tuple[str, ...], ...]

    @abstractmethod
    def forward(
        self, taps: Sequence[Any], targets: Tensors | None = None, training: bool = False, seeds: Any = None
    ) -> Tensors:
        """Return the head's outputs for taps [b, h, w, c].

        In training there are `targets`, the task's arrays, and `seeds` int32 [b, 2]: whatever is drawn at random
        must be drawn from an example's own seed by a stateless generator, so that it does not depend on how a
        batch is cut into parts.
        """

    @abstractmethod
    def losses(self, outputs: Tensors, targets: Tensors) -> Losses:
        """Return, for each loss, its sum over an example [b] and the example's weight [b], float32.

        A batch's loss is the sum over all names of (sum of sums) / max(sum of weights, 1), so that it can be added
        up in parts. Losses of one of `loss_groups` return the same weights.
        """

    @abstractmethod
    def predict(self, outputs: Tensors) -> Tensors:
        """Return dense predictions, float32: whatever `postprocess` takes, and export may leave as it is."""

    def postprocess(self, dense: Tensors) -> Tensors:
        """Return what the task makes a prediction of: by default, the dense predictions themselves."""
        return dense

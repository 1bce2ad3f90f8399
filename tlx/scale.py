"""The loss of a network that computes in float16, scaled so that small gradients are not lost."""

from typing import Any

from tlx.lazy import tf

_FIRST = 2.0**12
# After so many updates without an overflow, twice the scale is tried; the update that overflows is done again.
_PATIENCE = 500


class LossScale:
    """A factor on the loss, and the same on its gradients' inverse, for models with layers that compute in float16.

    It is halved where a gradient overflows, and doubled when none has for a while. Other models have none.
    """

    def __init__(self, model: Any):
        self.used = model.compute_dtype == "float16"
        self.factor = tf.Variable(_FIRST, trainable=False) if self.used else None
        self.sound = tf.Variable(0, trainable=False) if self.used else None

    @property
    def variables(self) -> list[Any]:
        """What an exact resume needs."""
        return [self.factor, self.sound] if self.used else []

    def up(self, loss: Any) -> Any:
        """Return what to take gradients of."""
        return loss * self.factor if self.used else loss

    def down(self, gradient: Any) -> Any:
        """Return a gradient of the loss itself."""
        return gradient / self.factor if self.used else gradient

    def learn(self, sound: bool) -> bool:
        """Take whether an update's gradients were finite, and return whether to do it again with less scale.

        At a scale of 1 it is not scaling that made them infinite.
        """
        if not sound:
            self.sound.assign(0)
            again = bool(self.factor > 1)
            self.factor.assign(tf.maximum(self.factor / 2, 1.0))
            return again
        self.sound.assign_add(1)
        if self.sound >= _PATIENCE:
            self.sound.assign(0)
            self.factor.assign(self.factor * 2)
        return False

"""Objects with named points as a task of its own: all that a package can bring to tlx, in the smallest form."""

from tlx_keypoints import augmentation, command, evaluator, freeze, head, reader, task

__all__ = ["augmentation", "command", "evaluator", "freeze", "head", "reader", "task"]

"""Affine maps of the plane as float64 [2, 3]: (x, y) goes to matrix @ (x, y, 1)."""

from typing import Literal

import numpy as np

Resize = Literal["letterbox", "stretch", "crop"]
Frame = tuple[int, int]


def scaled(x: float, y: float) -> np.ndarray:
    """Return the map that multiplies both coordinates."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0]])


def shifted(x: float, y: float) -> np.ndarray:
    """Return the map that adds to both coordinates."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def after(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the map that does `first` and then `second`; either may be [n, n + 1], as a map of colours is."""
    turn = second[:, :-1] @ first
    turn[:, -1] += second[:, -1]
    return turn


def about(centre: tuple[float, float], linear: np.ndarray) -> np.ndarray:
    """Return the map by `linear` [2, 2] that leaves `centre` (x, y) where it is."""
    middle = np.array(centre)
    return np.hstack([linear, (middle - linear @ middle)[:, None]])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the map back."""
    back = np.linalg.inv(matrix[:, :2])
    return np.hstack([back, -back @ matrix[:, 2:]])


def is_upright(matrix: np.ndarray) -> bool:
    """Return whether the map takes upright boxes to upright boxes: no rotation but by 90 degrees, and no shear."""
    (a, b, _), (c, d, _) = matrix.tolist()
    return (b == 0 and c == 0) or (a == 0 and d == 0)


def bounds(matrix: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the upright boxes [n, 4] around the four corners of `boxes` [n, 4] once these are mapped."""
    moved = (boxes.reshape(-1, 2, 2) if is_upright(matrix) else corners(boxes)) @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def corners(boxes: np.ndarray) -> np.ndarray:
    """Return the four corners [n, 4, 2] of boxes [n, 4], one after another around each."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def fit(width: float, height: float, size: Frame, resize: Resize = "letterbox") -> np.ndarray:
    """Return the map of a picture of this width and height into an input of `size` (height, width), centred.

    `letterbox` shows the whole picture undistorted, `stretch` fills the input with all of it, and `crop` fills the
    input with an undistorted part of it.
    """
    x, y = size[1] / width, size[0] / height
    if resize != "stretch":
        x = y = min(x, y) if resize == "letterbox" else max(x, y)
    return np.array([[x, 0.0, (size[1] - width * x) / 2], [0.0, y, (size[0] - height * y) / 2]])

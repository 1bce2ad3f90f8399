"""Predictions are in pixels of the picture itself, whatever way it was brought to the input's size."""

import numpy as np
import pytest
from PIL import Image

from tlx import policies
from tlx.augment import Picture, look, whole
from tlx.data.dataset import Dataset, Example
from tlx.data.targets import NO_BOXES
from tlx.predict import predict


def example(path, image):
    image.save(path)
    return Example(path, *image.size, NO_BOXES)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_pictures_are_resized_as_asked_and_boxes_go_back(draw, assemble, tmp_path, resize):
    made = assemble(draw(2), policies.backbone())
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 24, 3), np.uint8)).resize((128, 64))
    view = whole(Picture(0, 128, 64), (64, 64), resize)
    # The same pixels as a picture of the input's own size, which is shown as it is.
    square = Image.fromarray(look({0: picture}, view))
    examples = example(tmp_path / "wide.png", picture), example(tmp_path / "square.png", square)
    classes = made.detector.classes
    found, expected = (
        predict(made.detector, made.cut, Dataset("one", classes, (one,)), 1, resize=way)[0]
        for one, way in zip(examples, (resize, "letterbox"), strict=True)
    )
    scale, shift = ((2, 1), 0) if resize == "stretch" else ((1, 1), 32)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    # A box may reach past the part that is seen, in a picture that goes on there.
    boxes = np.clip(found.boxes, [shift, 0] * 2, [64 * scale[0] + shift, 64] * 2)
    np.testing.assert_allclose(boxes, expected.boxes * (scale * 2) + np.array([shift, 0] * 2), atol=1e-3)

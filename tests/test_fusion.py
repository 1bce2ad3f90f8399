"""Several looks at a picture become one prediction: mirrored, at other scales, and of what they agree on."""

from types import SimpleNamespace

import numpy as np
import pytest

from tlx import fusion, policies
from tlx.engines.tensorflow import TensorFlow
from tlx.errors import ConfigError
from tlx.fusion import Fusion, fuse, looks
from tlx.tasks.classification import Classification, ClassScores
from tlx.tasks.detection import Detection, Detections
from tlx.windows import WholePicture


def found(*rows, **extra):
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int32), extra
    )


def test_ways_are_named_and_what_is_none_is_refused():
    assert Fusion.of("mirror", "--fuse") == Fusion(mirror=True)
    assert Fusion.of("1.5, mirror,0.5", "--fuse") == Fusion(True, (1.5, 0.5))
    for wrong in ("miror", "1", "9", "0.1", "", "nan", "mirror,1.0"):
        with pytest.raises(ConfigError, match=r"--fuse=.*: expected 'mirror', scales"):
            Fusion.of(wrong, "--fuse")
    sizes = [size for size, _ in Fusion(True, (1.25, 0.1)).ways((320, 416))]
    assert sizes == [(320, 416)] * 2 + [(384, 512)] * 2 + [(32, 32)] * 2
    assert [how is None for _, how in Fusion(True, (1.25,)).ways((320, 416))] == [True, False, True, False]
    # What comes to a size that is there already would count double.
    assert [size for size, _ in Fusion(False, (1.03, 1.25, 1.2)).ways((320, 320))] == [(320, 320), (384, 384)]
    assert Fusion().ways((64, 64)) == [((64, 64), None)]


def test_boxes_that_agree_are_averaged_and_the_others_count_less():
    one = found((10, 10, 50, 50, 0.75, 0), (60, 60, 90, 90, 0.5, 1), angle=np.array([1, 2]))
    other = found((12, 10, 52, 50, 0.25, 0), (60, 60, 90, 90, 0.25, 0), angle=np.array([3, 4]))
    fused = Detection().fuse([one, other])
    assert fused.boxes.tolist() == [[10.5, 10, 50.5, 50], [60, 60, 90, 90], [60, 60, 90, 90]]
    assert fused.scores.tolist() == [0.5, 0.25, 0.125]
    assert (fused.labels.tolist(), fused.extra["angle"].tolist()) == ([0, 1, 0], [1, 2, 4])
    # Two that one look tells apart stay two.
    crowd = found((0, 0, 40, 40, 0.75, 0), (4, 0, 44, 40, 0.5, 0))
    assert Detection().fuse([crowd, crowd]).boxes.tolist() == crowd.boxes.tolist()
    assert len(Detection().fuse([found(), found()])) == 0


def test_scores_of_classes_are_averaged():
    looks = [ClassScores(np.array(row, np.float32)) for row in ((1.0, 0.0), (0.5, 0.5))]
    assert Classification().fuse(looks).scores.tolist() == [0.75, 0.25]


def test_what_is_done_once_before_pictures_are_looked_at_is_not_counted(draw, monkeypatch):
    """Building a network and choosing its engine take time that a way of looking does not cost."""
    clock = [0.0]

    def taking(seconds, made):
        def take(*_):
            clock[0] += seconds
            return made

        return take

    monkeypatch.setattr(fusion, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(fusion, "settle", taking(100, TensorFlow()))
    monkeypatch.setattr(fusion, "predict", taking(2, ["seen"]))
    ways = Fusion(True, (1.5,))
    reopened = taking(50, (None, None))
    seen = looks(ways, reopened, (64, 64), draw(1), 4, TensorFlow(), "letterbox", WholePicture())
    assert list(seen) == [(["seen"], 2.0)] * 4
    assert clock == [308.0]


def test_looks_are_fused_in_pixels_of_the_picture(draw, assemble):
    dataset = draw(4, size=96)
    made = assemble(dataset, policies.backbone())

    how = (lambda size: (made.detector, made.cut), (64, 64), dataset, 4, TensorFlow(), "letterbox", WholePicture())
    (plain, _), (mirrored, _) = looks(Fusion(True), *how)
    assert not any(np.array_equal(a.boxes, b.boxes) for a, b in zip(plain, mirrored, strict=True))

    fused = fuse([plain, mirrored], dataset)
    assert [len(one) > 0 for one in fused] == [True] * 4
    assert min(one.boxes.min() for one in fused) >= 0
    assert max(one.boxes.max() for one in fused) <= 96
    assert fuse([plain], dataset) == plain

"""What every head on a feature pyramid is to do: learn, and refuse settings that make no sense."""

import pytest

from tlx import policies
from tlx.errors import ConfigError
from tlx.fit import Fit
from tlx.models.boxes import iou
from tlx.models.heads.fcos import Fcos
from tlx.models.heads.gfl import Gfl
from tlx.pipeline import Unit
from tlx.predict import predict

HEADS = {"fcos": Fcos, "gfl": Gfl}


@pytest.mark.parametrize("name", HEADS)
def test_it_learns_to_find_what_is_drawn(name, draw, assemble, part):
    dataset, head = draw(4), HEADS[name](channels=16, depth=1)
    made = assemble(dataset, policies.none(), Fit(backbone_rate=1.0), traced=True, head=head)
    batch = part(next(iter(made.source.batches([Unit(i) for i in range(4)], 4))))
    for update in range(60):
        made.learner.update([batch], 1e-2 * min(1, (update + 1) / 5, (60 - update) / 30))
    for example, found in zip(dataset.examples, predict(made.detector, made.cut, dataset), strict=True):
        best = int(found.scores.argmax())
        assert found.labels[best] == example.objects.labels[0]
        assert iou(found.boxes[best], example.objects.boxes[0]).numpy() > 0.6


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("wrong", [{"channels": 12}, {"strides": (16, 8)}, {"min_score": 1.0}, {"nms": 0.0}])
def test_settings_that_make_no_sense_are_refused(name, wrong):
    with pytest.raises(ConfigError, match=rf"heads\.{name}\.{next(iter(wrong))}"):
        HEADS[name](**wrong)

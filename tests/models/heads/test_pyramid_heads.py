"""What every head on a feature pyramid is to do: learn, and refuse settings that make no sense."""

import pytest

from tlx import policies
from tlx.errors import ConfigError, MisfitError
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


@pytest.mark.parametrize("name", HEADS)
def test_levels_beyond_the_backbone_are_made_by_the_head(name, tiny, draw, assemble, part):
    head = HEADS[name](channels=16, depth=1, strides=(8, 16, 32, 64))
    dataset = draw(2)
    made = assemble(dataset, policies.none(), head=head)
    built = made.detector.head
    assert [tap.stride for tap in head.select(tiny())] == [8, 16, 32]
    assert [(built.locations.strides == stride).sum() for stride in head.strides] == [64, 16, 4, 1]
    assert built.locations.centres[-1].tolist() == [32, 32]
    batch = part(next(iter(made.source.batches([Unit(0), Unit(1)], 2))))
    before = [w.numpy() for w in built.network.weights if "coarser_64" in w.path]
    made.learner.update([batch], 1e-2)
    after = [w.numpy() for w in built.network.weights if "coarser_64" in w.path]
    assert before
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


def test_a_level_is_made_only_where_it_doubles_the_coarsest(tiny):
    with pytest.raises(MisfitError, match="no tap at stride 64"):
        Gfl(channels=16, depth=1, strides=(8, 16, 64)).select(tiny())

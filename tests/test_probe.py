"""What is measured grows with what is trained."""

import pytest

from tlx import policies, probe
from tlx.data.splits.parts import Splits
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.fcos import Fcos
from tlx.run import Run


def test_each_phase_has_a_need_of_its_own(draw, tiny, tmp_path, monkeypatch):
    measured, data = [], Splits(draw(4, size=64), draw(2, size=64, seed=1), None)
    # What each step took, in place of what the machine says.
    taken = {True: iter([3e8, 10e8, 12e8, 10e8, 14e8]), False: iter([30e8, 20e8, 21e8, 20e8, 25e8])}

    def peak(do):
        return next(taken[not measured[-1].detector.network.trainable_weights])

    class Noted(probe.Learner):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            measured.append(self)

    monkeypatch.setattr(probe, "Learner", Noted)
    monkeypatch.setattr(probe, "_peak", peak)
    policy = policies.head_then_last_layers(2)
    run = Run(data, tiny(), Fcos(channels=16), policy, Fit(), Features(folder=tmp_path), image_size=64)
    head, later = (probe.measure(run, phase, (2, 4), Listener()) for phase in (0, 1))
    assert len(measured) == 2
    assert 1e8 <= head["each"] < 1.1e8
    assert 0.5e8 <= later["each"] < 0.6e8
    assert (head["look"], later["look"]) == (2e8, 2.5e8)
    assert head["fixed"] == pytest.approx(8e8, abs=1e8)
    # Compiling takes more here than what comes after.
    assert later["fixed"] == pytest.approx(30e8, abs=1e8)


@pytest.mark.parametrize("cache", [True, False])
def test_lines_through_peaks(draw, tiny, tmp_path, heard, cache):
    data = Splits(draw(4, size=256), draw(2, size=256, seed=1), None)
    settings = Features(folder=tmp_path, cache=cache, views=1)
    run = Run(data, tiny(), Fcos(channels=16), policies.last_layers(1), Fit(), settings, image_size=256)
    need = probe.measure(run, 0, (2, 34), heard)
    # Pictures and features of this size take more than a tenth of a megabyte, and far less than a hundred.
    assert 1e5 < need["each"] < 1e8
    assert 1e8 < need["fixed"] < 2e10
    assert 0 <= need["look"] < 1e8
    assert 0 <= need["left"] < need["fixed"]
    assert heard.told == [("measuring memory", i, 2) for i in range(3)]
    assert not any(tmp_path.iterdir())

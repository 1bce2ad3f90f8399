"""The doctor at the start of a run: errors stop it, all of them told; warnings are told once per kind and kept."""

import json

import pytest

from tlx import run as room
from tlx.data.convert import convert
from tlx.data.dataset import Finding
from tlx.data.readers.voc import voc
from tlx.data.splits.policies import own
from tlx.errors import DataError
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.models.heads.fcos import Fcos
from tlx.policies import last_layers
from tlx.run import Run, refuse_errors, train


class Hearing(Listener):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


class EnoughError(Exception):
    """The network is asked for, so that all checks are past."""


@pytest.fixture
def start(draw, tiny, tmp_path, monkeypatch):
    """Return a function that starts a run on drawn data, which stops where its network would be built."""

    def stop(*_, **__):
        raise EnoughError

    monkeypatch.setattr(room, "build", stop)
    dataset = draw(12, splits=("train", "train", "train", "validation"))
    convert(dataset, tmp_path / "voc", "voc")

    def start(listener):
        settings = {"freeze": last_layers(1), "fit": Fit(), "features": Features(folder=tmp_path / "features")}
        run = Run(own(voc(tmp_path / "voc")), tiny(), Fcos(), **settings, image_size=16)
        train(run, tmp_path / "run", "", listener)

    return start


def test_all_damaged_pictures_are_told_together(start, tmp_path):
    for number in (2, 5):
        file = tmp_path / "voc" / "JPEGImages" / f"{number}.png"
        file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"the data has 2 errors[\s\S]*2\.png[\s\S]*5\.png"):
        start(Hearing())
    assert not (tmp_path / "run").exists()


def test_warnings_are_told_once_a_kind_and_all_are_kept(start, tmp_path):
    listener = Hearing()
    with pytest.raises(EnoughError):
        start(listener)
    (few,) = [line for line in listener.said if "few-examples" in line]
    assert few.startswith("2 x few-examples: ")
    assert few.count("few-examples") == 1
    kept = json.loads((tmp_path / "run" / "data.json").read_text())["findings"]
    assert sum("few-examples" in line for line in kept) == 2


def test_of_many_errors_ten_are_shown_and_all_are_counted(draw):
    data = own(draw(4, splits=("train", "validation")))
    object.__setattr__(data, "findings", tuple(Finding("bad", "error", f"{i}.png", "", "is bad") for i in range(25)))
    with pytest.raises(DataError) as caught:
        refuse_errors(data)
    lines = str(caught.value).splitlines()
    assert len(lines) == 12
    assert lines[0].startswith("the data has 25 errors; mend or remove these")
    assert lines[-1].strip() == "and 15 more, which `tlx inspect` lists"

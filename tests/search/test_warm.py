"""What a search learns from an earlier one: values, whatever Optuna calls them, each once, from wherever it is kept."""

import json
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from tlx import config
from tlx.errors import ConfigError
from tlx.search import hosts, ranges, space, storage
from tlx.search.settings import Search
from tlx.search.space import Space
from tlx.search.study import Study

SPACE = {
    "features.dtype": ("choice", "float32", "float16"),
    "fit.batch_size": ("int", 2, 32),
    "fit.learning_rate": ("log", 1e-4, 1e-2),
}


def begin(storage_, name="tlx"):
    return optuna.create_study(storage=storage_, study_name=name, direction="maximize", load_if_exists=True)


def finish(kept, bounds, points):
    """Finish a trial for each point as a search does, in a study that varies `bounds`; the better, the later."""
    for score, values in enumerate(points):
        kept.enqueue_trial({name: ranges.as_asked(values[name], bounds[name]) for name in bounds})
        trial = kept.ask()
        trial.set_user_attr("bindings", [space.binding(*item) for item in Space(bounds).propose(trial).items()])
        trial.set_constraint("infeasible", -1.0)
        kept.tell(trial, score)


def points(*sizes):
    return [
        {"features.dtype": ["float16", "float32"][size % 2], "fit.batch_size": size, "fit.learning_rate": 0.002}
        for size in sizes
    ]


@pytest.fixture
def earlier(tmp_path):
    """Return a function that keeps an earlier study in a folder, and returns the folder."""

    def earlier(bounds, points, name="earlier"):
        (tmp_path / name).mkdir(exist_ok=True)
        finish(begin(storage.journal(tmp_path / name)), bounds, points)
        return tmp_path / name

    return earlier


def learnt(kept, bounds):
    """What a study has learnt: the score of each set of values."""
    trials = [t for t in kept.trials if storage.WARM in t.user_attrs]
    return {t.value: Space(bounds).propose(optuna.trial.FixedTrial(t.params)) for t in trials}


@pytest.mark.parametrize(
    "other",
    [
        {"features.dtype": ("choice", "float16", "float32")},
        {"features.dtype": ("choice", "bogus", "float16", "more", "float32")},
        {"fit.batch_size": ("power_of_two", 2, 32)},
        {"fit.batch_size": ("choice", 16, 8, 4, 2)},
        {"fit.learning_rate": ("float", 0.0, 1.0)},
        {"fit.learning_rate": ("choice", 0.002, 0.004)},
    ],
)
def test_values_are_learnt_however_the_space_is_written(earlier, other):
    told, now = points(4, 2, 16, 8), SPACE | other
    for before, after in ((SPACE, now), (now, SPACE)):
        kept = begin(None)
        assert storage.learn_from(kept, earlier(before, told, str(after)), Space(after)) == 4
        assert learnt(kept, after) == dict(enumerate(told))


@pytest.mark.parametrize(
    ("other", "fits"),
    [
        ({"features.dtype": ("choice", "float16")}, [4, 8]),
        ({"fit.batch_size": ("power_of_two", 4, 32)}, [4, 8]),
        ({"fit.batch_size": ("int", 5, 7)}, [5, 7]),
        ({"fit.learning_rate": ("int", 0, 1)}, []),
        ({"fit.learning_rate": ("log", 1e-4, 1e-3)}, []),
        ({"fit.warmup": ("float", 0.0, 1.0)}, []),
    ],
)
def test_what_lies_outside_of_the_space_is_not_learnt(earlier, other, fits):
    kept, now = begin(None), SPACE | other
    assert storage.learn_from(kept, earlier(SPACE, points(4, 5, 7, 8)), Space(now)) == len(fits)
    assert [values["fit.batch_size"] for values in learnt(kept, now).values()] == fits


def test_what_an_interruption_left_out_is_learnt_the_next_time(earlier, tmp_path, monkeypatch):
    told = points(4, 2, 16, 8)
    folder, kept = earlier(SPACE, told), begin(storage.journal(tmp_path))
    real = optuna.Study.add_trial

    def dying(self, trial):
        if len(self.trials) == 2:
            raise KeyboardInterrupt
        real(self, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", dying)
    with pytest.raises(KeyboardInterrupt):
        storage.learn_from(kept, folder, Space(SPACE))
    monkeypatch.undo()
    # By whatever path it is reached, it is the same study.
    folder = folder.rename(tmp_path / "moved")
    for _ in range(2):
        assert storage.learn_from(kept, folder, Space(SPACE)) == len(kept.trials) == 4
        assert learnt(kept, SPACE) == dict(enumerate(told))
    earlier(SPACE, points(32), "moved")
    assert storage.learn_from(kept, folder, Space(SPACE)) == 5
    # A host that does not have the folder goes on with what another one has learnt.
    assert storage.learn_from(kept, tmp_path / "gone", Space(SPACE)) == 5


def test_what_is_learnt_was_feasible_and_is_not_passed_on(earlier, tmp_path):
    first, second = earlier(SPACE, points(4, 8)), earlier(SPACE, points(16), "second")
    assert storage.learn_from(storage.read_study(second), first, Space(SPACE)) == 2
    kept = begin(None)
    assert storage.learn_from(kept, second, Space(SPACE)) == 1
    assert [t.constraints for t in kept.trials] == [{"infeasible": -1.0}]


class Server:
    """Stand in for a PostgreSQL server that keeps one study."""

    def __init__(self):
        self.kept = optuna.storages.InMemoryStorage()

    def __str__(self):
        return "postgresql://host/database"

    def storage(self, **_):
        return self.kept


def test_an_earlier_study_that_a_server_keeps_is_learnt_from(tmp_path):
    server, kept = Server(), begin(None)
    finish(begin(server.kept, "theirs"), SPACE, points(4, 8))
    (tmp_path / storage.SHARED).write_text(json.dumps({"storage": str(server), "study": "theirs", "host": "a"}))
    with pytest.raises(ConfigError, match="give --storage"):
        storage.learn_from(kept, tmp_path, Space(SPACE))
    assert storage.learn_from(kept, tmp_path, Space(SPACE), server) == 2


def test_a_search_reads_the_earlier_study_from_the_server_that_it_was_given(tmp_path):
    server, folder, said = Server(), tmp_path / "earlier", []
    finish(begin(server.kept, "theirs"), SPACE, points(4, 8))
    folder.mkdir()
    (folder / storage.SHARED).write_text(json.dumps({"storage": str(server), "study": "theirs", "host": "a"}))
    (tmp_path / "now").mkdir()
    host = hosts.Alone(tmp_path / "now")
    host.server = server
    search = Search(trials=1, space=SPACE, warm_start=folder)
    Study(
        config.load([Path(__file__).parents[1] / "minimal.gin"]), search, host, SimpleNamespace(say=said.append)
    )._begin()
    assert said == [f"learning from 2 trials of {folder}"]

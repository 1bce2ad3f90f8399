"""What a search may vary, and how that becomes bindings."""

import optuna
import pytest

from tlx import config
from tlx.errors import ConfigError
from tlx.search import space
from tlx.search.space import Search

EXPERIMENT = """\
run.data = @splits.ratio()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.fcos()
run.freeze = @freezes.last_layers()
splits.ratio.dataset = @readers.voc()
readers.voc.path = '/data'
freezes.last_layers.unfrozen = 3
fit.batch_size = 16
"""


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "e.gin").write_text(EXPERIMENT)
    return config.load([tmp_path / "e.gin"])


WRONG = {
    "misspelt name": ({"fit.learning_rat": ("log", 1e-4, 1e-2)}, "did you mean 'fit.learning_rate'"),
    "unreached name": ({"freezes.last_blocks.unfrozen": ("int", 0, 3)}, "freezes.last_layers.unfrozen"),
    "misspelt kind": ({"fit.learning_rate": ("lgo", 1e-4, 1e-2)}, "did you mean 'log'"),
    "inverted": ({"fit.learning_rate": ("log", 1e-2, 1e-4)}, "low <= high"),
    "log from zero": ({"fit.learning_rate": ("log", 0, 1)}, "expected"),
    "no power of two": ({"fit.batch_size": ("power_of_two", 3, 16)}, "powers of two"),
    "float for int": ({"fit.batch_size": ("float", 1.0, 32.0)}, "expected int"),
    "written outside": ({"fit.batch_size": ("power_of_two", 2, 8)}, "outside"),
    "no choices": ({"run.seed": ("choice",)}, "at least one"),
    "a wrong choice": ({"features.dtype": ("choice", "float32", "bogus", "float16")}, "'bogus'"),
    "integers for a float range of an int": ({"fit.batch_size": ("float", 8, 32)}, "expected int"),
    "the search itself": ({"search.trials": ("int", 1, 30)}, "varies the run"),
    "empty": ({}, "name what to vary"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_space_is_refused_with_the_right_word(experiment, case):
    entries, word = WRONG[case]
    with pytest.raises(ConfigError) as error:
        space.check(experiment, Search(3, entries))
    assert word in str(error.value)


def test_rates_by_decay_steps_are_a_space(experiment):
    chosen = ["fit.schedule = @schedules.exponential()", "schedules.exponential.staircase = True"]
    rates = ["schedules.exponential.decay_rate = 0.9", "schedules.exponential.decay_steps = 50"]
    entries = {
        "fit.learning_rate": ("choice", 0.1, 0.01),
        "schedules.exponential.decay_steps": ("choice", 50, 65, 80, 100),
    }
    with_sgd = ["fit.learning_rate = 0.1", "fit.optimizer = @optimizers.sgd()"]
    space.check(experiment.with_bindings([*chosen, *rates, *with_sgd]), Search(8, entries))


def test_every_kind_proposes_within_its_range_and_back():
    entries = {
        "a": ("float", 0.5, 2.0),
        "b": ("log", 1e-4, 1e-2),
        "c": ("int", 2, 5),
        "d": ("power_of_two", 4, 64),
        "e": ("choice", "x", (1, 2), None),
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = {"d": set(), "e": set()}
    for _ in range(60):
        trial = study.ask()
        values = space.propose(trial, entries)
        assert 0.5 <= values["a"] <= 2.0
        assert 1e-4 <= values["b"] <= 1e-2
        assert values["c"] in (2, 3, 4, 5)
        for name, options in seen.items():
            options.add(values[name])
        for name, value in values.items():
            assert trial.params[name] == pytest.approx(space.as_asked(value, entries[name]), rel=1e-3)
    assert seen == {"d": {4, 8, 16, 32, 64}, "e": {"x", (1, 2), None}}


def test_a_binding_is_what_a_person_would_write(experiment):
    assert space.binding("fit.batch_size", 8) == "fit.batch_size = 8"
    assert experiment.with_bindings([space.binding("heads.fcos.strides", (8, 16))]).value("heads.fcos.strides") == (
        8,
        16,
    )

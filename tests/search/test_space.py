"""What a search may vary, and how that becomes bindings."""

from dataclasses import replace

import optuna
import pytest

from tlx import config, registry
from tlx.errors import ConfigError, MisfitError
from tlx.freeze import Freeze, Phase
from tlx.search import ranges, space
from tlx.search.settings import Search
from tlx.search.space import Space
from tlx.search.storage import identity

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
        values = Space(entries).propose(trial)
        assert 0.5 <= values["a"] <= 2.0
        assert 1e-4 <= values["b"] <= 1e-2
        assert values["c"] in (2, 3, 4, 5)
        for name, options in seen.items():
            options.add(values[name])
        for name, value in values.items():
            assert trial.params[name] == pytest.approx(ranges.as_asked(value, entries[name]), rel=1e-3)
    assert seen == {"d": {4, 8, 16, 32, 64}, "e": {"x", (1, 2), None}}


def test_a_binding_is_what_a_person_would_write(experiment):
    assert space.binding("fit.batch_size", 8) == "fit.batch_size = 8"
    assert experiment.with_bindings([space.binding("heads.fcos.strides", (8, 16))]).value("heads.fcos.strides") == (
        8,
        16,
    )


SEARCHED = """\
search.space = {
    'backbones.mobilenet_v2.alpha': ('choice', 0.35, 0.5),
    'freezes.last_layers.unfrozen': ('int', 0, 40),
    'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.resnet50()),
    'run.freeze': ('choice', @freezes.none(), @freezes.last_layers(), @freezes.last_blocks()),
    'fit.learning_rate': ('log', 1e-4, 1e-2),
}
backbones.mobilenet_v2.alpha = 0.35
backbones.resnet50.weights = None
freezes.last_blocks.unfrozen = 1
"""


@pytest.fixture
def searched(tmp_path):
    """An experiment whose policy is none, and `last_layers` an alternative that has no number of layers yet."""
    text = EXPERIMENT.replace("run.freeze = @freezes.last_layers()", "run.freeze = @freezes.none()")
    (tmp_path / "s.gin").write_text(text.replace("freezes.last_layers.unfrozen = 3\n", "") + SEARCHED)
    return config.load([tmp_path / "s.gin"])


def settings(experiment, **more):
    return replace(config.build(experiment.trees["search"]), **more)


def test_what_was_not_chosen_is_not_asked_about(searched):
    space.check(searched, settings(searched))
    made = space.space_of(searched, settings(searched))
    assert made.written(searched) == {
        "backbones.mobilenet_v2.alpha": 0,
        "run.backbone": 0,
        "run.freeze": 0,
        "fit.learning_rate": 0.005,
    }
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(40):
        trial = study.ask()
        values = made.propose(trial)
        backbone, policy = (values[name].entry.name for name in ("run.backbone", "run.freeze"))
        seen.add((backbone, policy))
        assert ("backbones.mobilenet_v2.alpha" in values) == (backbone == "mobilenet_v2")
        assert ("freezes.last_layers.unfrozen" in values) == (policy == "last_layers")
        assert list(values) == [name for name in made.bounds if name in values]
        bindings = [space.binding(*item) for item in values.items()]
        # A person may give them, too; and whoever learns from the trial finds what Optuna had been asked.
        trees = searched.with_bindings(bindings).trees["run"].arguments
        assert (trees["backbone"].entry.name, trees["freeze"].entry.name) == (backbone, policy)
        assert made.parameters(bindings).keys() == trial.params.keys()
        assert made.parameters(bindings)["run.freeze"] == trial.params["run.freeze"]
    assert len(seen) == 6


def test_what_could_not_be_chosen_so_is_not_learnt(searched):
    made = space.space_of(searched, settings(searched))
    right = [
        "run.backbone = @backbones.resnet50()",
        "run.freeze = @freezes.last_blocks()",
        "fit.learning_rate = 0.001",
    ]
    assert made.parameters(right) == {"run.backbone": 1, "run.freeze": 2, "fit.learning_rate": 0.001}
    assert made.parameters(right[1:]) is None
    assert made.parameters([*right, "backbones.mobilenet_v2.alpha = 0.5"]) is None
    assert made.parameters(["run.backbone = @backbones.vgg16()", *right[1:]]) is None


def test_a_grid_has_each_combination_that_has_a_meaning_once(searched):
    points = space.space_of(searched, settings(searched)).grid(0)
    # (2 widths of one backbone, and the other) x (2 policies, and 5 numbers of layers) x 5 rates
    assert len(points) == 3 * 7 * 5
    assert len({tuple(point.items()) for point in points}) == len(points)
    assert all(("freezes.last_layers.unfrozen" in point) == (point["run.freeze"] == 1) for point in points)


@pytest.fixture
def nested(monkeypatch):
    """A policy that takes a part, of which there are two; one of them has an argument."""
    monkeypatch.setattr(registry, "registries", dict(registry.registries))
    monkeypatch.setattr(registry.freezes, "entries", dict(registry.freezes.entries))
    parts = registry.Registry("parts")

    @parts.register("plain")
    def plain() -> int:
        """A part."""
        return 1

    @parts.register("wide")
    def wide(width: int = 1) -> int:
        """A part that has a width."""
        return width

    @registry.freezes.register("outer")
    def outer(part: int = 0) -> Freeze:
        """A policy of a part."""
        return Freeze("outer", (Phase(1.0, lambda layers: [part > 0 for _ in layers]),))


def test_alternatives_within_alternatives_are_asked_for_from_the_root_down(nested, experiment):
    more = experiment.with_bindings(
        [
            "search.space = {'parts.wide.width': ('int', 1, 3),"
            " 'freezes.outer.part': ('choice', @parts.plain(), @parts.wide()),"
            " 'run.freeze': ('choice', @freezes.last_layers(), @freezes.outer())}"
        ]
    )
    space.check(more, settings(more))
    made = space.space_of(more, settings(more))
    names = [
        set(made.choose(lambda name, bounds, at=at: bounds[at.get(name, 1)]))
        for at in ({}, {"run.freeze": 2}, {"run.freeze": 2, "freezes.outer.part": 2})
    ]
    assert names == [
        {"run.freeze"},
        {"run.freeze", "freezes.outer.part"},
        {"run.freeze", "freezes.outer.part", "parts.wide.width"},
    ]
    assert len(made.grid(0)) == 1 + 1 + 3
    assert len(list(made.alternatives())) == 3


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("'run.backbone': ('choice', @backbones.mobilenet_v2(), @freezes.none())", "expected Backbone"),
        ("'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.resnet50)", "needs parentheses"),
        ("'run.backbone': ('choice', @backbones.vgg16(), @backbones.resnet50())", "outside"),
        ("'run.backbone': ('int', @backbones.vgg16(), @backbones.resnet50())", "low <= high"),
        ("'run.freeze': ('choice', @freezes.last_layers(), @freezes.last_blocks())", "unfrozen is required"),
        ("'freezes.last_layers.unfrozen': ('int', -1, 9)", "unfrozen = -1 makes no sense"),
        ("'freezes.last_layers.unfrozen': ('int', 0, 9), 'last_layers.unfrozen': ('int', 0, 9)", "are the same"),
        ("'backbones.resnet50.weights': ('choice', None, 'imagenet')", "nothing in this experiment is called"),
    ],
)
def test_a_wrong_alternative_is_refused_with_the_right_word(experiment, entry, word):
    more = experiment.with_bindings([f"search.space = {{{entry}}}"])
    with pytest.raises(ConfigError) as error:
        space.check(more, settings(more))
    assert word in str(error.value)


@pytest.mark.parametrize(
    ("policy", "most", "what"),
    [
        ("last_layers", 51, "weight layers"),
        ("head_then_last_layers", 51, "weight layers"),
        ("last_blocks", 18, "blocks"),
    ],
)
def test_more_than_the_head_sees_of_a_backbone_is_refused_and_may_be_searched_beside_another(
    experiment, policy, most, what
):
    """FCOS reads MobileNetV2 up to the last block at stride 32; its last layer is behind that."""
    name = f"freezes.{policy}.unfrozen"
    mine = experiment.with_bindings([f"run.freeze = @freezes.{policy}()", f"{name} = {most}"])
    told = rf"unfreezes {most + 1} {what}: of mobilenet_v2 run.head uses {most} {what}; give 0 to {most}"
    with pytest.raises(MisfitError, match=told):
        mine.with_bindings([f"{name} = {most + 1}"])

    def searched(more):
        found = mine.with_bindings([f"search.space = {{'{name}': ('int', 0, {most + 1}){more}}}"])
        space.check(found, settings(found))

    with pytest.raises(ConfigError, match=rf"search.space\['{name}'\]: .*run.freeze = {policy}.*{told}"):
        searched("")
    with pytest.raises(ConfigError, match=told):
        searched(", 'heads.fcos.strides': ('choice', (8, 16, 32), (8, 16)), 'fit.clip': ('float', 1.0, 10.0)")
    searched(", 'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.resnet101())")


def test_a_number_of_layers_may_need_two_other_values_and_many_are_left_to_the_trials(experiment):
    written = experiment.with_bindings(["heads.fcos.strides = (4, 8)", "freezes.last_layers.unfrozen = 12"])

    def check(names):
        found = written.with_bindings([f"search.space = {{{names}}}"])
        space.check(found, settings(found))

    backbone = "'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.vgg16())"
    unfrozen = "'freezes.last_layers.unfrozen': ('int', 12, 40)"
    strides = "'heads.fcos.strides': ('choice', (4, 8), (8, 16, 32))"
    check(f"{backbone}, {unfrozen}, {strides}")
    with pytest.raises(ConfigError, match=r"vgg16.*uses 10 weight layers"):
        check(f"{backbone}, {unfrozen}")
    many = ["fit.clip", "fit.learning_rate", "fit.backbone_rate", "fit.weight_decay", "fit.epochs"]
    more = ", ".join(f"'{name}': ('float', 0.0001, 90.0)" for name in many)
    more += ", 'features.views': ('int', 1, 8), 'run.seed': ('int', 0, 1), 'run.image_size': ('int', 320, 352)"
    check(f"{backbone}, {unfrozen}, {more}")


@pytest.mark.parametrize(
    ("bindings", "rest", "most"),
    [
        (["run.head = @heads.classifier()"], False, 52),
        (["run.head = @heads.classifier()", "heads.classifier.taps = ('stride8',)"], False, 18),
        ([], True, 52),
    ],
)
def test_how_many_layers_there_are_is_the_heads_matter(tmp_path, monkeypatch, bindings, rest, most):
    monkeypatch.setattr("tlx.models.heads.fcos.Fcos.takes_rest", rest)
    file = tmp_path / "e.gin"
    file.write_text(EXPERIMENT)
    config.load([file], [*bindings, f"freezes.last_layers.unfrozen = {most}"])
    with pytest.raises(MisfitError, match=f"uses {most} weight layers"):
        config.load([file], [*bindings, f"freezes.last_layers.unfrozen = {most + 1}"])


def test_a_value_need_suit_one_alternative_only(nested, experiment, monkeypatch):
    def refuse(freeze, backbone):
        if freeze.name == "outer" and backbone.name == "vgg16":
            raise ConfigError("these do not go together")

    run = registry.rooms.entries["run"]
    monkeypatch.setitem(registry.rooms.entries, "run", replace(run, together=refuse))
    choices = "'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.vgg16())"
    own = experiment.with_bindings(
        [f"search.space = {{{choices}, 'run.freeze': ('choice', @freezes.last_layers(), @freezes.outer())}}"]
    )
    space.check(own, settings(own))
    only = experiment.with_bindings(["run.freeze = @freezes.outer()", f"search.space = {{{choices}}}"])
    with pytest.raises(ConfigError, match=r"search.space\['run.backbone'\]: these do not go together"):
        space.check(only, settings(only))


def test_hosts_that_know_other_alternatives_search_another_space(searched):
    """What an alternative's arguments are is part of what is searched, though no tree of the run has them."""
    other = searched.with_bindings(["freezes.last_blocks.unfrozen = 2"])
    assert identity(other) != identity(searched)
    assert identity(searched.with_bindings(["search.workers = 3"])) == identity(searched)

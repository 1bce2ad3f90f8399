"""What a gin file may say, and what it is told when it says something else."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlx import config, ginfile, registry
from tlx.errors import ConfigError, ModelError
from tlx.freeze import Freeze, Phase

GOOD = """\
DATA = '/data'
run.data = @splits.given()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.fcos()
run.freeze = @freezes.last_layers()
splits.given.train = @train/readers.voc()
splits.given.validation = @validation/readers.voc()
readers.voc.path = %DATA
validation/readers.voc.path = '/other'
freezes.last_layers.unfrozen = 3
fit.epochs = 5
"""


@pytest.fixture
def good(tmp_path):
    file = tmp_path / "good.gin"
    file.write_text(GOOD)
    return file


def refused(tmp_path: Path, text: str) -> str:
    file = tmp_path / "bad.gin"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        config.load([file])
    return str(error.value)


# What is wrong, the line that it is in, and the word that its author meant.
MISTAKES = {
    "factory": (GOOD.replace("heads.fcos", "heads.fcoss"), 4, "'fcos'"),
    "registry": (GOOD.replace("@backbones", "@backbone"), 3, "'backbones.mobilenet_v2'"),
    "argument": (GOOD + "fit.epcohs = 3", 12, "'epochs'"),
    "scope": (GOOD + "validaton/readers.voc.classes = ('a',)", 12, "'validation/readers.voc'"),
    "undefined macro": (GOOD.replace("%DATA", "%DTA"), 8, "'DATA'"),
    "unused macro": (GOOD + "DATTA = 1", 12, "'DATA'"),
    "dead binding": (GOOD + "freezes.last_blocks.unfrozen = 3", 12, "'freezes.last_layers'"),
    "duplicate": (GOOD + "fit.epochs = 6", 12, "line 11"),
    "duplicate, spelt otherwise": (GOOD + "last_layers.unfrozen = 6", 12, "line 10"),
    "misspelt constant": (GOOD + "fit.clip = %gin.REQUIERD", 12, "'gin.REQUIRED'"),
    "not finite": (GOOD + "fit.clip = 1e999", 12, "finite"),
    "macros of each other": (GOOD + "A = %B\nB = %A", 12, "used nowhere"),
    "unhashable key": (GOOD + "fit.clip = {[1]: 2}", 1, "cannot be parsed"),
    "choice": (GOOD + "run.judge = 'tset'", 12, "'test'"),
    "the name of a factory": (GOOD + "fit.schedule = 'constant'", 12, "did you mean @schedules.constant()?"),
    "senseless value of a factory": (
        GOOD + "fit.optimizer = @optimizers.sgd()\noptimizers.sgd.momentum = 2.0",
        13,
        "optimizers.sgd.momentum = 2.0 makes no sense",
    ),
    "senseless share of a phase": (
        GOOD.replace("last_layers", "head_then_last_layers") + "head_then_last_layers.head_share = 1.0",
        12,
        "freezes.head_then_last_layers.head_share = 1.0 makes no sense",
    ),
    "wrong type": (GOOD + "fit.clip = 'ten'", 12, "expected float, got str 'ten'"),
    "senseless value": (GOOD + "fit.batch_size = 0", 12, "fit.batch_size = 0 makes no sense"),
    "bool for int": (GOOD + "fit.batch_size = True", 12, "expected int, got bool True"),
    "wrong kind": (GOOD.replace("= @heads.fcos()", "= @freezes.none()"), 4, "expected Head"),
    "no parentheses": (GOOD.replace("@heads.fcos()", "@heads.fcos"), 4, "@heads.fcos()"),
    "bare word": (GOOD + "fit.clip = true", 12, "True and False"),
    "open bracket": (GOOD + "fit.clip = [1,", 13, "EOF"),
    "import": (GOOD + "import os", 12, "--allow_imports"),
    "dynamic registration": (GOOD + "from __gin__ import dynamic_registration", 12, "would run code"),
    "missing include": (GOOD + "include 'good.gn'", 12, "'good.gin'"),
    "macro of itself": (GOOD + "A = %A\nfit.clip = %A", 13, "defined by itself"),
    "required": (GOOD.replace("unfrozen = 3", "unfrozen = %gin.REQUIRED"), 10, "required"),
    "reference to itself": (
        GOOD.replace("splits.given.train = @train/readers.voc()", "splits.given.train = @splits.given()"),
        6,
        "itself",
    ),
}


def test_a_senseless_split_is_refused_before_any_data_is_read(tmp_path):
    text = "".join(line for line in GOOD.splitlines(True) if "given" not in line and "validation/" not in line)
    text += "run.data = @splits.auto()\nsplits.auto.dataset = @readers.voc()\nsplits.auto.train = 6"
    assert "bad.gin:10: splits.auto.train = 6.0 makes no sense" in refused(tmp_path, text)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_located_and_the_right_word_named(tmp_path, good, mistake):
    text, line, word = MISTAKES[mistake]
    message = refused(tmp_path, text)
    assert f"bad.gin:{line}:" in message
    assert word in message


def test_a_missing_value_names_what_is_missing(tmp_path):
    message = refused(tmp_path, GOOD.replace("freezes.last_layers.unfrozen = 3\n", ""))
    assert "freezes.last_layers.unfrozen is required (int)" in message


def test_all_mistakes_are_told_at_once(tmp_path):
    message = refused(tmp_path, GOOD + "fit.epcohs = 3\nfit.clip = 'x'")
    assert "bad.gin:12:" in message
    assert "bad.gin:13:" in message


def test_an_include_cycle_is_shown(tmp_path):
    (tmp_path / "a.gin").write_text("include 'b.gin'")
    (tmp_path / "b.gin").write_text("include 'a.gin'")
    with pytest.raises(ConfigError, match=r"a\.gin -> b\.gin -> a\.gin"):
        config.load([tmp_path / "a.gin"])


def test_an_include_is_found_beside_the_including_file(tmp_path, monkeypatch, good):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.gin").write_text(GOOD)
    (tmp_path / "sub" / "top.gin").write_text("include 'base.gin'\nfit.epochs = 7")
    monkeypatch.chdir("/")
    assert config.load([tmp_path / "sub" / "top.gin"]).value("fit.epochs") == 7


def test_a_scope_overrides_what_is_said_without_one(good):
    given_ = config.load([good]).trees["run"].arguments["data"]
    assert given_.arguments["train"].arguments["path"] == Path("/data")
    assert given_.arguments["validation"].arguments["path"] == Path("/other")


def test_bindings_override_files_and_may_be_shortened(good):
    experiment = config.load([good], ["fit.epochs = 9", "last_layers.unfrozen = 1", "DATA = '/new'"])
    assert experiment.value("fit.epochs") == 9
    assert experiment.value("freezes.last_layers.unfrozen") == 1
    assert experiment.value("train/readers.voc.path") == Path("/new")


def test_an_override_may_cut_off_what_a_file_says(good):
    experiment = config.load([good], ["run.freeze = @freezes.none()"])
    assert "last_layers" not in experiment.text()


def test_an_override_may_leave_a_macro_without_use(good, tmp_path):
    experiment = config.load([good], ["readers.voc.path = '/x'"])
    saved = tmp_path / "saved.gin"
    saved.write_text(experiment.text())
    assert config.load([saved]).value("train/readers.voc.path") == Path("/x")


def test_a_path_through_several_macros_is_saved_whole(tmp_path, good, monkeypatch):
    good.write_text(good.read_text().replace("DATA = '/data'", "ROOT = 'relative'\nDATA = %ROOT"))
    monkeypatch.chdir(tmp_path)
    assert f"ROOT = '{tmp_path}/relative'" in config.load([good]).text()


def test_an_override_may_not_be_dead_itself(good):
    with pytest.raises(ConfigError, match=r"--gin_bindings:1: nothing in the experiment uses freezes.last_blocks"):
        config.load([good], ["freezes.last_blocks.unfrozen = 2"])
    with pytest.raises(ConfigError, match=r"--gin_bindings:1: nothing in the experiment uses freezes.last_layers"):
        config.load([good], ["run.freeze = @freezes.none()", "freezes.last_layers.unfrozen = 2"])


def test_a_later_override_may_cut_off_an_earlier_one(good):
    """So that a search may take another policy than the one whose argument was given on the command line."""
    experiment = config.load([good], ["freezes.last_layers.unfrozen = 2", "run.freeze = @freezes.none()"])
    assert "last_layers" not in experiment.text()
    again = config.load([good], ["freezes.last_layers.unfrozen = 2"]).with_bindings(["run.freeze = @freezes.none()"])
    assert again.text() == experiment.text()


def test_more_bindings_change_the_experiment_that_was_read(good):
    experiment = config.load([good], ["fit.epochs = 7"])
    good.write_text("fit.epcohs = 3")
    more = experiment.with_bindings(["fit.clip = 3.0"])
    assert (more.value("fit.epochs"), more.value("fit.clip")) == (7, 3.0)


def test_a_file_of_weights_that_does_not_exist_is_refused(tmp_path):
    message = refused(tmp_path, GOOD + "backbones.mobilenet_v2.weights = '/nope.h5'")
    assert "bad.gin:12: backbones.mobilenet_v2.weights = '/nope.h5' is no file" in message
    message = refused(tmp_path, GOOD + "backbones.mobilenet_v2.min_restored = 1.5")
    assert "bad.gin:12: backbones.mobilenet_v2.min_restored = 1.5" in message


@pytest.mark.parametrize("policy", ["last_layers", "last_blocks"])
def test_a_number_of_layers_that_no_network_has_is_refused(tmp_path, policy):
    text = GOOD.replace("last_layers", policy).replace("unfrozen = 3", "unfrozen = -1")
    assert f"bad.gin:10: freezes.{policy}.unfrozen = -1 makes no sense" in refused(tmp_path, text)


def test_a_rule_that_is_no_regular_expression_is_refused(tmp_path):
    text = GOOD.replace("last_layers", "patterns").replace("unfrozen = 3", "rules = (('block(', 'train'),)")
    assert "'block(' is no regular expression" in refused(tmp_path, text)


@pytest.fixture
def pairs(monkeypatch):
    """A root of its own, whose parts must go together, with two heads to choose from."""
    monkeypatch.setattr(registry, "registries", dict(registry.registries))
    registry.discover()
    for real in registry.registries.values():
        monkeypatch.setattr(real, "entries", dict(real.entries))
    parts = registry.Registry("parts")

    @parts.register("part")
    def part(width: int = 1) -> int:
        """A part."""
        return width

    def same(left: int, right: int) -> None:
        if left != right:
            raise ConfigError(f"pair.right = {right}: the left one has {left}")

    @registry.rooms.register("pair", root=True, together=same)
    def pair(left: int = 1, right: int = 1) -> None:
        """Two of a width."""


def test_parts_are_checked_together_as_what_they_make(pairs, tmp_path):
    text = GOOD + "pair.left = @a/parts.part()\na/parts.part.width = 3\npair.right = "
    good = tmp_path / "good.gin"
    good.write_text(text + "3")
    assert config.load([good]).trees["pair"].arguments["right"] == 3
    assert "bad.gin:14: pair.right = 4: the left one has 3" in refused(tmp_path, text + "4")


def test_alternatives_are_checked_and_stand_for_themselves(tmp_path):
    text = GOOD + "search.space = {'run.freeze': ('choice', @freezes.last_layers(), @freezes.last_blocks())}\n"
    file = tmp_path / "choice.gin"
    # What only an alternative takes is no dead binding.
    file.write_text(text + "freezes.last_blocks.unfrozen = 2")
    experiment = config.load([file])
    _, first, second = config.build(experiment.trees["search"]).space["run.freeze"]
    assert (str(first.reference), str(second.reference)) == ("@freezes.last_layers()", "@freezes.last_blocks()")
    assert experiment.value("freezes.last_blocks.unfrozen") == 2
    file.write_text(experiment.text())
    assert config.load([file]).text() == experiment.text()
    assert "bad.gin:13: freezes.last_blocks.unfrozen: expected int" in refused(
        tmp_path, text + "freezes.last_blocks.unfrozen = 'two'"
    )
    assert "bad.gin:13: freezes.last_blocks.unfrozen = -2" in refused(
        tmp_path, text + "freezes.last_blocks.unfrozen = -2"
    )
    assert "did you mean 'last_blocks'" in refused(
        tmp_path, text.replace("@freezes.last_blocks", "@freezes.last_bloks")
    )
    # The search's own values are checked all the same.
    assert "search.workers = 0 makes no sense" in refused(tmp_path, text + "search.workers = 0")


def test_the_saved_text_gives_the_same_experiment_from_anywhere(tmp_path, good, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = config.load([good], ["DATA = 'relative/folder'", "fit.ema = 0.99"])
    saved = tmp_path / "saved.gin"
    saved.write_text(first.text())
    monkeypatch.chdir("/")
    again = config.load([saved])
    assert str(again.trees["run"]) == str(first.trees["run"])
    assert again.text() == first.text()
    assert config.load([saved], ["DATA = '/x'"]).value("train/readers.voc.path") == Path("/x")


def test_asking_for_an_unknown_value_names_the_closest(good):
    with pytest.raises(ConfigError, match=r"did you mean 'fit.batch_size'"):
        config.load([good]).value("fit.batch_sise")


def test_an_int_stands_for_a_float_and_a_list_for_a_tuple(good):
    experiment = config.load([good], ["fit.clip = 3", "heads.fcos.strides = [8, 16]"])
    assert experiment.value("fit.clip") == 3.0
    assert experiment.value("heads.fcos.strides") == (8, 16)


def test_refusing_takes_no_tensorflow(tmp_path):
    file = tmp_path / "bad.gin"
    file.write_text(GOOD + "fit.epcohs = 3")
    code = (
        "import sys\nfrom tlx import config, errors\n"
        f"try: config.load([{str(file)!r}])\nexcept errors.ConfigError: print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(values)
def test_every_value_survives_being_written_and_read(value):
    (statement,) = ginfile.read((), [f"a.b = {ginfile.show(value)}"])
    assert statement.value == value


@given(st.text(max_size=80))
def test_no_text_brings_the_parser_down(text):
    with contextlib.suppress(ConfigError):
        ginfile.read((), [text])


def test_what_is_not_installed_is_refused_only_where_it_is_asked_about(monkeypatch):
    registry.discover()
    monkeypatch.setattr(registry.freezes, "entries", dict(registry.freezes.entries))

    def lacking(parts):
        raise ModelError(f"freezes.own needs {parts} parts: pip install parts")

    @registry.freezes.register("own", ready=lacking)
    def own(parts: int) -> Freeze:
        """So many parts."""
        return Freeze("own", (Phase(1.0, lambda layers: [False] * len(layers)),))

    minimal = Path(__file__).parent / "minimal.gin"
    space = "{'run.freeze': ('choice', @freezes.last_layers(), @freezes.own())}"
    experiment = config.load([minimal], [f"search.space = {space}", "freezes.own.parts = 3"])
    with pytest.raises(ConfigError, match="needs 3 parts: pip install parts"):
        config.refuse_unready(experiment)
    config.refuse_unready(config.load([minimal]))

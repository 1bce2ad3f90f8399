"""What `tlx memory` and `tlx study` show."""

import io
import json
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from tlx import registry
from tlx.commands import memory as memory_command
from tlx.commands import study as study_command
from tlx.commands.shared import FLAGS
from tlx.errors import TlxError
from tlx.freeze import Freeze, Phase
from tlx.search.storage import JOURNAL
from tlx.work import attempts
from tlx.work.kinds import describe
from tlx.work.ledger import Ledger, Need, kind

EXPERIMENT = f"""\
include '{Path(__file__).parents[1] / "minimal.gin"}'
freezes.last_layers.unfrozen = 1
memory.budget_gb = 0.72
search.space = {{'freezes.last_layers.unfrozen': ('int', 0, 2), 'fit.learning_rate': ('log', 1e-4, 1e-2)}}
"""
NEED = Need(1e8, 1e7)


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """The text that a command prints, once it is called."""
    FLAGS(["tlx"])
    out = io.StringIO()
    for command in (memory_command, study_command):
        monkeypatch.setattr(command, "CONSOLE", Console(file=out, width=160))
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    (tmp_path / "config.gin").write_text(EXPERIMENT)
    return out.getvalue


def test_memory_has_a_line_for_each_boundary(shown, tmp_path, monkeypatch):
    needs = {"0": Need(1e8, 1e7), "1": Need(2e8, 4e7), "2": Need(7e8, 1e8)}
    monkeypatch.setattr(attempts.Attempts, "needs", lambda self, bindings, *_: [needs[bindings[0][-1]]])
    memory_command.memory([str(tmp_path / "config.gin")])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown().splitlines() if line.startswith("│")]
    assert rows == [["0", "0.10", "10.0", "50"], ["1", "0.20", "40.0", "10"], ["2", "0.70", "100.0", "none"]]
    assert "memory.budget_gb = 0.72" in shown()


def test_memory_has_a_line_for_each_choice_of_a_boundary(shown, tmp_path, monkeypatch):
    file = tmp_path / "config.gin"
    file.write_text(EXPERIMENT.replace("('int', 0, 2)", "('choice', 8, 0, 4, 1)"))
    asked = []
    monkeypatch.setattr(attempts.Attempts, "needs", lambda self, bindings, *_: asked.extend(bindings) or [NEED])
    memory_command.memory([str(file)])
    assert asked == [f"freezes.last_layers.unfrozen = {number}" for number in (0, 1, 4, 8)]


def test_memory_has_a_line_for_each_phase_of_a_policy_that_has_several(shown, tmp_path, monkeypatch):
    file = tmp_path / "config.gin"
    space = "{'run.freeze': ('choice', @freezes.last_layers(), @freezes.head_then_last_layers())}\n"
    unfrozen = "freezes.head_then_last_layers.unfrozen = 2\nmemory.budget_gb = 0.72\n"
    file.write_text(EXPERIMENT.partition("memory.budget_gb")[0] + unfrozen + "search.space = " + space)
    ledger = Ledger(attempts.LEDGER)
    for policy, needs in (("last_layers", [NEED]), ("head_then_last_layers", [NEED, Need(2e8, 4e7)])):
        experiment = memory_command.config.load([file], [f"run.freeze = @freezes.{policy}()"])
        ledger.put(kind(describe(experiment)), needs, policy)
    memory_command.memory([str(file)])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown().splitlines() if line.startswith("│")]
    assert rows == [
        ["@freezes.last_layers()", "1", "", "", "0.10", "10.0", "50"],
        ["@freezes.head_then_last_layers()", "", "2", "1", "0.10", "10.0", "50"],
        ["@freezes.head_then_last_layers()", "", "2", "2", "0.20", "40.0", "10"],
    ]


def test_memory_has_lines_for_every_alternative_and_for_a_plugins_policy(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.freezes, "entries", dict(registry.freezes.entries))

    @registry.freezes.register("own", grows="parts")
    def own(parts: int) -> Freeze:
        """So many parts."""
        return Freeze("own", (Phase(1.0, lambda layers: [i < parts for i, _ in enumerate(layers)]),))

    file = tmp_path / "config.gin"
    space = "{'run.freeze': ('choice', @freezes.last_layers(), @freezes.own(), @freezes.none()), "
    space += "'freezes.own.parts': ('choice', 3, 5)}\nbackbones.mobilenet_v2.weights = None"
    file.write_text(EXPERIMENT.partition("search.space")[0] + "search.space = " + space)
    asked = []
    monkeypatch.setattr(attempts.Attempts, "needs", lambda self, bindings, *_: asked.append(bindings) or [NEED])
    memory_command.memory([str(file)])
    assert asked == [
        ["run.freeze = @freezes.last_layers()", "freezes.last_layers.unfrozen = 1"],
        # Trial 0 needs no number of parts, and the experiment gives none: it is bound so that the policy is whole.
        ["run.freeze = @freezes.own()", "freezes.own.parts = 3", "freezes.own.parts = 3"],
        ["run.freeze = @freezes.own()", "freezes.own.parts = 3", "freezes.own.parts = 5"],
        ["run.freeze = @freezes.none()"],
    ]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown().splitlines() if line.startswith("│")]
    assert [row[:3] for row in rows] == [
        ["@freezes.last_layers()", "1", ""],
        ["@freezes.own()", "", "3"],
        ["@freezes.own()", "", "5"],
        ["@freezes.none()", "", ""],
    ]


def test_memory_that_cannot_be_measured_is_an_error(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts.Attempts, "needs", lambda *_: None)
    with pytest.raises(TlxError, match="unfrozen = 0 could not be measured"):
        memory_command.memory([str(tmp_path / "config.gin")])


def test_study_shows_trials_what_mattered_memory_and_failures(shown, tmp_path):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL)))
    kept = optuna.create_study(storage=storage, study_name="tlx", direction="maximize")
    for number in range(8):
        trial = kept.ask()
        rate = trial.suggest_float("fit.learning_rate", 1e-4, 1e-2, log=True)
        trial.suggest_int("freezes.last_layers.unfrozen", 0, 2)
        bindings = [f"fit.learning_rate = {rate}", f"freezes.last_layers.unfrozen = {number % 2}"]
        trial.set_user_attr("bindings", bindings)
        if number == 5:
            trial.set_user_attr("cause", "Traceback\nValueError: too bad")
            kept.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            values = {"AP": rate * 50, "AP50": rate * 60}
            trial.set_user_attr("metrics", {"primary": "AP", "values": values})
            kept.tell(trial, rate * 50)
    ledger = Ledger(attempts.LEDGER)
    experiment = memory_command.config.load([tmp_path / "config.gin"], ["freezes.last_layers.unfrozen = 0"])
    ledger.put(kind(describe(experiment)), [Need(3e8, 2e7, tried=33)], "head")
    study_command.study([str(tmp_path)])
    text = shown()
    assert "trial 5 fail: ValueError: too bad" in text
    assert "0, 2, 4, 6" in text
    assert "33" in text
    assert "importance" in text
    assert "not finished" in text
    (tmp_path / "result.json").write_text(json.dumps({"best": {"trial": 3}}))
    study_command.study([str(tmp_path)])
    assert "finished; the best is trial 3" in shown()


@pytest.mark.parametrize("arguments", [[], ["nowhere"]])
def test_a_folder_without_a_study_is_refused(shown, arguments):
    with pytest.raises(TlxError, match=r"search|study"):
        study_command.study(arguments)

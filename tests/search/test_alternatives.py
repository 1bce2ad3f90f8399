"""A first look at the alternatives of a search: the better half goes on, until one is left that is then searched."""

from collections import Counter
from pathlib import Path

import pytest

from tlx import checkpoint, config
from tlx.errors import ConfigError, TrainingError
from tlx.events import Listener
from tlx.report.terminal import first_look_table
from tlx.search import space, study
from tlx.search.alternatives import FIRST_LOOK
from tlx.search.hosts import Alone
from tlx.work import attempts
from tlx.work.hand import Hand, Outcome

EXPERIMENT = f"""\
include '{Path(__file__).parents[1] / "minimal.gin"}'
memory.probe = False
run.image_size = 64
search.trials = 4
search.pruner = 'none'
search.space = {{'fit.learning_rate': ('log', 1e-4, 1e-2)}}
search.alternatives = {{
    'run.backbone': ('choice', @backbones.mobilenet_v2(), @backbones.mobilenet_v3_small()),
    'run.image_size': ('choice', 64, 96),
}}
"""
KEYS = [(backbone, size) for backbone in ("v2", "small") for size in (64, 96)]
SMALL, LARGE = "backbones.mobilenet_v3_small", "backbones.mobilenet_v2"
SIZES = "search.alternatives = {'run.image_size': ('choice', 64, 96)}"


class Worker(Listener):
    """Stands in for the worker process, and is the display: what it is asked, and what comes of each combination.

    `scores` are by the backbone and the size, `seconds` and `fills` are told of each training, and `wrong` is what
    happens instead.
    """

    def __init__(self):
        self.asked, self.said, self.scores, self.wrong = [], [], {}, {}
        self.seconds, self.fills, self.fatal = {}, {}, None

    def do(self, task, bindings, listener, folder=None, micros=None, **_):
        # What is no alternative is not among the bindings.
        values = {"run.backbone": LARGE} | dict(one.split(" = ") for one in bindings)
        key = values["run.backbone"].strip("@()").split("_")[-1], int(values["run.image_size"])
        if task == "train":
            self.asked.append((f"{folder.parent.name}/{folder.name}", bindings))
            if len(self.asked) == self.fatal:
                raise KeyboardInterrupt
            if key in self.wrong:
                return self.wrong[key]
        for name in ("data.json", "environment.json"):
            checkpoint.write(folder / name, b"{}")
        metrics = {"primary": "AP", "values": {"AP": self.scores.get(key, 0.1)}}
        spent = {"seconds": self.seconds.get(key, 10.0), "fill_seconds": self.fills.get(key, {})}
        split = "test" if task == "judge" else "validation"
        return Outcome("done", {"split": split, "metrics": metrics, "micro_batches": micros, **spent})

    def say(self, message):
        self.said.append(message)

    @property
    def looked(self):
        """Which trainings a first look began, in their order."""
        return [place for place, _ in self.asked if place.startswith("first")]


@pytest.fixture
def worker(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "LEDGER", tmp_path / "memory.json")
    made = Worker()
    monkeypatch.setattr(Hand, "do", lambda _, *arguments, **more: made.do(*arguments, **more))
    return made


@pytest.fixture
def experiment(tmp_path):
    """Return a function that loads the experiment with more bindings."""
    (tmp_path / "e.gin").write_text(EXPERIMENT)
    return lambda *bindings: config.load([tmp_path / "e.gin"], bindings)


@pytest.fixture
def run(tmp_path, worker, experiment):
    """Return a function that runs the search in its folder, or goes on with it."""

    def run(*bindings):
        found = experiment(*bindings)
        settings = config.build(found.trees["search"])
        space.check(found, settings)
        return study.search(found, settings, tmp_path / "run", worker)

    return run


def test_the_better_half_goes_on_for_twice_as_long_and_the_last_one_is_searched(run, worker):
    worker.scores = {("v2", 64): 0.2, ("v2", 96): 0.4, ("small", 64): 0.1, ("small", 96): 0.5}
    result = run()
    assert worker.looked == [f"first/{place}" for place in ("0000-1", "0001-1", "0002-1", "0003-1", "0003-2", "0001-2")]
    shares = [[b for b in bindings if "fit.e" in b] for _, bindings in worker.asked[:6]]
    assert shares[:4] == [["fit.epochs = 8.0", "fit.evaluations = 2"]] * 4
    assert shares[4:] == [["fit.epochs = 16.0", "fit.evaluations = 4"]] * 2
    assert all("run.judge = 'validation'" in bindings for _, bindings in worker.asked)

    rows = result["first_look"]
    assert [row["state"] for row in rows] == ["dropped", "dropped", "dropped", "chosen"]
    assert [row["round"] for row in rows] == [1, 2, 1, 2]
    assert [row["score"] for row in rows] == [0.2, 0.4, 0.1, 0.5]
    assert sum(line.startswith("dropped: ") and "AP 0." in line for line in worker.said) == 3

    written, first, *others = (row["bindings"] for row in result["trials"])
    assert written == [f"run.backbone = @{LARGE}()", "run.image_size = 64", "fit.learning_rate = 0.002"]
    chosen = [f"run.backbone = @{SMALL}()", "run.image_size = 96"]
    assert first == [*chosen, "fit.learning_rate = 0.002"]
    assert [bindings[:2] for bindings in others] == [chosen] * 2
    assert len({bindings[2] for bindings in (first, *others)}) == 3
    assert result["best"]["bindings"][:2] == chosen
    assert result["written"]["trial"] == 0


def test_where_the_experiment_as_written_is_chosen_it_is_trained_once(run, worker):
    worker.scores = {("v2", 64): 0.5}
    rates = Counter(row["bindings"][-1] for row in run()["trials"])
    assert rates["fit.learning_rate = 0.002"] == 1
    assert len(rates) == 4


def test_a_grid_is_of_what_was_chosen(run, worker):
    worker.scores = {("small", 96): 0.5}
    grid = "search.space = {'features.dtype': ('choice', 'float32', 'float16')}"
    rows = run(grid, "search.sampler = 'grid'", "search.trials = 9")["trials"]
    assert [row["bindings"][1:] for row in rows] == [
        ["run.image_size = 64", "features.dtype = 'float32'"],
        ["run.image_size = 96", "features.dtype = 'float32'"],
        ["run.image_size = 96", "features.dtype = 'float16'"],
    ]


@pytest.mark.parametrize(
    ("scores", "seconds", "fills", "chosen"),
    [
        # Of two that are alike the quicker one, and beyond that the better one.
        ((0.50, 0.495), (30.0, 20.0), ({}, {}), 1),
        ((0.50, 0.48), (30.0, 20.0), ({}, {}), 0),
        # The first fill counts.
        ((0.50, 0.50), (50.0, 40.0), ({"a": 30.0}, {"b": 5.0}), 1),
        # Whoever comes second to a cache finds it filled, and is no quicker for that.
        ((0.50, 0.50), (50.0, 25.0), ({"a": 30.0}, {"a": 0.0}), 0),
    ],
)
def test_what_is_alike_goes_to_the_quicker_with_its_fill(run, worker, scores, seconds, fills, chosen):
    keys = ("v2", 64), ("v2", 96)
    for known, values in ((worker.scores, scores), (worker.seconds, seconds), (worker.fills, fills)):
        known.update(zip(keys, values, strict=True))
    assert [row["state"] for row in run(SIZES)["first_look"]].index("chosen") == chosen


def test_what_cannot_be_trained_is_dropped_with_its_reason(run, worker):
    worker.wrong = {
        ("v2", 64): Outcome("infeasible", "not even one example fits"),
        ("small", 96): Outcome("crash", "Traceback\nValueError: no"),
    }
    worker.scores = {("v2", 96): 0.2}
    rows = run("search.trials = 2")["first_look"]
    assert [row["state"] for row in rows] == ["infeasible", "chosen", "dropped", "infeasible"]
    assert [row["cause"] for row in rows] == ["not even one example fits", None, None, "ValueError: no"]
    # One whose worker crashed is tried once more; the two that are left are halved at once.
    assert worker.looked == [f"first/000{n}-1" for n in (0, 1, 2, 3, 3)]
    assert any("0001" not in line and "not even one example fits" in line for line in worker.said)


def test_where_nothing_can_be_trained_the_reasons_are_told(run, worker):
    worker.wrong = {key: Outcome("infeasible", f"{key} is no good") for key in KEYS}
    with pytest.raises(TrainingError, match=r"(?s)no combination of search.alternatives.*'v2', 64.*'small', 96"):
        run()


def test_what_the_user_must_mend_stops_the_search_which_then_goes_on(run, worker):
    worker.wrong = {("small", 64): Outcome("refused", "no space left")}
    with pytest.raises(TrainingError, match=r"(?s)first/0002-1 could not be trained: no space left.*goes on"):
        run()
    worker.wrong = {}
    run()
    assert worker.looked[:4] == ["first/0000-1", "first/0001-1", "first/0002-1", "first/0002-1"]
    assert len(worker.looked) == 7


@pytest.mark.parametrize("fatal", [3, 6])
def test_a_search_that_was_killed_goes_on_where_it_was(run, worker, fatal):
    worker.scores, worker.fatal = {("v2", 96): 0.3, ("small", 96): 0.2}, fatal
    with pytest.raises(KeyboardInterrupt):
        run()
    result = run()
    # Only what was being trained is trained again; the seventh training is the first trial.
    whole = ["first/0000-1", "first/0001-1", "first/0002-1", "first/0003-1", "first/0001-2", "first/0003-2"]
    assert worker.looked == [place for n, place in enumerate(whole, 1) for _ in range(1 + (n == fatal))]
    assert [row["state"] for row in result["first_look"]] == ["dropped", "chosen", "dropped", "dropped"]
    assert [row["state"] for row in result["trials"]].count("complete") == 4


def test_a_host_that_comes_while_another_one_looks_takes_what_comes_of_it(run, worker, monkeypatch):
    rows = [{"number": n, "state": "chosen" if n else "dropped"} for n in range(2)]

    def claim(host):
        # The other host has it, and comes to its end meanwhile.
        monkeypatch.setattr(Alone, "claim", lambda _: True)
        of = [["run.image_size = 64"], ["run.image_size = 96"]]
        host.note(FIRST_LOOK, of, {"chosen": 1, "rows": rows})
        return False

    monkeypatch.setattr(Alone, "claim", claim)
    result = run(SIZES)
    assert worker.looked == []
    assert result["first_look"] == rows
    assert result["trials"][1]["bindings"][0] == "run.image_size = 96"


def test_once_the_time_is_over_the_best_so_far_is_taken(run, worker):
    worker.scores = {("v2", 96): 0.3}
    result = run("search.minutes = 1e-9")
    assert worker.looked == ["first/0000-1"]
    assert [row["state"] for row in result["first_look"]] == ["chosen", *["not trained"] * 3]
    assert any("third of search.minutes is over" in line for line in worker.said)
    assert len(result["trials"]) == 1


def test_the_first_look_leaves_time_for_trials(run, worker, monkeypatch):
    monkeypatch.setattr(study, "FIRST_LOOK_AT_MOST", 1e-12)
    result = run("search.minutes = 60")
    assert worker.looked == ["first/0000-1"]
    assert len(result["trials"]) > 1


def test_what_was_trained_before_time_was_over_is_not_told_as_untrained(run, monkeypatch):
    answers = iter([False, True])
    monkeypatch.setattr(study.Study, "_late", lambda *_: next(answers, True))
    states = [row["state"] for row in run("search.minutes = 60")["first_look"]]
    assert sorted(states[:2]) == ["chosen", "dropped"]
    assert states[2:] == ["not trained"] * 2


def test_a_combination_has_what_its_parts_have(run, worker):
    """An alternative's own argument is asked for only where it was taken, and in the search as well."""
    alternatives = (
        f"'run.backbone': ('choice', @{LARGE}(), @{SMALL}()), '{LARGE}.alpha': ('choice', 0.35, 0.5),"
        f" '{SMALL}.alpha': ('choice', 0.75, 1.0), 'run.image_size': ('choice', 64,)"
    )
    worker.scores = {("small", 64): 0.4}
    bound = [f"{LARGE}.alpha = 0.35", f"{SMALL}.alpha = 0.75"]
    result = run(f"search.alternatives = {{{alternatives}}}", *bound)
    assert [row["bindings"][1] for row in result["first_look"]] == [
        f"{LARGE}.alpha = 0.35",
        f"{LARGE}.alpha = 0.5",
        f"{SMALL}.alpha = 0.75",
        f"{SMALL}.alpha = 1.0",
    ]
    written, first, *_ = (row["bindings"] for row in result["trials"])
    assert written[:2] == [f"run.backbone = @{LARGE}()", f"{LARGE}.alpha = 0.35"]
    assert first[:2] == [f"run.backbone = @{SMALL}()", f"{SMALL}.alpha = 0.75"]


def test_where_there_is_nothing_to_choose_nothing_is_looked_at(run, worker):
    result = run("search.alternatives = {'run.image_size': ('choice', 64)}")
    assert worker.looked == []
    assert "first_look" not in result
    assert {row["bindings"][0] for row in result["trials"]} == {"run.image_size = 64"}


def test_the_table_says_what_was_dropped_with_its_score_and_seconds(run, worker):
    worker.scores, worker.seconds = {("v2", 64): 0.2, ("v2", 96): 0.4}, {("v2", 64): 33.0}
    worker.wrong = {("small", 64): Outcome("infeasible", "no"), ("small", 96): Outcome("infeasible", "no")}
    table = first_look_table(run()["first_look"])
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["state"] == ["dropped", "chosen", "infeasible", "infeasible"]
    assert columns["AP"] == ["0.200", "0.400", "-", "-"]
    assert columns["s"] == ["33", "10", "", ""]


@pytest.mark.parametrize(
    ("alternatives", "word"),
    [
        ("'run.image_size': ('int', 64, 96)", "belongs in search.space"),
        ("'fit.learning_rate': ('choice', 0.002, 0.01)", "and search.alternatives['fit.learning_rate'] are the same"),
        ("'fit.epochs': ('choice', 10.0, 40.0)", "a first look sets fit.epochs itself"),
        ("'run.image_size': ('choice', 96, 128)", "outside"),
        ("'run.image_size': ('choice', 64, 16)", "at least 32"),
        ("'run.image_siz': ('choice', 64, 96)", "did you mean 'run.image_size'"),
        (f"'{SMALL}.alpha': ('choice', 0.75, 1.0)", "nothing in this experiment"),
    ],
)
def test_what_can_be_no_alternative_is_refused(experiment, alternatives, word):
    found = experiment(f"search.alternatives = {{{alternatives}}}")
    with pytest.raises(ConfigError) as error:
        space.check(found, config.build(found.trees["search"]))
    assert word in str(error.value)


def test_an_argument_that_only_the_space_decides_over_is_no_alternative(experiment):
    found = experiment(
        f"search.space = {{'run.backbone': ('choice', @{LARGE}(), @{SMALL}())}}",
        f"search.alternatives = {{'{SMALL}.alpha': ('choice', 0.75, 1.0)}}",
    )
    with pytest.raises(ConfigError, match=r"alpha'\]: no combination of search.alternatives has it"):
        space.check(found, config.build(found.trees["search"]))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(experiment, share):
    with pytest.raises(ConfigError, match="first_look"):
        experiment(f"search.first_look = {share}")

"""The training loop: resumed runs are the runs they would have been, and bad ones end with a reason."""

import json
import math
import time
from itertools import islice

import numpy as np
import pytest

from tlx import checkpoint, policies, schedules
from tlx.errors import TlxError, TrainingError
from tlx.events import Listener, PrunedError
from tlx.fit import Fit, fit
from tlx.history import History, first_untold, mend, take_best
from tlx.lazy import tf
from tlx.looks import converged
from tlx.pipeline import order


def metric(learner):
    """A number in 0..1 that depends on every bit of the present weights."""
    return float(sum(np.abs(v.numpy()).sum() for v in learner.variables)) % 1


POLICY = policies.last_layers(2)
PARTS = [(i, 0) for i in range(5)]


class Run(Listener):
    """One attempt at training; `stop_after` looks it is interrupted, and `then` hears of each update."""

    def __init__(self, made, settings, folder, stop_after=None, scores=None):
        self.made, self.settings, self.folder, self.stop_after = made, settings, folder, stop_after
        self.then = lambda *_: None
        self.scores = iter(scores) if scores is not None else None
        self.updates, self.looks, self.weights, self.answers = [], [], [], {}

    def look(self):
        self.weights.append([v.numpy().copy() for v in self.made.learner.variables])
        score = metric(self.made.learner) if self.scores is None else next(self.scores)
        return score, {"values": {"AP": score}}, {"validation/loss": 0.5}

    def progress(self, what, *update):
        self.updates.append(update)
        self.then(*update)

    def evaluated(self, look):
        self.looks.append(look)
        if self.stop_after is not None and len(self.looks) == self.stop_after:
            raise KeyboardInterrupt
        return self.answers.get(look.number, "continue")

    def __call__(self, history=None):
        history = fit(
            self.made.learner,
            self.made.source,
            self.settings,
            seed=3,
            evaluate=self.look,
            folder=self.folder,
            listener=self,
            history=history,
        )
        take_best(self.folder, self.made.learner, history)
        return history


@pytest.fixture
def start(draw, assemble, tmp_path):
    """Return a function that puts a run together from nothing, as another process would."""
    dataset = draw(5)

    def start(folder, settings, dropout=0.0, traced=False, policy=POLICY, **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        made = assemble(dataset, policy, settings, dropout=dropout, traced=traced)
        return Run(made, settings, tmp_path / folder, **options)

    return start


def comparable(look):
    scalars = {name: value for name, value in look.scalars.items() if name != "images_per_second"}
    return look.number, look.update, look.updates, look.epoch, look.metrics, scalars


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(start, arrays):
    settings, dropout = Fit(batch_size=2, epochs=3.2, evaluations=4, ema=0.8, oversample=1.0), 0.3
    whole = start("whole", settings, dropout=dropout, traced=True)
    history = whole()
    first = start("interrupted", settings, dropout=dropout, traced=True, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        first()
    assert first_untold(first.folder) == first.looks[-1].update == 4
    second = start("interrupted", settings, dropout=dropout, traced=True)
    resumed = second()
    assert [update for update, _, _ in first.updates + second.updates] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert first.updates + second.updates == whole.updates
    for a, b in zip(arrays(whole.made.learner.state), arrays(second.made.learner.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [comparable(look) for look in resumed.looks] == [comparable(look) for look in history.looks]
    assert comparable(resumed.best) == comparable(history.best)
    assert resumed.micro_batches == history.micro_batches


def test_seconds_count_from_the_beginning_of_each_attempt(start):
    """What passes before the first update, such as filling a cache, is the run's time as well."""
    settings = Fit(batch_size=2, epochs=3.2, evaluations=4)
    first = start("timed", settings, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        first(History(began=time.monotonic() - 1000))
    assert 1000 < first.looks[0].seconds < first.looks[1].seconds < 2000
    second = start("timed", settings)
    assert 3000 < second(History(began=time.monotonic() - 2000)).seconds < 4000
    assert 3000 < second.looks[1].seconds < 4000


def test_a_damaged_checkpoint_costs_the_way_from_the_one_before(start, arrays):
    settings = Fit(batch_size=2, epochs=3.2, evaluations=4)
    whole = start("whole", settings)
    best = whole().best.update
    first = start("damaged", settings, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        first()
    last = first.folder / "checkpoint.npz"
    last.write_bytes(last.read_bytes()[:-1])
    assert "checkpoint.npz is damaged; the run goes on from the checkpoint before it" in mend(first.folder)
    assert first_untold(first.folder) == first.looks[0].update + 1
    second = start("damaged", settings)
    second()
    assert [comparable(look) for look in second.looks] == [comparable(look) for look in whole.looks[1:]]
    for a, b in zip(arrays(whole.made.learner.state), arrays(second.made.learner.state), strict=True):
        np.testing.assert_array_equal(a, b)
    assert mend(first.folder) is None
    assert sorted(path.name for path in first.folder.iterdir()) == [
        ".tlx-made",
        f"best-{best}.npz",
        "checkpoint.npz",
        "history.jsonl",
    ]
    last.write_bytes(b"")
    with pytest.raises(TlxError, match="is damaged; remove it"):
        mend(first.folder)


def test_the_best_weights_are_those_of_the_best_look_that_the_checkpoint_knows(start, arrays, monkeypatch):
    settings = Fit(batch_size=2, epochs=3.2, evaluations=4)
    dying = start("dying", settings, scores=[0.5, 0.9])
    save = checkpoint.save

    def killed(path, *content):
        if path.name == "checkpoint.npz" and len(dying.looks) == 1:
            raise KeyboardInterrupt
        save(path, *content)

    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        dying()
    monkeypatch.undo()
    assert mend(dying.folder) is None
    # Gone on with, the looks that the dead process did not write down come out worse.
    again = start("dying", settings, scores=[0.1, 0.2, 0.3])
    assert again().best.number == 1
    for kept, seen in zip(arrays(again.made.learner.variables), dying.weights[0], strict=True):
        np.testing.assert_array_equal(kept, seen)


def test_a_run_that_ended_between_two_checkpoints_goes_on_from_the_newest(start):
    first = start("between", Fit(batch_size=2, epochs=3.2, evaluations=4), stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        first()
    (first.folder / "checkpoint.npz").replace(first.folder / "checkpoint-before.npz")
    assert mend(first.folder) is None
    assert first_untold(first.folder) == first.looks[-1].update


def test_a_finished_run_is_not_trained_again(start, arrays):
    settings = Fit(batch_size=4, epochs=2, evaluations=2, micro_batch=3)
    history = (run := start("done", settings))()
    again = start("done", settings)
    repeated = again()
    assert again.updates == again.looks == []
    assert repeated.micro_batches == history.micro_batches == [3]
    assert history.halved == []
    assert [comparable(look) for look in repeated.looks] == [comparable(look) for look in history.looks]
    for a, b in zip(arrays(run.made.learner.model_state), arrays(again.made.learner.model_state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("oversample", [0.0, 0.5])
def test_every_example_of_every_epoch_is_trained_on_once(start, monkeypatch, oversample):
    settings = Fit(batch_size=2, epochs=2, evaluations=1, oversample=oversample)
    run, seen = start("order", settings), []
    update, batches = run.made.learner.update, run.made.source.batches

    def noted_update(parts, rate):
        parts = list(parts)
        seen.append((sum(len(seeds) for _, _, seeds in parts), rate))
        return update(parts, rate)

    def noted_batches(units, size, micro):
        units = list(islice(units, 10))
        seen.append(units)
        return batches(units, size, micro)

    monkeypatch.setattr(run.made.learner, "update", noted_update)
    monkeypatch.setitem(vars(run.made.source), "batches", noted_batches)
    run()
    # Three of the five pictures are red, and two are blue.
    repeats = np.sqrt([1, oversample / 0.4] * 2 + [1]) if oversample else None
    assert seen[0] == list(islice(order(PARTS, 2, 3, 0, repeats), 10))
    assert (seen[0] == list(islice(order(PARTS, 2, 3), 10))) is not oversample
    assert seen[1:] == [(2, settings.rate(i, 5)) for i in range(5)]


def test_what_does_not_fit_is_halved_and_the_update_begun_again(start, arrays, monkeypatch):
    settings = Fit(batch_size=5, epochs=3, evaluations=1)
    # Batch statistics would be a micro-batch's.
    whole = start("whole", settings, policy=policies.backbone())
    whole()
    run, asked = start("halved", settings, policy=policies.backbone()), []
    add = run.made.learner._add

    def short_of_memory(part):
        asked.append(len(part[2]))
        if asked[-1] > 2 and len(asked) > 1:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nmore")
        add(part)

    monkeypatch.setattr(run.made.learner, "_add", short_of_memory)
    history = run()
    assert (history.micro_batches, history.halved) == ([2], [0])
    assert asked == [5, 5, 3, 2, 2, 1, 2, 2, 1]
    for a, b in zip(arrays(whole.made.learner.variables), arrays(run.made.learner.variables), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_example_that_does_not_fit_ends_the_run(start, monkeypatch):
    run = start("full", Fit(batch_size=5, epochs=3, evaluations=1))
    short = tf.errors.ResourceExhaustedError(None, None, "OOM here\nmore")
    monkeypatch.setattr(run.made.learner, "_add", lambda _: (_ for _ in ()).throw(short))
    with pytest.raises(TrainingError, match=r"run\.image_size.*\(OOM here\)"):
        run()


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.9, 0.3, 0.2], 2), ([0.0, 0.0, 0.1, 0.0], 3), ([0.5] * 4, 4)])
def test_the_weights_of_the_best_look_are_kept(start, arrays, scores, best):
    run = start("best", Fit(batch_size=5, epochs=4, evaluations=4, learning_rate=1e-2), scores=scores)
    history = run()
    assert history.best.number == best
    for a, b in zip(arrays(run.made.learner.variables), run.weights[best - 1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_looks_see_the_moving_average_which_is_what_is_kept(start, arrays):
    run = start("ema", Fit(batch_size=5, epochs=2, evaluations=1, ema=0.5, learning_rate=1e-2))
    run()
    averages = arrays(run.made.learner.averages)
    for average, looked_at, kept in zip(averages, run.weights[0], arrays(run.made.learner.variables), strict=True):
        np.testing.assert_array_equal(average, looked_at)
        np.testing.assert_array_equal(average, kept)


def test_a_loss_that_is_not_finite_names_the_update_and_its_pictures(start):
    settings = Fit(batch_size=2, epochs=4, evaluations=1)
    run = start("diverged", settings)
    # A rectifier may lose the NaN on the way to the loss; the gradient shows it all the same.
    kernel = next(v for v in run.made.learner.variables if "block4_a/kernel" in v.path)
    run.then = lambda update, *_: kernel.assign(kernel * np.nan) if update == 2 else None
    units = list(islice(order(PARTS, 2, 3), 4, 6))
    pictures = ", ".join(sorted(f"{unit.picture}.png" for unit in units))
    with pytest.raises(TrainingError, match=rf"became nan at update 3, on these pictures: {pictures};.*rate"):
        run()


def test_warm_up_is_linear_and_the_decay_is_a_cosine_to_zero():
    settings = Fit(learning_rate=1.0, warmup=0.1)
    rates = [settings.rate(update, 100) for update in range(101)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0, abs=1e-12)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[32] == pytest.approx((1 + math.cos(math.pi * 22 / 90)) / 2)


def test_a_constant_schedule_only_warms_up():
    settings = Fit(learning_rate=0.5, warmup=0.1, schedule=schedules.Constant())
    assert {settings.rate(update, 100) for update in range(10, 100)} == {0.5}
    assert settings.rate(0, 100) == pytest.approx(0.05)


def test_the_warm_up_ends_where_the_schedule_begins():
    settings = Fit(learning_rate=0.5, warmup=0.1, schedule=schedules.OneCycle(start=0.2))
    rates = [settings.rate(update, 100) for update in range(100)]
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(0.1)
    assert max(rates) == rates[37] == 0.5


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_the_shortest_schedules_learn_something(updates):
    assert all(0 < Fit().rate(update, updates) <= Fit().learning_rate for update in range(updates))


@pytest.mark.parametrize(("epochs", "pictures", "updates"), [(1, 16, 1), (2.5, 32, 5), (0.01, 10, 1), (40, 100, 250)])
def test_epochs_are_passes_over_the_pictures(epochs, pictures, updates):
    assert Fit(epochs=epochs, batch_size=16).updates(pictures) == updates


def test_a_listener_ends_the_training_and_keeps_the_best_look(start, arrays):
    run = start("stopped", Fit(batch_size=2, epochs=3.2, evaluations=4), scores=[0.2, 0.9, 0.5, 0.95])
    run.answers = {3: "stop"}
    history = run()
    assert (len(run.looks), history.stopped, history.best.number) == (3, True, 2)
    assert len(run.updates) == run.looks[-1].update < history.best.updates
    for kept, seen in zip(arrays(run.made.learner.variables), run.weights[1], strict=True):
        np.testing.assert_array_equal(kept, seen)


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("answer", ["stop", "prune"])
def test_a_look_that_was_not_answered_before_a_kill_is_asked_about_again(start, answer, number):
    settings = Fit(batch_size=2, epochs=3.2, evaluations=4)
    first = start("killed", settings, stop_after=number)
    with pytest.raises(KeyboardInterrupt):
        first()
    second = start("killed", settings)
    second.answers = {number: answer}
    if answer == "prune":
        with pytest.raises(PrunedError):
            second()
    else:
        assert second().stopped
    assert second.looks == first.looks[-1:]
    assert second.updates == []
    lines = [json.loads(line) for line in (first.folder / "history.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in lines] == ["continue"] * (number - 1) + [answer]
    # A stop holds; whoever runs a pruned trial again, such as another host, may have it go on.
    third = start("killed", settings)
    assert third().stopped == (answer == "stop")
    assert third.looks[:1] == ([] if answer == "stop" else first.looks[-1:])


def test_an_answer_that_was_noted_outlasts_a_kill_right_after_it(start, monkeypatch):
    settings = Fit(batch_size=2, epochs=3.2, evaluations=4)
    first = start("noted", settings)
    first.answers = {2: "stop"}
    # Dead before the checkpoint says that the run has stopped.
    monkeypatch.setattr("tlx.looks.save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        first()
    monkeypatch.undo()
    second = start("noted", settings)
    assert second().stopped
    assert second.looks == second.updates == []


@pytest.mark.parametrize(
    ("scores", "patience", "ends"),
    [
        ([0.5, 0.5, 0.5, 0.5], 0, False),
        ([0.5, 0.5, 0.5], 2, True),
        ([0.5, 0.4, 0.502, 0.5], 2, False),
        ([0.5, 0.5009, 0.4], 2, True),
        # None of them is a gain over the one before.
        ([0.5, 0.5009, 0.5018, 0.5027], 2, False),
        ([-3.0], 1, False),
        ([], 1, False),
    ],
)
def test_patience_counts_looks_without_a_gain(scores, patience, ends):
    assert converged(scores, patience) is ends


def test_a_run_that_has_converged_stops_and_stops_again_after_a_kill(start, arrays, monkeypatch):
    settings = Fit(batch_size=2, epochs=3.2, evaluations=4, patience=1)
    first = start("flat", settings, scores=[0.2, 0.9, 0.5])
    # Dead before the checkpoint says that the run has ended.
    monkeypatch.setattr("tlx.looks.save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        first()
    monkeypatch.undo()
    second = start("flat", settings)
    history = second()
    assert (history.stopped, history.converged, history.best.number) == (True, True, 2)
    assert second.looks == second.updates == []
    for kept, seen in zip(arrays(second.made.learner.variables), first.weights[1], strict=True):
        np.testing.assert_array_equal(kept, seen)


def test_a_listener_prunes_a_run(start):
    run = start("pruned", Fit(batch_size=2, epochs=3.2, evaluations=4))
    run.answers = {2: "prune"}
    with pytest.raises(PrunedError):
        run()
    assert len(run.looks) == 2

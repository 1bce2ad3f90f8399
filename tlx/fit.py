"""The training loop."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tlx.devices import Strategy, alone
from tlx.errors import TrainingError, above, at_least, refuse_values
from tlx.events import NOBODY, Listener
from tlx.features import Source
from tlx.freeze import Span
from tlx.history import History, record, resume
from tlx.lazy import tf
from tlx.learner import Learner
from tlx.looks import Looks
from tlx.optimizers import AdamW, Optimizer
from tlx.pipeline import Unit, order
from tlx.registry import rooms
from tlx.schedules import Cosine, Schedule


@rooms.register("fit")
@dataclass(frozen=True)
class Fit:
    """How a network is trained: by which optimizer, how fast, and for how long.

    `epochs` counts passes over the training pictures. `batch_size` is how many examples an update sees, at most all
    that the epochs hold; if they do not fit in memory together, they are taken in even micro-batches (of `micro_batch`
    at most, if given) whose gradients are added up. `optimizer` makes steps of gradients, whose global norm `clip`
    bounds; `weight_decay` is decoupled from them, and leaves biases and normalization alone.
    `learning_rate` is the head's, and `backbone_rate` that of unfrozen backbone layers relative to it, where the
    freeze policy names no other. It rises over the share `warmup` of the updates, and then follows `schedule`; both
    are of each phase of the freeze policy. `ema` is the decay of a moving average of the weights, which is then
    what gets evaluated and kept.
    `matmul` is what the 1x1 convolutions of an update compute in. "bfloat16" is for CPUs that have instructions for it,
    where it makes updates of a head a fifth faster; weights, sums and all other layers stay float32, and so does
    everything that a look or a prediction computes.
    `strategy` says which devices share an update: "none" is one, "mirrored" all GPUs of this machine, and
    "multi_worker" those of all machines that the environment variable TF_CONFIG names, where the same command
    is given on each; `micro_batch` is then each machine's. The update is the same, whoever takes part.
    `evaluations` is how often the validation split is looked at, evenly spread; the best look is kept.
    `oversample`, 0 to 1, is for classes that are rare: pictures of a class that a smaller share of them has, f, come
    sqrt(oversample / f) times as often, in the place of others: the run gets no longer. 0 leaves it off.
    `patience`, where it is not 0, ends a run after so many looks in a row, of its last phase, that were no better than
    those before by more than 0.001. It is good for schedules that do not fall, and for a search, whose time goes to
    other trials then. Under one that falls to zero much of the gain comes with the last, small steps, which a run that
    ends early does not make: give it the patience of most of its looks, or none.
    """

    learning_rate: float = 5e-3
    batch_size: int = 16
    epochs: float = 40.0
    backbone_rate: float = 0.25
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 10.0
    ema: float | None = None
    evaluations: int = 8
    micro_batch: int | None = None
    optimizer: Optimizer = AdamW()
    schedule: Schedule = Cosine()
    matmul: Literal["float32", "bfloat16"] = "float32"
    strategy: Strategy = "none"
    oversample: float = 0.0
    patience: int = 0

    def __post_init__(self):
        sound = {
            "learning_rate": above(0),
            "batch_size": at_least(1),
            "epochs": above(0),
            "backbone_rate": at_least(0),
            "weight_decay": at_least(0),
            "warmup": at_least(0, below=1),
            "clip": above(0),
            "ema": at_least(0, below=1),
            "evaluations": at_least(1),
            "micro_batch": at_least(1),
            "oversample": at_least(0, most=1),
            "patience": at_least(0),
        }
        refuse_values("fit", self, sound)

    def updates(self, parts: int) -> int:
        """Return how many updates `epochs` passes over so many pictures, or windows of pictures, are: at least one."""
        return max(1, round(self.epochs * parts / self.batch(parts)))

    def batch(self, parts: int) -> int:
        """Return how many examples an update sees: a batch larger than all epochs together would only repeat them."""
        return min(self.batch_size, max(1, round(self.epochs * parts)))

    def rate(self, update: int, updates: int) -> float:
        """Return the learning rate of update number `update`, counted from 0."""
        warm = max(1, round(self.warmup * updates))
        after = max(1, updates - warm)
        if update < warm:
            return self.learning_rate * (update + 1) / warm * self.schedule.at(0, after)
        return self.learning_rate * self.schedule.at(update - warm, after)


def fit(
    learner: Learner,
    train: Source,
    settings: Fit,
    seed: int,
    evaluate: Callable[[], tuple[float, dict[str, Any], dict[str, float]]],
    folder: Path,
    micro: int | None = None,
    listener: Listener = NOBODY,
    span: Span | None = None,
    history: History | None = None,
) -> History:
    """Train through one phase, the updates of `span` or else all of them, and return how the run has gone so far.

    `history` is that of the phases before. `evaluate` judges the learner's present weights: it returns the score that
    the best look has most of, the metrics, and scalars. `listener` is told of each update and each look, and answers
    looks; of several workers the chief's answer holds for all. Looks are spread evenly over the whole run; warm-up
    and schedule are the phase's. `micro` is how many examples fit in memory at once, if that is known; where they turn
    out not to, it is halved and the update begun again. Checkpoints lie in `folder`, and so do the weights of the best
    look (`tlx.history.take_best`); where there is one of this phase already the run goes on from it, with the numbers
    that it would have had without the interruption. A look that nobody answered before that is told again. Of several
    workers only the chief looks, and reads and writes checkpoints; the others' histories hold no looks.

    Raises:
      TrainingError: the loss or its gradient is not finite; the message names the update and the pictures.
      PrunedError: the listener has seen enough.
    """
    parts = len(train.views.parts)
    size, updates = settings.batch(parts), settings.updates(parts)
    span, history, share = span or Span(0, 0, updates, updates), history or History(), learner.devices.share(size)
    done = _resume(learner, history, folder, span)
    fitting = min(n for n in (len(share), settings.micro_batch, micro, history.micro_batches[span.number]) if n)
    feed = _Feed(train, settings, seed, share, fitting)
    at = sorted({max(1, round(updates * (i + 1) / settings.evaluations)) for i in range(settings.evaluations)})
    looks = Looks(learner, evaluate, listener, history, folder, span, at, settings.patience)
    if done > span.start:
        looks.take_up()
    todo = range(done, done if history.stopped else span.stop)
    for update, scalars, rate in _updates(learner, feed, settings, span, todo):
        history.fits(feed.micro, feed.halved)
        looks.since.count(scalars, size)
        listener.progress("training", update, updates, f"loss {scalars['loss']:.3f}")
        if update in at:
            looks.look(update, update * size / parts, rate)
        if history.stopped:
            break
    feed.close()
    history.seconds = history.elapsed
    return history


def _resume(learner: Learner, history: History, folder: Path, span: Span) -> int:
    """Bring learner and history to where this phase was left, if it was, and return how many updates are done."""
    devices = learner.devices
    done = max(span.start, devices.told(resume(folder, learner, history, span.number) if devices.chief else 0))
    devices.follow(learner.state)
    history.enter(span.number)
    if devices.chief:
        record(folder, history)
    # A run that was stopped and then killed is at its end, for every worker.
    history.stopped = devices.told(history.stopped)
    return done


def _updates(
    learner: Learner, feed: "_Feed", settings: Fit, span: Span, todo: range
) -> Iterator[tuple[int, dict[str, float], float]]:
    """Do updates of a phase, and yield of each its number from 1, its scalars and its rate."""
    for update in todo:
        rate = settings.rate(update - span.start, span.stop - span.start)
        scalars = _update(learner, feed, update, rate)
        if not math.isfinite(scalars["loss"]):
            raise _not_finite(feed, update, scalars["loss"], learner.scale.used)
        yield update + 1, scalars, rate


class _Feed:
    """This worker's `share` of each update's examples, in parts of at most `micro`, loaded ahead from any update on."""

    def __init__(self, train: Source, settings: Fit, seed: int, share: range, micro: int):
        self.train, self.share, self.micro, self.halved = train, share, micro, False
        self.size = settings.batch(len(train.views.parts))
        self._seed, self._repeats = seed, train.views.repeats(settings.oversample)
        self._views = train.views.count or max(1, math.ceil(settings.epochs * self._repeats.max()))
        self._parts: Any = (nothing for nothing in ())
        self._next = -1

    def units(self, update: int) -> Iterator[Unit]:
        """Yield the units of an update and of all that follow it."""
        return order(self.train.views.parts, self._views, self._seed, update * self.size, self._repeats)

    def of(self, update: int) -> Iterator[tuple]:
        """Yield the parts of this worker's share of one update: inputs, targets, and each example's seeds."""
        if update != self._next:
            self.close()
            mine = (unit for i, unit in enumerate(self.units(update)) if i % self.size in self.share)
            self._parts = self.train.batches(mine, len(self.share), self.micro)
        self._next = -1
        for _ in range(math.ceil(len(self.share) / self.micro)):
            units, *arrays = next(self._parts)
            yield *arrays, self._seeds(update, units)
        self._next = update + 1

    def _seeds(self, update: int, units: Any) -> Any:
        """Return int32 [b, 2], for what is drawn at random within a head: one for each window in each update."""
        numbers = np.array([self.train.views.numbers[Unit(*unit).part] for unit in units.tolist()], np.int64)
        moment = np.random.SeedSequence([self._seed, update]).generate_state(1, np.uint32).astype(np.int64)
        return tf.convert_to_tensor(np.stack([np.full_like(numbers, moment[0] >> 1), numbers], 1).astype(np.int32))

    def close(self) -> None:
        """Stop loading ahead."""
        self._parts.close()


def _update(learner: Learner, feed: _Feed, update: int, rate: float) -> dict[str, float]:
    while True:
        try:
            return learner.update(feed.of(update), rate)
        except OverflowError:
            continue
        except tf.errors.UnavailableError:
            raise alone() from None
        except tf.errors.ResourceExhaustedError as error:
            if feed.micro == 1:
                raise TrainingError(
                    "one example alone does not fit in memory; try a smaller run.image_size, fewer unfrozen"
                    f" layers or a smaller backbone ({error.message.splitlines()[0]})"
                ) from None
            feed.micro, feed.halved = (feed.micro + 1) // 2, True


def _not_finite(feed: _Feed, update: int, loss: float, half: bool) -> TrainingError:
    examples = feed.train.views.dataset.examples
    names = sorted({examples[unit.picture].image.name for unit in islice(feed.units(update), feed.size)})
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return TrainingError(
        f"the loss or its gradient became {loss} at update {update + 1}, on these pictures: {shown};"
        " try a smaller fit.learning_rate, and look at these pictures' labels"
        + ("; float16 ends at 65504, so try run.precision = 'mixed_bfloat16', too" if half else "")
    )

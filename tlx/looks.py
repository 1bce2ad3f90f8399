"""Looks at the validation split while a run goes on: judged and kept, told to who listens, and the answer obeyed."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlx import gpu, memory
from tlx.events import Answer, Listener, Look, PrunedError
from tlx.freeze import Span
from tlx.history import History, keep, note_answer, save
from tlx.learner import Learner

# By how much a score has to be better to count as a gain.
GAIN = 1e-3


def converged(scores: Iterable[float], patience: int) -> bool:
    """Return whether the last `patience` scores, none of which is a gain over the best before, end a run; 0: never.

    Small gains that follow one another add up.
    """
    best, since = -math.inf, 0
    for score in scores:
        best, since = (score, 0) if score > best + GAIN else (best, since + 1)
    return 0 < patience <= since


class Looks:
    """Looks at the validation split after the updates `at`: judged and kept by the chief, answered for all workers.

    `since` is to be told of each update in between. Where the phase is the run's last, it ends after `patience` looks
    without a gain; see `converged`.
    """

    def __init__(
        self,
        learner: Learner,
        evaluate: Callable[[], tuple[float, dict[str, Any], dict[str, float]]],
        listener: Listener,
        history: History,
        folder: Path,
        span: Span,
        at: Sequence[int],
        patience: int = 0,
    ):
        self._learner, self._evaluate, self._listener = learner, evaluate, listener
        self._history, self._folder, self._span, self._at = history, folder, span, at
        self._patience = patience if span.stop == span.of else 0
        self.since = Since()

    def look(self, update: int, epoch: float, rate: float) -> None:
        """Judge the present weights, keep them, and do what the listener answers."""
        answer = None
        if self._learner.devices.chief:
            keep(self._learner, self._history, self._judge(update, epoch, rate), self._folder)
            answer = self._ask()
        self._obey(answer)
        self.since.go_on()

    def take_up(self) -> None:
        """Obey the answer to the last look of a resumed run, and ask for it where the run was killed before it came."""
        if self._history.stopped:
            return
        answer = None
        if self._learner.devices.chief and not (answer := self._history.looks[-1].answer):
            # Whoever listens may show what is predicted now.
            with self._learner.averaged():
                self._evaluate()
            answer = self._ask()
        self._obey(answer)

    def _judge(self, update: int, epoch: float, rate: float) -> Look:
        place = self._at.index(update) + 1, len(self._at), update, self._span.of, epoch
        self._history.images_per_second = self.since.images_per_second
        with self._learner.averaged():
            score, metrics, scalars = self._evaluate()
        scalars |= {**self.since.told(), "learning_rate": rate}
        spent = self._history.elapsed, memory.own(), gpu.busy()
        return Look(*place, score, metrics, scalars, self._span.number, self._learner.rates(rate), *spent)

    def _ask(self) -> Answer:
        answer = self._listener.evaluated(self._history.looks[-1])
        note_answer(self._folder, self._history, answer)
        return answer

    def _obey(self, answer: Answer | None) -> None:
        answer, flat = self._learner.devices.told([answer, self._is_flat()])
        if answer == "prune":
            raise PrunedError
        if answer == "stop" or flat:
            self._history.stopped, self._history.converged = True, answer != "stop"
            if self._learner.devices.chief:
                save(self._learner, self._history, self._folder)

    def _is_flat(self) -> bool:
        # What looks say outlasts a kill, so a resumed run comes to the same.
        looks = [look for look in self._history.looks if look.phase == self._span.number]
        ahead = bool(looks) and looks[-1].update < self._span.of
        return ahead and converged((look.score for look in looks), self._patience)


class Since:
    """Updates' scalars since the last look, and the speed: examples by the time they take, waits for them included."""

    def __init__(self):
        self._scalars: dict[str, list[float]] = {}
        self._images, self._seconds, self._since = 0, 0.0, None

    def count(self, scalars: Mapping[str, float], images: int) -> None:
        for name, value in scalars.items():
            self._scalars.setdefault(name, []).append(value)
        # The first update traces, and says nothing about the speed.
        if self._since is not None:
            self._images += images
            self._seconds += time.monotonic() - self._since
        self.go_on()

    def go_on(self) -> None:
        """Leave out the time since the last count."""
        self._since = time.monotonic()

    @property
    def images_per_second(self) -> float:
        return self._images / self._seconds if self._seconds else 0.0

    def told(self) -> dict[str, float]:
        """Return what a look tells, and begin anew; a resumed run, which begins after a look, so says the same."""
        means = {f"train/{name}": sum(values) / len(values) for name, values in self._scalars.items()}
        self._scalars.clear()
        return {**means, "images_per_second": self.images_per_second}

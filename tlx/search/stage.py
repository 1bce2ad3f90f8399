"""What a search does beside its trials, before and after them; of many hosts one does it, and others take it over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tlx import ownership
from tlx.config import Experiment
from tlx.errors import TrainingError
from tlx.evaluate.choose import evaluator_of
from tlx.evaluate.evaluator import Metric
from tlx.events import Listener
from tlx.search.hosts import Alone
from tlx.search.settings import Search
from tlx.search.space import fixed_bindings
from tlx.work.attempts import Attempts
from tlx.work.hand import Outcome, persist

# So often, in seconds, a host looks whether another one has come to an end.
POLL = 0.5
_GO_ON = "nothing that was finished is lost: the same command goes on from here"


@dataclass(frozen=True)
class Stage:
    """A part of a search beside its trials. `tick` notes how long the search has taken."""

    experiment: Experiment
    search: Search
    host: Alone
    attempts: Attempts
    display: Listener
    tick: Callable[[], None]

    @property
    def metric(self) -> Metric:
        """The metric that the search maximizes."""
        return evaluator_of(self.experiment).metric(self.search.metric)

    def train(self, bindings: Sequence[str], place: str, more: Sequence[str] = ()) -> Outcome:
        """Train once in the folder `place` of the search, and return how that ended; `more` change no memory."""
        folder = self.host.folder / place
        ownership.take(folder, "run", within=self.host.folder)
        fixed = [*fixed_bindings(self.search.metric), *more]
        return self.persist(partial(self.attempts.train, list(bindings), folder, fixed, self.display), place)

    def persist(self, attempt: Callable[[], Outcome], what: str) -> Outcome:
        """Return how an attempt ended, after a second one where the worker was lost; see `tlx.work.hand.persist`."""
        return persist(attempt, what, self.display)

    @staticmethod
    def failed(what: str, outcome: Outcome) -> TrainingError:
        """Return the error that says what could not be done, and that the search can be gone on with."""
        return TrainingError(f"{what}: {outcome.content}\n{_GO_ON}")

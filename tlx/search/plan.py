"""What a search is to try: the space of its trials, the first of them, and how many there are to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlx.config import Experiment
from tlx.search.settings import Search
from tlx.search.space import Space, alternatives_of, binding, space_of
from tlx.search.storage import root


@dataclass(frozen=True)
class Plan:
    """The trials of a search. `points` are the first ones, or all of a grid, as Optuna is asked for them.

    Trial 0 is the experiment as written, and `as_written` the space that has it; all others lie in `space`. `wanted` is
    how many are to be finished.
    """

    space: Space
    as_written: Space
    points: list[dict[str, Any]]
    wanted: int

    @classmethod
    def of(cls, experiment: Experiment, search: Search, chosen: Mapping[str, Any]) -> "Plan":
        """Return the plan of a search that has chosen these of its alternatives.

        Where that is not what is written, trial 1 is what was chosen, with all else as written.
        """
        alternatives = alternatives_of(experiment, search)
        written = alternatives.choose(lambda name, _: experiment.value(name))
        space, as_written = (space_of(experiment, search, one) for one in (chosen, written))
        points = [as_written.written(experiment)]
        if alternatives.asked(chosen) != alternatives.asked(written):
            points.append(space.asked(space.usual(experiment, {})))
        if search.sampler == "grid":
            points += [point for point in space.grid(search.seed) if point != points[-1]]
        first = points[: search.trials]
        return cls(space, as_written, first, len(first) if search.sampler == "grid" else search.trials)

    def bindings(self, trial: Any) -> list[str]:
        """Return what Optuna proposes for a trial as bindings."""
        space = self.space if root(trial) else self.as_written
        return [binding(name, value) for name, value in space.propose(trial).items()]

"""The first look at a search's alternatives: which combination of them rates and depth are then searched for.

Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
AISTATS 2016): all combinations are trained briefly, the better half for twice as long, and so on until one is left.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tlx.errors import TrainingError
from tlx.evaluate.evaluator import in_words
from tlx.search import ranges
from tlx.search.space import alternatives_of, binding
from tlx.search.stage import POLL, Stage

# Under this key the study keeps what the first look came to.
FIRST_LOOK = "first look"
# The share of a search's minutes after which it begins no further training; the rest is for rates and depth.
FIRST_LOOK_AT_MOST = 1 / 3
# Scores so close are alike: seeds alone move them by more. The quicker combination is then the better.
_ALIKE = 0.01


@dataclass
class _Combination:
    """One value for each alternative that has a meaning beside the others, and what came of training with them last.

    `found` has the validation metrics, the score, the seconds, how many of these went into filling which cache, and,
    where it cannot be trained, the cause.
    """

    number: int
    values: dict[str, Any]
    state: str = "not trained"
    round: int = 0
    epochs: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def bindings(self) -> list[str]:
        return [binding(name, value) for name, value in self.values.items()]

    @property
    def score(self) -> float | None:
        return self.found.get("score")

    def __str__(self) -> str:
        return ", ".join(self.bindings)


@dataclass(frozen=True)
class FirstLook(Stage):
    """The choice among a search's alternatives, made by one training after another, so that their seconds compare.

    Of many hosts one makes it. Each training is noted in the study: whoever comes after goes on from there. `late`
    says whether it has taken all the time that it may.
    """

    late: Callable[[], bool]
    # How many seconds each cache took to fill, by its key, whichever combination did that.
    fills: dict[str, float] = field(default_factory=dict)

    def __call__(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the chosen values by name, and all combinations as `result.json` lists them; none where one is all.

        Raises:
          TrainingError: none of them can be trained.
        """
        if len(self.combinations) == 1:
            return self.combinations[0].values, []
        of = [one.bindings for one in self.combinations]
        while (known := self.host.noted(FIRST_LOOK, of)) is None:
            if not self.host.claim():
                time.sleep(POLL)
                continue
            try:
                # Another host may just have come to its end.
                if self.host.noted(FIRST_LOOK, of) is None:
                    chosen = self._choose()
                    rows = [self._row(one) for one in self.combinations]
                    self.host.note(FIRST_LOOK, of, {"chosen": chosen.number, "rows": rows})
            finally:
                self.host.disclaim()
        return self.combinations[known["chosen"]].values, known["rows"]

    @cached_property
    def combinations(self) -> list[_Combination]:
        """Every combination of the alternatives."""
        space = alternatives_of(self.experiment, self.search)
        values = (
            {name: ranges.as_proposed(asked, space.bounds[name]) for name, asked in point.items()}
            for point in space.combinations()
        )
        return [_Combination(number, one) for number, one in enumerate(values)]

    def _choose(self) -> _Combination:
        going, share, number = self.combinations, self.search.first_look, 1
        self.display.say(f"a first look at {len(going)} combinations of search.alternatives")
        while len(going) > 1:
            for one in going:
                able = [other for other in going if other.score is not None]
                if able and self.late():
                    # After the first round they are in order, and some trained for longer than others say nothing.
                    best = able[0] if number > 1 else self._ranked(able)[0]
                    return self._end(best, ", for its third of search.minutes is over")
                self._train(one, number, min(share, 1.0))
            going, share, number = self._better_half(going, number), 2 * share, number + 1
        return self._end(going[0])

    def _end(self, chosen: _Combination, why: str = "") -> _Combination:
        for one in self.combinations:
            if one.state == "not trained" and one.score is not None:
                one.state = "dropped"
        chosen.state = "chosen"
        self.display.say(f"the search goes on with {chosen}{why}")
        return chosen

    def _better_half(self, going: Sequence[_Combination], number: int) -> list[_Combination]:
        """Return those that go on after a round, the best first, and tell of the others."""
        ranked = self._ranked(going)
        if not ranked:
            causes = "\n  ".join(f"{one}: {one.found['cause']}" for one in going)
            raise TrainingError(f"no combination of search.alternatives can be trained:\n  {causes}")
        kept = ranked[: math.ceil(len(ranked) / 2)]
        for one in going:
            if one.score is None:
                one.state = "infeasible"
                self.display.say(f"dropped: {one}: {one.found['cause']}")
            elif one not in kept:
                one.state = "dropped"
                seen = in_words(one.found["validation"])
                self.display.say(f"dropped: {one}: {seen}, {self._seconds(one):.0f} s with filling its cache")
        return kept

    def _ranked(self, among: Sequence[_Combination]) -> list[_Combination]:
        """Return those that could be trained, the best first: of those that are as good as the best the quickest."""
        left, ranked = [one for one in among if one.score is not None], []
        while left:
            best = max(one.score for one in left)
            ranked.append(min((one for one in left if best - one.score <= _ALIKE), key=self._seconds))
            left.remove(ranked[-1])
        return ranked

    def _seconds(self, one: _Combination) -> float:
        """Return what training took, with filling the caches that it used, as if it were alone in using them."""
        filled = one.found["fills"]
        return one.found["seconds"] - sum(filled.values()) + sum(self.fills[key] for key in filled)

    def _row(self, one: _Combination) -> dict[str, Any]:
        known = {key: one.found.get(key) for key in ("validation", "score", "cause")}
        seconds = None if one.score is None else self._seconds(one)
        of = {"round": one.round, "epochs": one.epochs}
        return {"number": one.number, "state": one.state, "bindings": one.bindings, **of, **known, "seconds": seconds}

    def _train(self, one: _Combination, number: int, share: float) -> None:
        """Train a combination for a share of all epochs, unless an earlier driver or another host has done so."""
        one.round, one.epochs = number, self.experiment.value("fit.epochs") * share
        looks = math.ceil(self.experiment.value("fit.evaluations") * share)
        shorter = [binding("fit.epochs", one.epochs), binding("fit.evaluations", looks)]
        key, of = f"first/{one.number:04d}-{number}", [one.bindings, shorter]
        found = self.host.noted(key, of)
        if found is None:
            found = self._attempt(one, key, shorter)
            self.host.note(key, of, found)
            self.tick()
        one.found = found
        for cache, seconds in found.get("fills", {}).items():
            self.fills[cache] = max(seconds, self.fills.get(cache, 0.0))

    def _attempt(self, one: _Combination, key: str, shorter: list[str]) -> dict[str, Any]:
        self.display.say(f"{key}: {', '.join([*one.bindings, *shorter])}")
        outcome = self.train(one.bindings, key, shorter)
        if outcome.kind in ("refused", "lost"):
            raise self.failed(f"{self.host.folder / key} could not be trained", outcome)
        if outcome.kind != "done":
            return {"cause": outcome.content.strip().splitlines()[-1] if outcome.kind == "crash" else outcome.content}
        metrics = outcome.content["metrics"]
        score = self.metric.score(metrics)
        kept = {"seconds": outcome.content["seconds"], "fills": outcome.content["fill_seconds"]}
        return {"validation": metrics, "score": score, **kept}

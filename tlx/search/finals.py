"""The end of a search: the best few once more with other seeds, the winner judged, and the study summed up."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tlx import checkpoint
from tlx.errors import TrainingError
from tlx.report import pareto
from tlx.search.comparison import compared
from tlx.search.space import binding
from tlx.search.stage import POLL, Stage

_FINALISTS = 3


@dataclass(frozen=True)
class Finals(Stage):
    """The end of a search, from its finished trials to `result.json`.

    `first_look` is what its alternatives came to, as `result.json` lists it.

    Of many hosts and later drivers one after another comes to this; what one has done the others take as it is. What
    is judged is judged once, where its weights are, and the test split is opened only when the winner is chosen.
    """

    first_look: Sequence[dict[str, Any]] = ()

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Choose the winner, judge it and the experiment as written, and write and return what `result.json` holds.

        Raises:
          TrainingError: no trial was trained to its end, or the winner cannot be judged.
        """
        complete = [row for row in rows if row["state"] == "complete"]
        if not complete:
            causes = "\n  ".join(dict.fromkeys(row["cause"] or "pruned" for row in rows))
            raise TrainingError(f"no trial could be trained to its end:\n  {causes}")
        ranked = sorted(self._within(complete), key=lambda row: row["score"], reverse=True)
        written = next((row for row in complete if 0 in (row["trial"], row["retry_of"])), None)
        told = None
        while True:
            if self.host.claim():
                try:
                    best, repeats = self._choose(ranked, written)
                    judged, place = self._judged("judged", best)
                    against, there = self._compared(written) if written not in (None, best) else (None, None)
                    seconds = self._took(best, rows) if judged and not there else None
                finally:
                    self.host.disclaim()
                if seconds is not None:
                    return self._write(best, repeats, judged, written, against, rows, seconds)
                if (place, there) != told:
                    self._tell_of(best, place, there)
                    told = place, there
            time.sleep(POLL)

    def _within(self, complete: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those that keep the limits."""
        within = [row for row in complete if not row["over"]]
        if not within:
            limits = self.search.limits
            least = min(complete, key=lambda row: sum(row["costs"][name] / limits[name] for name in row["over"]))
            costs = ", ".join(f"{name} {least['costs'][name]:.4g} of {limits[name]:g}" for name in least["over"])
            raise TrainingError(
                f"no trial keeps search.limits; the closest, trial {least['trial']}, has {costs}. More search.trials go"
                " on from here; other limits are another search, with another --run_dir"
            )
        return within

    def _tell_of(self, best: dict[str, Any], place: str | None, there: str | None) -> None:
        if place:
            self.display.say(f"the best one, trial {best['trial']}, is judged by the host that has it: {place}")
        if there:
            self.display.say(f"the experiment as written is judged by the host that has it: {there}")

    def _choose(
        self, ranked: list[dict[str, Any]], written: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the winner's row, and how it compares with others where each was run several times."""
        if self.search.repeat == 1:
            return ranked[0], None
        of = [self.search.repeat, *(row["trial"] for row in ranked)]
        chosen = self.host.noted("chosen", of)
        if chosen is None:
            best, repeats = self._repeat(ranked, written)
            chosen = {"trial": best["trial"], "repeats": repeats}
            self.host.note("chosen", of, chosen)
        return next(row for row in ranked if row["trial"] == chosen["trial"]), chosen["repeats"]

    def _judged(self, key: str, row: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
        """Return how a trial does on the test split, or None and where the host is that can tell."""
        judged = self.host.noted(key, row["trial"])
        place = None if judged else self.host.missing(row)
        if not judged and not place:
            judged = self._judge(row)
            self.host.note(key, row["trial"], judged)
            self.tick()
        return judged, place

    def _took(self, best: dict[str, Any], rows: list[dict[str, Any]]) -> float:
        """Return how long the search took until it had this end, which every host is to tell alike."""
        of = [self.search.repeat, best["trial"], *(row["trial"] for row in rows)]
        seconds = self.host.noted("took", of)
        if seconds is None:
            self.tick()
            seconds = self.host.seconds
            self.host.note("took", of, seconds)
        return seconds

    def _compared(self, written: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
        """Judge the experiment as written, without which the search has its winner all the same."""
        try:
            return self._judged("judged written", written)
        except TrainingError as error:
            self.display.say(f"the experiment as written is not compared on the test split: {error}")
            return None, None

    def _judge(self, row: dict[str, Any]) -> dict[str, Any]:
        what, place = f"trial {row['trial']}", self.host.folder / row["folder"]
        if not place.exists():
            raise TrainingError(
                f"{what} cannot be judged, for {place} is gone; train it anew: tlx train, with these --gin_bindings:"
                f" {row['bindings']}"
            )
        judge = partial(self.attempts.judge, row["bindings"], place, self.display)
        outcome = self.persist(judge, f"judging {place}")
        if outcome.kind != "done":
            raise self.failed(f"{what} could not be judged", outcome)
        return {key: outcome.content[key] for key in ("split", "metrics")}

    def _write(
        self,
        best: dict[str, Any],
        repeats: dict[str, Any] | None,
        judged: dict[str, Any],
        written: dict[str, Any] | None,
        against: dict[str, Any] | None,
        rows: list[dict[str, Any]],
        seconds: float,
    ) -> dict[str, Any]:
        folder = self.host.folder
        chosen = {key: best[key] for key in ("trial", "bindings", "validation", "costs", "folder", "host")}
        result = {"best": {**chosen, "test": judged["metrics"] if judged["split"] == "test" else None}}
        result |= {"written": compared(self.metric, best, judged, written, against, repeats)}
        if repeats:
            result["repeats"] = repeats
        result |= judged
        # Of all attempts, those of earlier drivers included; of several workers more than passes meanwhile.
        worked = sum(row["seconds"] or 0.0 for row in rows)
        if self.first_look:
            result["first_look"] = list(self.first_look)
        result |= {"seconds": seconds, "trial_seconds": worked, "trials": rows}
        for name in ("environment.json", "data.json"):
            if (folder / best["folder"] / name).exists():
                checkpoint.write(folder / name, (folder / best["folder"] / name).read_bytes())
        if names := self.search.objectives:
            result["front"] = [row["trial"] for row in pareto.front(rows, names)]
            pareto.keep(folder, rows, names, self.search.limits, self.metric.name)
        checkpoint.write(folder / "result.json", json.dumps(result, indent=1).encode())
        return result

    def _repeat(
        self, ranked: list[dict[str, Any]], written: dict[str, Any] | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the row with the best mean over several seeds, and how it compares with the experiment as written."""
        finalists = list(
            {row["trial"]: row for row in [*ranked[:_FINALISTS], *([written] if written else [])]}.values()
        )
        scores = {row["trial"]: [row["score"], *self._seeds(row)] for row in finalists}
        spread = {trial: (statistics.mean(values), statistics.stdev(values)) for trial, values in scores.items()}
        # The experiment as written is compared even where it is beyond a limit, and then is not to win.
        allowed = {row["trial"] for row in ranked}
        best = max((row for row in finalists if row["trial"] in allowed), key=lambda row: spread[row["trial"]][0])
        repeats = {
            "finalists": [
                {"trial": trial, "validation": values, "mean": spread[trial][0], "spread": spread[trial][1]}
                for trial, values in scores.items()
            ]
        }
        if written:
            mean, of = spread[best["trial"]]
            gain = mean - spread[written["trial"]][0]
            beats = gain > max(of, spread[written["trial"]][1])
            repeats |= {"gain_over_written": gain, "beats_written": beats}
        return best, repeats

    def _seeds(self, row: dict[str, Any]) -> list[float]:
        """Return a trial's scores with other seeds than its own."""
        seed, metric, scores = self.experiment.value("run.seed"), self.metric, []
        for more in range(1, self.search.repeat):
            self.display.say(f"trial {row['trial']} again, with run.seed = {seed + more}")
            place = f"repeats/{row['trial']:04d}-{more}"
            metrics = self._again([*row["bindings"], binding("run.seed", seed + more)], place)
            # It trained with another seed: a configuration that now and then fails is as bad as its failures.
            scores.append(metric.score(metrics) if metrics else metric.lowest)
        return scores

    def _again(self, bindings: list[str], place: str) -> dict[str, Any] | None:
        """Return the validation metrics of one more run, or None where it is infeasible.

        One that was finished by an earlier driver is not run again.
        """
        done = self.host.folder / place / "result.json"
        if done.exists():
            return json.loads(done.read_text())["metrics"]
        outcome = self.train(bindings, place)
        self.tick()
        if outcome.kind == "done":
            return outcome.content["metrics"]
        if outcome.kind == "infeasible":
            return None
        raise self.failed(f"{self.host.folder / place} could not be trained", outcome)

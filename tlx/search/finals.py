"""The end of a search: the best few once more with other seeds, the winner judged, and the study summed up."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlx import checkpoint, ownership
from tlx.config import Experiment
from tlx.errors import TrainingError
from tlx.evaluate.choose import evaluator_of
from tlx.events import Listener
from tlx.search.hosts import Alone
from tlx.search.settings import Search
from tlx.search.space import binding, fixed_bindings
from tlx.work.attempts import Attempts
from tlx.work.hand import Outcome

_FINALISTS = 3
# So often, in seconds, a host looks whether another one has come to an end.
_POLL = 0.5
_GO_ON = "no finished trial is lost: the same command goes on from here"


def conclude(
    experiment: Experiment,
    search: Search,
    host: Alone,
    rows: list[dict[str, Any]],
    attempts: Attempts,
    display: Listener,
) -> dict[str, Any]:
    """Choose the winner, judge it on the test split, and write and return what `result.json` holds.

    Of many hosts and later drivers one after another comes to this; what one has done the others take as it is. The
    winner is judged once, where its weights are.

    Raises:
      TrainingError: no trial was trained to its end, or the winner cannot be judged.
    """
    complete = [row for row in rows if row["state"] == "complete"]
    if not complete:
        causes = "\n  ".join(dict.fromkeys(row["cause"] or "pruned" for row in rows))
        raise TrainingError(f"no trial could be trained to its end:\n  {causes}")
    ranked = sorted(complete, key=lambda row: row["score"], reverse=True)
    told = None
    while True:
        if host.claim():
            try:
                best, comparison = _choose(experiment, search, host, ranked, attempts, display)
                judged = host.noted("judged", best["trial"])
                place = None if judged else host.missing(best)
                if not judged and not place:
                    judged = _judge(host.folder, best, attempts, display)
                    host.note("judged", best["trial"], judged)
            finally:
                host.disclaim()
            if judged:
                return _write(host.folder, best, comparison, judged, rows)
            if place != told:
                display.say(f"the best one, trial {best['trial']}, is judged by the host that has it: {place}")
                told = place
        time.sleep(_POLL)


def _choose(
    experiment: Experiment,
    search: Search,
    host: Alone,
    ranked: list[dict[str, Any]],
    attempts: Attempts,
    display: Listener,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the winner's row, and how it compares with others where each was run several times."""
    if search.repeat == 1:
        return ranked[0], None
    of = [search.repeat, *(row["trial"] for row in ranked)]
    chosen = host.noted("chosen", of)
    if chosen is None:
        best, comparison = _repeat(experiment, search, host.folder, ranked, attempts, display)
        chosen = {"trial": best["trial"], "repeats": comparison}
        host.note("chosen", of, chosen)
    return next(row for row in ranked if row["trial"] == chosen["trial"]), chosen["repeats"]


def _judge(folder: Path, best: dict[str, Any], attempts: Attempts, display: Listener) -> dict[str, Any]:
    what, place = f"the winner, trial {best['trial']},", folder / best["folder"]
    if not place.exists():
        raise TrainingError(
            f"{what} cannot be judged, for {place} is gone; train it anew: tlx train, with these --gin_bindings:"
            f" {best['bindings']}"
        )
    outcome = _persist(lambda: attempts.judge(best["bindings"], place, display), f"judging {place}", display)
    if outcome.kind != "done":
        raise TrainingError(f"{what} could not be judged: {outcome.content}\n{_GO_ON}")
    return {key: outcome.content[key] for key in ("split", "metrics")}


def _write(
    folder: Path,
    best: dict[str, Any],
    comparison: dict[str, Any] | None,
    judged: dict[str, Any],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    chosen = {key: best[key] for key in ("trial", "bindings", "validation", "folder", "host")}
    result = {"best": {**chosen, "test": judged["metrics"] if judged["split"] == "test" else None}}
    if comparison:
        result["repeats"] = comparison
    result |= judged
    # Of all attempts, those of earlier drivers included.
    result |= {"seconds": sum(row["seconds"] or 0.0 for row in rows), "trials": rows}
    for name in ("environment.json", "data.json"):
        if (folder / best["folder"] / name).exists():
            checkpoint.write(folder / name, (folder / best["folder"] / name).read_bytes())
    checkpoint.write(folder / "result.json", json.dumps(result, indent=1).encode())
    return result


def _repeat(
    experiment: Experiment,
    search: Search,
    folder: Path,
    ranked: list[dict[str, Any]],
    attempts: Attempts,
    display: Listener,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row with the best mean over several seeds, and how it compares with the experiment as written."""
    written = [row for row in ranked if row["trial"] == 0 or row["retry_of"] == 0]
    finalists = list({row["trial"]: row for row in [*ranked[:_FINALISTS], *written]}.values())
    seed, metric = experiment.value("run.seed"), evaluator_of(experiment).metric(search.metric)
    scores = {}
    for row in finalists:
        scores[row["trial"]] = [row["score"]]
        for more in range(1, search.repeat):
            display.say(f"trial {row['trial']} again, with run.seed = {seed + more}")
            place = folder / "repeats" / f"{row['trial']:04d}-{more}"
            ownership.take(place, "run", within=folder)
            bindings = [*row["bindings"], binding("run.seed", seed + more)]
            metrics = _again(bindings, search.metric, place, attempts, display)
            # It trained with another seed: a configuration that now and then fails is as bad as its failures.
            scores[row["trial"]].append(metric.score(metrics) if metrics else metric.lowest)
    spread = {trial: (statistics.mean(values), statistics.stdev(values)) for trial, values in scores.items()}
    best = max(finalists, key=lambda row: spread[row["trial"]][0])
    comparison = {
        "finalists": [
            {"trial": trial, "validation": values, "mean": spread[trial][0], "spread": spread[trial][1]}
            for trial, values in scores.items()
        ]
    }
    if written:
        mean, of = spread[best["trial"]]
        gain = mean - spread[written[0]["trial"]][0]
        beats = gain > max(of, spread[written[0]["trial"]][1])
        comparison |= {"gain_over_written": gain, "beats_written": beats}
    return best, comparison


def _again(
    bindings: list[str], metric: str | None, place: Path, attempts: Attempts, display: Listener
) -> dict[str, Any] | None:
    """Return the validation metrics of one more run, or None where it is infeasible.

    One that was finished by an earlier driver is not run again.
    """
    done = place / "result.json"
    if done.exists():
        return json.loads(done.read_text())["metrics"]
    fixed = fixed_bindings(metric)
    outcome = _persist(lambda: attempts.train(bindings, place, fixed, display), str(place), display)
    if outcome.kind == "done":
        return outcome.content["metrics"]
    if outcome.kind == "infeasible":
        return None
    raise TrainingError(f"{place} could not be trained: {outcome.content}\n{_GO_ON}")


def _persist(attempt: Callable[[], Outcome], what: str, display: Listener) -> Outcome:
    """Return how an attempt ended; one whose worker died or crashed may have been unlucky, and is made once more."""
    outcome = attempt()
    if outcome.kind not in ("lost", "crash"):
        return outcome
    display.say(f"{what} is tried once more: {outcome.content.strip().splitlines()[-1]}")
    return attempt()

"""Whether the winner of a search beats the experiment as written: in numbers, and in one sentence."""

from collections.abc import Mapping
from typing import Any

from tlx.evaluate.evaluator import Metric

# Seeds alone moved AP by 0.03 to 0.06 on folders of some hundred pictures.
_SEEDS = 0.05


def compared(
    metric: Metric,
    best: dict[str, Any],
    judged: dict[str, Any],
    written: dict[str, Any] | None,
    against: dict[str, Any] | None,
    repeats: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what `result.json` says of the experiment as written: its metrics, the winner's gain, and a sentence.

    `best` and `written` are rows of trials, the latter None where it was not trained to its end; `judged` and
    `against` are how they do on the test split, and `repeats` how they compare where they were run several times.
    """
    if written is None:
        return {"trial": None, "says": "the experiment as written was not trained to its end"}
    found = {"trial": written["trial"], "validation": written["validation"], "test": None}
    if written is best:
        return found | {"test": _test(judged), "says": "the experiment as written is the best: no trial beat it"}
    name = metric.name
    means = {row["trial"]: row for row in repeats["finalists"]} if repeats else {}
    if means:
        pair = [means[row["trial"]] for row in (best, written)]
        shown = [f"{abs(one['mean']):.3f} ± {one['spread']:.3f}" for one in pair]
        gains = {"validation": pair[0]["mean"] - pair[1]["mean"]}
        texts = [f"validation {name} {shown[0]} against {shown[1]}, means of {len(pair[0]['validation'])} seeds"]
    else:
        gains = {"validation": _gain(metric, best["validation"], written["validation"])}
        texts = [f"validation {name} {_pair(name, best['validation'], written['validation'])}"]
    if _test(judged) and _test(against):
        found |= {"test": against["metrics"]}
        gains["test"] = _gain(metric, judged["metrics"], against["metrics"])
        texts.insert(0, f"test {name} {_pair(name, judged['metrics'], against['metrics'])}")
    doubt = f"; by one seed each{' on test' if means else ''}, so a difference under about {_SEEDS} says little"
    if means and "test" not in gains:
        doubt = ""
    return found | {"gain": gains, "says": f"trial {best['trial']} {_verdict(gains)}: {', '.join(texts)}{doubt}"}


def _test(judged: dict[str, Any] | None) -> dict[str, Any] | None:
    return judged["metrics"] if judged and judged["split"] == "test" else None


def _gain(metric: Metric, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    return metric.score(ours) - metric.score(theirs)


def _pair(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    values = (metrics["values"][name] for metrics in (ours, theirs))
    return " against ".join("-" if value is None else f"{value:.3f}" for value in values)


def _verdict(gains: Mapping[str, float]) -> str:
    better = [split for split, gain in gains.items() if gain > 0]
    worse = [split for split, gain in gains.items() if gain <= 0]
    if not better:
        return "does not beat the experiment as written"
    beats = f"beats the experiment as written on {' and '.join(better)}"
    return f"{beats}, but not on {worse[0]}" if worse else beats

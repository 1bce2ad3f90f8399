"""Whether the winner of a search beats the experiment as written: in numbers, and in one sentence."""

from collections.abc import Mapping
from typing import Any

from tlx.evaluate.evaluator import Metric

# Seeds alone moved AP, from 0 to 1, by 0.03 to 0.06 on folders of some hundred pictures.
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
    name, several = metric.name, repeats is not None
    gain, text = _on_validation(metric, best, written, repeats)
    gains, texts = {"validation": gain}, [text]
    if _test(judged) and _test(against):
        found |= {"test": against["metrics"]}
        gains["test"] = _gain(metric, judged["metrics"], against["metrics"])
        texts.insert(0, f"test {name} {_pair(name, judged['metrics'], against['metrics'])}")
    doubtful = not several or "test" in gains
    seen = [row["validation"]["values"][name] or 0.0 for row in (best, written)]
    # What is not a share, such as an error in pixels, moves by another amount.
    least = _SEEDS if doubtful and all(0 <= value <= 1 for value in seen) else 0.0
    says_little = f", so a difference under about {least} says little" if least else ""
    doubt = f"; by one seed each{' on test' if several else ''}{says_little}"
    verdict = _verdict(gains, least)
    says = f"trial {best['trial']} {verdict}: {', '.join(texts)}{doubt if doubtful else ''}"
    if written.get("over"):
        says += f"; the experiment as written is beyond search.limits ({', '.join(written['over'])})"
    return found | {"gain": gains, "says": says}


def _on_validation(
    metric: Metric, best: dict[str, Any], written: dict[str, Any], repeats: dict[str, Any] | None
) -> tuple[float, str]:
    """Return the gain on validation, and both values in words: means where each was run several times."""
    if not repeats:
        ours, theirs = best["validation"], written["validation"]
        return _gain(metric, ours, theirs), f"validation {metric.name} {_pair(metric.name, ours, theirs)}"
    means = {row["trial"]: row for row in repeats["finalists"]}
    pair = [means[row["trial"]] for row in (best, written)]
    shown = " against ".join(f"{abs(one['mean']):.3f} ± {one['spread']:.3f}" for one in pair)
    seeds = f"means of {len(pair[0]['validation'])} seeds"
    return pair[0]["mean"] - pair[1]["mean"], f"validation {metric.name} {shown}, {seeds}"


def _test(judged: dict[str, Any] | None) -> dict[str, Any] | None:
    return judged["metrics"] if judged and judged["split"] == "test" else None


def _gain(metric: Metric, ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    return metric.score(ours) - metric.score(theirs)


def _pair(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    values = (metrics["values"][name] for metrics in (ours, theirs))
    return " against ".join("-" if value is None else f"{value:.3f}" for value in values)


def _verdict(gains: Mapping[str, float], least: float) -> str:
    """Return in words on which splits there is a gain; it "beats" where each is at least `least`."""
    better = [split for split, gain in gains.items() if gain > 0]
    worse = [split for split, gain in gains.items() if gain <= 0]
    if not better:
        return "does not beat the experiment as written"
    verb = "beats" if min(gains[split] for split in better) >= least else "is a little ahead of"
    return f"{verb} the experiment as written on {' and '.join(better)}{f', but not on {worse[0]}' if worse else ''}"

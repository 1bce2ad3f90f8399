"""The page that `benchmarks/peers.py` writes: tables of medians, and whether the goals are reached."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

Figures = dict[str, Any]
BATCH, EPOCHS = 8, 50


def page(figures: Figures) -> str:
    """Return a page of Markdown."""
    machine, (training, validation) = figures["machine"], figures["pictures"]
    lines = [
        "# Speed beside other trainers of detectors",
        "",
        f"Written by `benchmarks/peers.py` on {figures['date']}: {machine['processor']}, {machine['cores']} cores.",
        f"BCCD, {training} pictures to train on and {validation} to judge by, 320 px, batch 8, no network, weights",
        "random (but for tlx's backbone). Programs took turns; figures are medians. What was seen in each run is in",
        f"`performance.json`. {_busy(figures)}",
        "",
        *_speeds(figures),
        "",
        *_more(figures),
        "",
        "## Goals",
        "",
        "| goal | seen | reached |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in _goals(figures)),
        "",
        "## Versions",
        "",
        *_versions(figures),
    ]
    return "\n".join(lines) + "\n"


def _busy(figures: Figures) -> str:
    others = [run["others"] for run in figures["runs"] if run.get("others") is not None]
    if not others:
        return "How busy the machine was is not known."
    return f"Other programs had {statistics.median(others):.0%} of the cores (median; at most {max(others):.0%})."


def speed(run: Figures) -> float:
    """Return a training run's images per second, its first fifth of updates left out."""
    moments = run["updates"]
    skipped = max(1, len(moments) // 5) if len(moments) > 2 else 0
    return BATCH * (len(moments) - 1 - skipped) / (moments[-1] - moments[skipped])


def first_step(run: Figures) -> float:
    """Return the seconds from the command to the end of the first update."""
    return run["updates"][0] - run["began"]


def epoch(run: Figures, pictures: int) -> float:
    """Return the seconds of an epoch with its validation."""
    return pictures / speed(run) + run["judged"] - run["updates"][-1]


def _median(
    figures: Figures, tool: str, what: str, of: Callable[[Figures], float | None], turns: slice = slice(None)
) -> Any:
    """Return the median over a tool's runs, or None where none succeeded."""
    runs = [r for r in figures["runs"] if (r["tool"], r["what"]) == (tool, what) and "failed" not in r]
    values = [value for run in runs[turns] if (value := of(run)) is not None]
    return statistics.median(values) if values else None


def _predicted(how: str) -> Callable[[Figures], float | None]:
    return lambda run: statistics.median(run["predicted"][how]) if how in run["predicted"] else None


def _speeds(figures: Figures) -> Iterator[str]:
    columns = "frozen backbone, images/s | all layers, images/s | prediction, images/s"
    yield f"| | {columns} | first step of the first run, s | of a later run, s |"
    yield "|---|---:|---:|---:|---:|---:|"
    for tool, title in figures["titles"].items():
        if failed := next((r["failed"] for r in figures["runs"] if r["tool"] == tool and "failed" in r), None):
            yield f"| {title}: {failed.splitlines()[-1][:200]} | | | | | |"
        how = next(iter(_ways(figures, tool)), "")
        cells = [
            _median(figures, tool, "frozen", speed),
            _median(figures, tool, "all", speed),
            _median(figures, tool, "all", _predicted(how)),
            _median(figures, tool, "frozen", first_step, slice(0, 1)),
            _median(figures, tool, "frozen", first_step, slice(1, None)),
        ]
        if any(cells):
            yield f"| {title} | {' | '.join(map(_shown, cells))} |"
    for how in _ways(figures, "tlx")[1:]:
        yield f"| tlx, {how} | | | {_shown(_median(figures, 'tlx', 'all', _predicted(how)))} | | |"
    yield ""
    yield "Training is the updates alone, augmentation included; tlx's frozen features lie in its cache by then, which"
    yield "the first run fills before its first step. Prediction is from files to boxes, by tlx's default engine where"
    yield "no other is named."


def _ways(figures: Figures, tool: str) -> list[str]:
    """Return in which ways a tool predicted."""
    runs = [run for run in figures["runs"] if run["tool"] == tool and run.get("predicted")]
    return [*runs[0]["predicted"]] if runs else []


def _more(figures: Figures) -> Iterator[str]:
    yield f"| | one trial of one epoch, s | {EPOCHS} epochs, all layers, s (extrapolated) |"
    yield "|---|---:|---:|"
    for tool, title in figures["titles"].items():
        cells = [
            _median(figures, tool, "trial", lambda run: run["seconds"]),
            _median(figures, tool, "all", _long(figures)),
        ]
        if any(cells):
            yield f"| {title} | {' | '.join(map(_shown, cells))} |"
    yield ""
    yield "A trial is the whole command of a tuner that does one trial of one epoch with all layers. The long run is"
    yield f"the first step and {EPOCHS} times the measured epoch with its validation."
    for run in _done(figures, "search"):
        yield ""
        best = run["best"]
        scores = f"AP {best['test']['AP']:.3f}, AP50 {best['test']['AP50']:.3f} on {best['split']}"
        yield f"tlx's search of {best['trials']} trials ({best['pruned']} pruned), heads only, 12 epochs each, took"
        yield f"{run['seconds']:.0f} s: {scores}."


def _done(figures: Figures, what: str) -> list[Figures]:
    return [run for run in figures["runs"] if run["what"] == what and "failed" not in run]


def _long(figures: Figures) -> Callable[[Figures], float]:
    return lambda run: first_step(run) + EPOCHS * epoch(run, figures["pictures"][0])


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _fastest(
    figures: Figures,
    best: Callable[..., Any],
    what: str,
    of: Callable[[Figures], float | None],
    turns: slice = slice(None),
) -> tuple[float, str] | None:
    """Return the best median of all peers and whose it is."""
    peers = [tool for tool in figures["titles"] if tool != "tlx"]
    known = [(value, tool) for tool in peers if (value := _median(figures, tool, what, of, turns)) is not None]
    return best(known) if known else None


def _goals(figures: Figures) -> Iterator[tuple[str, str, str]]:
    limits = next(iter(_done(figures, "limits")), {}).get("limits", {})
    for what, factor, name in (("frozen", 10.0, "frozen backbone"), ("all", 1.0, "all layers")):
        peer = _fastest(figures, max, what, speed)
        why = _arithmetic(limits, what, peer[0] * factor) if peer and limits else ""
        yield _faster(
            figures, f"{name}: at least {factor:g} x", _median(figures, "tlx", what, speed), peer, factor, why
        )
    peer = _fastest(figures, max, "all", _predicted(""))
    for how in _ways(figures, "tlx"):
        if "alone" not in how:
            mine = _median(figures, "tlx", "all", _predicted(how))
            alone = _median(figures, "tlx", "all", _predicted(f"{how}, backbone alone"))
            rest = "decoding, and the head, computed by TensorFlow, are the rest"
            why = f"the backbone alone does {_shown(alone)} images/s; {rest}"
            yield _faster(figures, f"prediction ({how}): at least 1.2 x", mine, peer, 1.2, why)
    yield from _first_steps(figures)
    peer = _fastest(figures, min, "all", _long(figures))
    for run in _done(figures, "search")[:1] if peer else ():
        goal = f"a search of {run['best']['trials']} trials: at most one run of {EPOCHS} epochs of the fastest peer"
        seen = f"{run['seconds']:.0f} s against {peer[0]:.0f} s ({figures['titles'][peer[1]]})"
        each = f"no: a trial takes {statistics.median(run['best']['seconds']):.0f} s"
        yield goal, seen, "yes" if run["seconds"] <= peer[0] else each


def _faster(
    figures: Figures, goal: str, mine: float | None, peer: tuple[float, str] | None, factor: float, why: str
) -> tuple[str, str, str]:
    if mine is None or peer is None:
        return f"{goal} the fastest peer", "not measured", ""
    seen = f"{mine / peer[0]:.2f} x: {_shown(mine)} against {_shown(peer[0])} ({figures['titles'][peer[1]]})"
    return f"{goal} the fastest peer", seen, "yes" if mine >= factor * peer[0] else f"no: {why}" if why else "no"


def _arithmetic(limits: Figures, what: str, wanted: float) -> str:
    """Return what an update's arithmetic allows, as measured."""
    one, peak = limits[what], limits["peak_gflops"]
    needed = f"{_shown(wanted)} images/s at {one['gflop']:.2f} GFLOP each would be {one['gflop'] * wanted:.0f} GFLOP/s"
    times = {name: f"{1000 * seconds:.0f} ms" for name, seconds in one["seconds"].items()}
    took = f"in an update by {BATCH} pictures gradients take {times['gradients']}"
    if one["seconds"]["depthwise"]:
        took += f", {times['depthwise']} of it depthwise layers alone,"
    return f"{needed}, where matrix products reach {peak:.0f}; {took} and the optimizer's step {times['step']}"


def _first_steps(figures: Figures) -> Iterator[tuple[str, str, str]]:
    imports = _median(figures, "tlx", "versions", lambda run: run["tensorflow_import"])
    for what, turns, when in (
        ("frozen", slice(0, 1), "frozen, first run"),
        ("frozen", slice(1, None), "frozen, later runs"),
        ("all", slice(0, 1), "all layers, first run"),
        ("all", slice(1, None), "all layers, later runs"),
    ):
        mine = _median(figures, "tlx", what, first_step, turns)
        peer = _fastest(figures, min, what, first_step, turns)
        if mine is None or peer is None or imports is None:
            continue
        runs = [run for run in _done(figures, what) if run["tool"] == "tlx"][turns]
        parts = ", ".join(f"{name} at {at - runs[0]['began']:.0f} s" for name, at in runs[0]["moments"].items())
        goal = f"first step ({when}): no later than the fastest peer's and TensorFlow's import ({imports:.1f} s)"
        seen = f"{mine:.1f} s against {peer[0]:.1f} s ({figures['titles'][peer[1]]})"
        yield goal, seen, "yes" if mine <= peer[0] + imports else f"no: {parts}"


def _versions(figures: Figures) -> Iterator[str]:
    for tool, title in figures["titles"].items():
        for run in figures["runs"]:
            if (run["tool"], run["what"]) == (tool, "versions") and "versions" in run:
                yield f"- {title}: {', '.join(f'{name} {version}' for name, version in run['versions'].items())}"

"""When a trial is cut: at a look that says something about its end, and against trials that train as much.

A cut trial ends in Optuna's state PRUNED, with no value. TPE takes that for "not among the best tenth", whatever it
had when it was cut, and CMA-ES leaves it out. Measured on drawn learning curves, told with an estimate of its end it
changed nothing, and told as failed, which samplers do not learn from, the search ended lower.
"""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlx.search.settings import Search

# With fewer trials to compare with, a median says little.
COMPARED = 4
# The user attribute of a trial that says which share of the backbone's weight layers it trains.
TRAINS = "trains"


class Median:
    """Cuts a trial whose best score so far is below the median of what others had at the same look.

    It is compared with trials that train at least as much of their backbone, finished or cut themselves: what trains
    more starts slower. It is what Optuna takes for a pruner.
    """

    def prune(self, study: Any, trial: Any) -> bool:
        """Return whether a trial is cut at its last look."""
        others = [
            other.intermediate_values[trial.last_step]
            for other in study.get_trials(deepcopy=False)
            if other.state.name in ("COMPLETE", "PRUNED")
            and trial.last_step in other.intermediate_values
            and other.user_attrs.get(TRAINS, 0.0) >= trial.user_attrs.get(TRAINS, 0.0)
        ]
        return is_behind(max(trial.intermediate_values.values()), others)


def first_cut(search: Search, looks: int) -> int:
    """Return the first of so many looks, counted from 1, at which a trial may be cut."""
    return max(1, math.ceil(search.pruner_warmup * looks))


def is_behind(score: float, others: Sequence[float]) -> bool:
    """Return whether a score is below the median of enough others."""
    return len(others) >= COMPARED and score < statistics.median(others)


def trained_share(folder: Path) -> float:
    """Return the share of the backbone's weight layers that train in some phase of the run in `folder`."""
    layers = json.loads((folder / "model.json").read_text())["layers"]
    return sum(any(layer["trains"]) for layer in layers) / max(1, len(layers))

"""What a trained detector costs: how long a picture takes, how large it is, and how long it was trained."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tlx.data.recent import forget
from tlx.events import NOBODY, Listener
from tlx.features import Source, encoder, settle
from tlx.models.detector import Detector
from tlx.models.graph import Cut
from tlx.pipeline import Views
from tlx.predict import Predictor
from tlx.run import Run, reopen
from tlx.runfolder import WEIGHTS, trained_size

# Each is the less the better.
COSTS = {
    "latency_ms": "milliseconds that predicting takes a picture, one at a time, its decoding included",
    "size_mb": "megabytes of the file of weights",
    "parameters": "number of weights",
    "train_seconds": "seconds that the run took by the clock, filling its cache included",
}
_PICTURES, _PASSES = 16, 3


def measure(run: Run, folder: Path, wanted: Sequence[str], listener: Listener = NOBODY) -> dict[str, float]:
    """Return the wanted ones of `COSTS` of the detector that `tlx.run.train` left in `folder`, by name.

    The listener is told of how far this is.
    """
    pictures = min(_PICTURES, len(run.data.validation)) if "latency_ms" in wanted else 1
    tell = partial(listener.progress, f"measuring {', '.join(wanted)}", total=pictures)
    tell(done=0)
    found: dict[str, float] = {
        "size_mb": (folder / WEIGHTS).stat().st_size / 1e6,
        "train_seconds": json.loads((folder / "result.json").read_text())["seconds"],
    }
    if not found.keys() >= set(wanted):
        size = trained_size(folder) if run.image_size == "auto" else run.size
        detector, cut = reopen(run.backbone, run.head, size, folder, run.precision)
        found["parameters"] = float(detector.model.count_params())
        if "latency_ms" in wanted:
            found["latency_ms"] = _latency(run, detector, cut, tell)
    tell(done=pictures)
    return {name: found[name] for name in wanted}


def _latency(run: Run, detector: Detector, cut: Cut, tell: Callable[..., None]) -> float:
    """Return the milliseconds a picture: the mean of each one's fastest pass, for other work only adds to it."""
    data = run.data.validation
    pictures = [data.subset([number], "timed") for number in range(min(_PICTURES, len(data)))]
    views = [Views(one, detector.size, resize=run.resize, windows=run.windows) for one in pictures]
    sources = [Source(view, view.element, encoder(cut, True), False, "") for view in views]
    predictor = Predictor(detector, cut, sources[0], 1, settle(run.engine, cut, views[0]).compile(cut.prefix))
    # The first one traces.
    predictor()
    fastest = []
    for done, source in enumerate(sources):
        tell(done=done)
        fastest.append(min(_seconds(predictor, source) for _ in range(_PASSES)))
    return 1000 * statistics.mean(fastest)


def _seconds(predictor: Predictor, source: Source) -> float:
    forget()
    begun = time.perf_counter()
    predictor(source)
    return time.perf_counter() - begun

"""tlx with its head `gfl` on EfficientNet-Lite0, as `timed.py` says; run by tlx's own Python.

It does two things more than those of the peers. "search" is a search of `rounds` trials with the backbone frozen, of
learning rate and batch size, as experiments/quickstart.gin has them. "limits" is what an update's arithmetic takes.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from timed import BATCH, SIZE, Timed

from tlx import config
from tlx.events import Listener

EXPERIMENT = """\
run.data = @splits.own()
run.backbone = @backbones.efficientnet_lite0()
run.head = @heads.gfl()
run.freeze = @freezes.{freeze}()
run.image_size = {size}
splits.own.dataset = @readers.coco()
readers.coco.path = '{data}'
fit.batch_size = {batch}
fit.epochs = {epochs}
fit.evaluations = {looks}
"""
TRIAL = "search.trials = 1\nsearch.space = {'fit.learning_rate': ('log', 2e-3, 2e-2)}\n"
SEARCH = """\
features.views = 3
fit.learning_rate = 6e-3
search.trials = {trials}
search.space = {{'fit.learning_rate': ('log', 2e-3, 2e-2), 'fit.batch_size': ('power_of_two', 4, 16)}}
"""


class Following(Listener):
    """Notes down when updates were done, and passes on nothing."""

    def __init__(self, timed: Timed):
        self.timed = timed
        timed.told["moments"] = {}

    def say(self, message):
        if "examples at once" in message:
            self._moment("memory known")
        elif "are computed by" in message:
            self._moment("engine chosen")
        elif "are cached" in message:
            self._moment("features there")

    def progress(self, what, done, total, note=""):
        if what == "training":
            self.timed.update()

    def _moment(self, name):
        self.timed.told["moments"].setdefault(name, time.time())

    def evaluated(self, look):
        self.timed.judged()
        return "continue"


def main() -> None:
    """Do what the command line says, through what `tlx train` and `tlx search` themselves call."""
    timed = Timed("tensorflow", "keras", "ai-edge-litert", more=("search", "limits"))
    given, what = timed.given, timed.given.what
    if what == "versions":
        began = time.time()
        import tensorflow  # noqa: F401, PLC0415

        timed.told["tensorflow_import"] = time.time() - began
        return timed.tell()
    filled = {"size": SIZE, "batch": BATCH, "data": given.data, "epochs": given.epochs}
    text = EXPERIMENT.format(
        freeze="none" if what in ("all", "trial") else "backbone", looks=4 if what == "search" else 1, **filled
    )
    text += {"trial": TRIAL, "search": SEARCH.format(trials=given.rounds)}.get(what, "")
    gin = given.out / "experiment.gin"
    gin.write_text(text)
    experiment = config.load([gin])
    if what == "limits":
        from tlx_limits import limits  # noqa: PLC0415

        timed.told["limits"] = limits(experiment)
    elif what in ("trial", "search"):
        timed.told["best"] = search(experiment, given.out / "search")
    else:
        from tlx.work.attempts import train  # noqa: PLC0415

        train(experiment, given.out / "run", Following(timed))
    if what == "all":
        predict(experiment, given.out / "run", timed)
    return timed.tell()


def search(experiment: config.Experiment, folder: Path) -> dict:
    """Search, and return the winner's metrics."""
    from tlx.search import study  # noqa: PLC0415

    result = study.search(experiment, config.build(experiment.trees["search"]), folder, Listener())
    states = [row["state"] for row in result["trials"]]
    seconds = [row["seconds"] for row in result["trials"]]
    told = {"split": result["split"], "test": result["metrics"]["values"], "seconds": seconds}
    return told | {"trials": len(states), "pruned": states.count("pruned")}


def predict(experiment: config.Experiment, folder: Path, timed: Timed) -> None:
    """Time predictions by each engine that there is, from files to boxes, as `tlx predict` computes them."""
    from tlx.data.targets import UNLABELLED  # noqa: PLC0415
    from tlx.engines.litert import LiteRT  # noqa: PLC0415
    from tlx.engines.openvino import OpenVINO  # noqa: PLC0415
    from tlx.errors import ModelError  # noqa: PLC0415
    from tlx.features import Source, encoder  # noqa: PLC0415
    from tlx.pipeline import Views  # noqa: PLC0415
    from tlx.predict import Predictor  # noqa: PLC0415
    from tlx.run import reopen  # noqa: PLC0415

    run = config.build(experiment.trees["run"])
    detector, cut = reopen(run.backbone, run.head, run.size, folder)
    unlabelled = tuple(replace(example, targets=UNLABELLED) for example in run.data.validation.examples)
    views = Views(replace(run.data.validation, examples=unlabelled), run.size)
    source = Source(views, views.element, encoder(cut, True), False, "")
    engines = {"LiteRT, float32": LiteRT(), "OpenVINO, float32": OpenVINO(), "OpenVINO, bfloat16": OpenVINO("bfloat16")}
    for name, engine in engines.items():
        try:
            forward = engine.compile(cut.prefix)
        except ModelError:
            # It is not installed, or the CPU has no bfloat16.
            continue
        predictor = Predictor(detector, cut, source, BATCH, forward)
        timed.predict(len(unlabelled), partial(_anew, predictor), name)
        pictures = [inputs[0].numpy() for _, inputs, _ in source.batches(views.units, BATCH)]
        timed.predict(len(unlabelled), partial(_each, forward, pictures), f"{name}, backbone alone")


def _anew(predictor: Any) -> None:
    from tlx.data.recent import forget  # noqa: PLC0415

    # Each picture is decoded, as if it were new.
    forget()
    predictor()


def _each(forward: Any, pictures: list) -> None:
    for batch in pictures:
        forward(batch)


if __name__ == "__main__":
    main()

"""One experiment, top to bottom."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from tlx import checkpoint, freeze, ownership, policies
from tlx import memory as usage
from tlx.augment import Augmentation, Resize, Standard, arranged, pictures_of
from tlx.data.dataset import Dataset
from tlx.data.doctor import examine, grouped
from tlx.data.splits.policies import Splits, relabelled
from tlx.devices import Devices, several
from tlx.engines.auto import Auto
from tlx.engines.engine import Engine
from tlx.errors import ConfigError, DataError, MisfitError, TrainingError
from tlx.evaluate.choose import default_evaluator
from tlx.evaluate.evaluator import Evaluator
from tlx.events import Listener
from tlx.features import Features
from tlx.fit import Fit
from tlx.freeze import Freeze
from tlx.fusion import Fusion, fuse, looks
from tlx.history import first_untold, mend
from tlx.lazy import keras
from tlx.models.backbone import Backbone
from tlx.models.detector import Detector, Precision, build, load_weights
from tlx.models.graph import Cut, WeightLayer, cut, weight_layers
from tlx.models.head import Head
from tlx.phases import Training
from tlx.pipeline import Views, height_width
from tlx.predict import BATCH, predict
from tlx.registry import rooms
from tlx.report.runlog import RunLog, keep_pictures
from tlx.runfolder import WEIGHTS, account, describe, describe_model, save_weights, trained_size, write_predictions
from tlx.sizing import Sizing, choose
from tlx.tasks.task import task_of
from tlx.tiles import Tiles, tiles_of
from tlx.windows import WholePicture, Windows


def _check(image_size: int | tuple[int, int] | Literal["auto"], seed: int) -> None:
    if image_size != "auto" and min(height_width(image_size)) < 32:
        raise ConfigError(f"run.image_size = {image_size!r} makes no sense: give pixels, at least 32 to each side")
    if seed < 0:
        raise ConfigError(f"run.seed = {seed} makes no sense: give 0 or more")


def _fit_together(
    backbone: Backbone,
    head: Head,
    freeze: Freeze,
    evaluator: Evaluator | None,
    metric: str | None,
    augment: Augmentation | tuple[Augmentation, ...],
    image_size: int | tuple[int, int] | Literal["auto"],
    tiles: int | tuple[int, int] | Tiles | None,
    resize: Resize,
) -> None:
    """Raise a ConfigError where the parts of an experiment are each right and do not go together."""
    taps = head.select(backbone)
    depths = [tap.depth for tap in ((backbone.final,) if head.takes_rest else taps)]
    if all(depths):
        most, what = max(getattr(depth, freeze.counts) for depth in depths), freeze.counts.replace("_", " ")
        if freeze.unfrozen > most:
            has = f"of {backbone.name} run.head uses {most} {what}; give 0 to {most}"
            raise MisfitError(f"run.freeze = {freeze.name} unfreezes {freeze.unfrozen} {what}: {has}")
    judge = evaluator or default_evaluator(head.task)
    if judge.task != head.task:
        raise ConfigError(
            f"run.evaluator judges {judge.task}, and run.head learns {head.task}; leave run.evaluator away, or give one"
            f" for {head.task}"
        )
    if metric is not None:
        judge.metric(metric, "run.metric")
    if pictures_of(arranged(augment)) > 1 and not task_of(head.task).combines:
        raise ConfigError(f"run.augment combines pictures, and {head.task} cannot combine their labels: leave that out")
    cut_up, sized, auto = tiles_of(tiles), task_of(head.task).sized, image_size == "auto"
    if auto and not sized:
        raise ConfigError(
            f"run.image_size = 'auto' is chosen by boxes, and {head.task} has none: give pixels, such as 224"
        )
    if cut_up and not sized:
        raise ConfigError(f"run.tiles cuts pictures up, and {head.task} labels whole ones: leave run.tiles away")
    if not auto:
        head.refuse_size(height_width(image_size))
    if cut_up:
        cut_up.refuse_misfit(None if auto else height_width(image_size), resize)


@rooms.register("run", root=True, check=_check, together=_fit_together)
@dataclass(frozen=True)
class Run:
    """One experiment: which data, which network, what of it trains, and how.

    `data` is a split policy over a reader. `image_size` is the side of the square input, or (height, width), in pixels;
    `'auto'` is the smallest that shows 95 % of the training boxes at least 8 pixels wide and high, in the shape of the
    pictures, with a longer side of 320 to 1024. `resize` is how a picture is brought to that: `letterbox` shows all of
    it undistorted, on grey, `stretch` fills the input with all of it, and `crop` with an undistorted part of it.
    `tiles` cuts large pictures into overlapping windows, each of which is brought to the input by itself: a side in
    pixels of the picture, (height, width), or `@tiles()`, which has more settings; what is judged and predicted are
    whole pictures all the same. `augment` is one operation, or several of them. `judge` is the split that the final
    metrics are of; where there is no test split it is validation. `evaluator` is the task's own where none is given,
    and `metric` the one of its metrics that decides which weights of a run are kept; without it, that is the primary
    one. `engine` computes what is only computed forward, the frozen part: by default LiteRT, where it agrees with
    TensorFlow on some of the run's own pictures. `precision` is what layers compute in; weights, outputs and losses are
    float32 all the same, and only GPUs with tensor cores, or CPUs with AVX512-BF16, are faster in less. `seed` decides
    the head's first weights, the views and their order.
    """

    data: Splits
    backbone: Backbone
    head: Head
    freeze: Freeze
    fit: Fit
    features: Features
    augment: Augmentation | tuple[Augmentation, ...] = Standard()
    evaluator: Evaluator | None = None
    metric: str | None = None
    engine: Engine = Auto()
    memory: usage.Memory = usage.Memory()
    image_size: int | tuple[int, int] | Literal["auto"] = 320
    resize: Resize = "letterbox"
    tiles: int | tuple[int, int] | Tiles | None = None
    judge: Literal["test", "validation"] = "test"
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self):
        data, kind = self.data.train, type(self.head).__name__
        if self.evaluator is None:
            object.__setattr__(self, "evaluator", default_evaluator(self.head.task))
        if data.task != self.head.task:
            raise DataError(
                f"{data.name} is labelled for {data.task}, and the head {kind} learns {self.head.task}: "
                f"set run.data to a dataset for {self.head.task}, or run.head to a head for {data.task}"
            )

    @property
    def size(self) -> tuple[int, int]:
        """The input's height and width."""
        return self.sizing.size if self.sizing else height_width(self.image_size)

    @cached_property
    def sizing(self) -> Sizing | None:
        """The size that the training boxes ask for, if they are to choose it."""
        return choose(self.data.train, tiles_of(self.tiles)) if self.image_size == "auto" else None

    @property
    def windows(self) -> Windows:
        """What pictures are cut into."""
        return tiles_of(self.tiles) or WholePicture()

    @cached_property
    def views(self) -> Views:
        """The views that are trained on."""
        sampling = {"windows": self.windows, "empty": self.windows.empty} if self.tiles else {}
        given = (self.size, self.augment, self.features.views, self.seed, self.resize)
        return Views(self.data.train, *given, **sampling)

    def plain(self, dataset: Dataset) -> Views:
        """Return views of a dataset as it is judged: of every window, as it is."""
        return Views(dataset, self.size, resize=self.resize, windows=self.windows)

    @property
    def judged(self) -> tuple[str, Dataset]:
        """The name and the examples of the split that the final metrics are of."""
        if self.judge == "test" and self.data.test is not None:
            return "test", self.data.test
        return "validation", self.data.validation


def train(
    run: Run, folder: Path, config: str, listener: Listener, micros: Sequence[int] | None = None
) -> dict[str, Any]:
    """Do the experiment, write everything about it to `folder`, and return what its `result.json` holds.

    `config` is the text of the gin file that repeats it. `micros` is how many examples fit in memory at once in
    each phase of the freeze policy, if that is known. Of several workers (`fit.strategy`) only the chief judges the
    detector and keeps it, and all return what the chief does.

    Raises:
      DataError, ModelError, TrainingError: as the rooms that the experiment passes through say.
    """
    started, devices = time.monotonic(), several(run.fit.strategy)
    cut_up = tiles_of(run.tiles)
    found = examine(run.data, run.size, task_of(run.head.task).check, tile=cut_up and cut_up.height_width)
    run = replace(run, data=replace(run.data, findings=(*run.data.findings, *found)))
    refuse_errors(run.data)
    fingerprint = describe(run.data, folder, config)
    _agree(run, devices, fingerprint)
    usage.reset_peak()
    keras.utils.set_random_seed(run.seed)
    mended = mend(folder)
    with RunLog(folder, listener, first_untold(folder)) as log:
        for line in (*_warnings(run.data), *filter(None, [mended, run.sizing, devices.note])):
            log.say(str(line))
        detector, layers = assemble(run, devices)
        describe_model(run, detector, layers, folder)
        if detector.restored is not None:
            log.say(f"{run.backbone.name}: {detector.restored}")
        log.board.text("config", f"```\n{config}\n```")
        trained = Training(run, detector, layers, log, devices, micros, started)()
    if not devices.chief:
        return devices.told(None)
    save_weights(detector, folder)
    split, dataset = run.judged
    predictor, history = trained.predictor, trained.history
    if split == "validation" and trained.sees_validation:
        found, _ = predictor()
    else:
        found = predict(detector, predictor.cut, dataset, predictor.batch, trained.engine, run.resize, run.windows)
    keep_pictures(folder, split, dataset, found)
    write_predictions(folder, split, dataset, found)
    result = {
        "split": split,
        "metrics": run.evaluator.judge(dataset, found, run.metric),
        **account(history),
        "seconds": history.elapsed,
    }
    checkpoint.write(folder / "result.json", json.dumps(result, indent=1).encode())
    return devices.told(result)


def assemble(run: Run, devices: Devices) -> tuple[Detector, list[WeightLayer]]:
    """Return the detector that is to be trained, with a copy on every device, and the backbone's weight layers."""
    run.head.refuse_size(run.size)
    if cut_up := tiles_of(run.tiles):
        cut_up.refuse_larger(run.data.train, "run.tiles")
    with devices.scope():
        detector = build(run.backbone, run.head, run.data.train.classes, run.size, precision=run.precision)
    return detector, weight_layers(detector.backbone, detector.blocks)


def reopen(
    backbone: Backbone, head: Head, size: tuple[int, int], folder: Path, precision: Precision = "float32"
) -> tuple[Detector, Cut]:
    """Return the detector that `train` left in `folder`, with everything frozen, and its cut."""
    classes = tuple(json.loads((folder / "data.json").read_text())["classes"])
    detector = build(backbone, head, classes, size, pretrained=False, precision=precision)
    load_weights(detector, folder / WEIGHTS)
    freeze.apply(policies.backbone(), detector.backbone, weight_layers(detector.backbone, detector.blocks))
    return detector, cut(detector.network, detector.blocks)


def evaluate(run: Run, folder: Path, at_once: int = BATCH, fusion: Fusion = Fusion()) -> dict[str, Any]:
    """Judge the detector that `train` left in `folder`, keep pictures of it there, and return split and metrics.

    `at_once` is how many pictures are looked at together. Where `fusion` looks at them in several ways, "plain" are the
    metrics without that, and "seconds" how long predicting took (without, with it), once the engine was chosen.

    Raises:
      DataError: the data has a class that the detector was not trained for.
    """
    run = replace(run, image_size=trained_size(folder) if run.image_size == "auto" else run.size)
    split, dataset = run.judged
    reopened = lru_cache(1)(lambda size: reopen(run.backbone, run.head, size, folder, run.precision))
    dataset = relabelled(dataset, reopened(run.size)[0].classes)
    # Where it was trained in smaller parts than this, no more than those may fit.
    trained = folder / "result.json"
    fits = json.loads(trained.read_text())["micro_batch"] if trained.exists() else at_once
    ways = looks(fusion, reopened, run.size, dataset, min(at_once, fits), run.engine, run.resize, run.windows)
    seen, seconds = zip(*ways, strict=True)
    began = time.monotonic()
    found = fuse(seen, dataset)
    together = sum(seconds) + time.monotonic() - began
    if ownership.kind(folder):
        keep_pictures(folder, split, dataset, found)
    result = {"split": split, "metrics": run.evaluator.judge(dataset, found, run.metric)}
    if fusion == Fusion():
        return result
    return result | {"plain": run.evaluator.judge(dataset, seen[0], run.metric), "seconds": (seconds[0], together)}


def refuse_errors(data: Splits) -> None:
    """Raise a DataError if the data has what training must not go on with."""
    errors = [str(finding) for finding in data.findings if finding.severity == "error"]
    if errors:
        shown = "\n  ".join(errors[:10])
        more = f"\n  and {len(errors) - 10} more, which `tlx inspect` lists" if len(errors) > 10 else ""
        mend = "mend or remove these (`tlx inspect PATH --fix COPY` writes a mended copy)"
        raise DataError(f"the data has {len(errors)} errors; {mend}:\n  {shown}{more}")


def _warnings(data: Splits) -> list[str]:
    """Return what the data warns of: each kind once, with its number and its first case."""
    told = (finding for finding in data.findings if finding.severity == "warning" or finding.code == "divided")
    return [f"{len(found)} x {code}: {found[0].located}" for code, found in grouped(told).items()]


def _agree(run: Run, devices: Devices, fingerprint: str) -> None:
    """Raise a DataError or TrainingError if this worker was not given what the chief was."""
    seen = (run.size, run.resize, run.tiles, run.augment, run.features.views)
    alike = (run.head, run.backbone.name, run.freeze.name, *seen, run.precision, run.seed)
    settings = [repr(replace(run.fit, micro_batch=None)), *map(repr, alike)]
    data, others = devices.told([fingerprint, settings])
    if data != fingerprint:
        raise DataError(f"the data here is not that of the chief (fingerprints {fingerprint[:8]} and {data[:8]})")
    if unlike := [f"{mine} is {its} at the chief" for mine, its in zip(settings, others, strict=True) if mine != its]:
        raise TrainingError(f"the experiment here is not that of the chief: {'; '.join(unlike)}")

"""A stranger's package brings a task of its own, and everything of tlx works with it, as its users would use it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

HERE = Path(__file__).parent
COLOURS = {"triangle": (200, 160, 40), "square": (90, 60, 160)}
CORNERS = ((240, 20, 20), (20, 220, 20), (20, 20, 240))
SPLITS = ("train",) * 6 + ("validation", "test")

EXPERIMENT = """\
run.data = @splits.own()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.keypoints()
run.freeze = @freezes.first_blocks()
run.augment = @augmentations.jitter()
run.image_size = 64
splits.own.dataset = @readers.keypoints()
readers.keypoints.path = '{folder}/data'
backbones.mobilenet_v2.weights = None
backbones.mobilenet_v2.alpha = 0.35
freezes.first_blocks.frozen = 1
features.views = 2
features.folder = '{folder}/features'
fit.learning_rate = 1e-2
fit.backbone_rate = 1.0
fit.batch_size = 8
fit.epochs = 16
fit.evaluations = 2
search.trials = 2
search.metric = 'pixel_error'
search.space = {{'heads.keypoints.channels': ('choice', 16, 32), 'freezes.first_blocks.frozen': ('int', 1, 5)}}
"""


def drawn(rng, name):
    """Return a picture with one object, and the object as the file lists it."""
    pixels = np.kron(rng.integers(60, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    picture = Image.fromarray(pixels)
    (x, y), side = rng.integers(6, 26, 2).tolist(), int(rng.integers(24, 32))
    points = [(x, y), (x + side, y), (x + side, y + side)]
    outline = points if name == "triangle" else [*points, (x, y + side)]
    canvas = ImageDraw.Draw(picture)
    canvas.polygon(outline, fill=COLOURS[name])
    for (px, py), colour in zip(points, CORNERS, strict=True):
        canvas.rectangle((px - 2, py - 2, px + 2, py + 2), fill=colour)
    return picture, {"class": name, "box": [x, y, x + side, y + side], "points": points}


def write(folder, count):
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(count):
        picture, one = drawn(rng, list(COLOURS)[i % 2])
        picture.save(folder / f"{i}.png")
        if i == 2:
            one["points"][0] = None
        rows.append({"image": f"{i}.png", "split": SPLITS[i // 2 % len(SPLITS)], "objects": [one]})
    (folder / "keypoints.json").write_text(json.dumps({"classes": list(COLOURS), "pictures": rows}))


def tlx(*arguments, plugin=True):
    """Return exit code and output of a command, where the package is installed, or is not."""
    path = [str(HERE)] * plugin + [os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "COLUMNS": "120"}
    command = [sys.executable, "-m", "tlx", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    return done.returncode, done.stdout + done.stderr


def worked(*arguments):
    code, output = tlx(*arguments)
    assert code == 0, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keypoints")
    write(folder / "data", 48)
    (folder / "drawn.gin").write_text(EXPERIMENT.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """The folder of a finished run, and what the command said."""
    said = worked("train", folder / "drawn.gin", f"--run_dir={folder / 'run'}")
    return folder / "run", said


@pytest.fixture(scope="module")
def study(folder):
    """The folder of a finished search of short trials, and what the command said."""
    # The run shows how memory is measured.
    bindings = ("fit.epochs = 1", "fit.evaluations = 1", "memory.probe = False")
    flags = (f"--gin_bindings={binding}" for binding in bindings)
    said = worked("search", folder / "drawn.gin", f"--run_dir={folder / 'search'}", *flags)
    return folder / "search", said


def test_nothing_in_tlx_knows_it():
    for file in (HERE.parents[1] / "tlx").rglob("*.py"):
        names = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        assert not [name for name in names if isinstance(name, str) and ("keypoint" in name.lower() or name == "pck")]


def test_what_it_brings_is_listed_with_its_file():
    said = worked("list")
    brought = {
        "readers.keypoints": "reader", "augmentations.jitter": "augmentation", "heads.keypoints": "head",
        "tasks.keypoints": "task", "freezes.first_blocks": "freeze", "evaluators.pck": "evaluator",
    }  # fmt: skip
    for name, module in brought.items():
        assert name in said
        assert f"tlx_keypoints: {HERE}/tlx_keypoints/{module}.py" in said
    assert "heads.keypoints.points: int = 3" in worked("list", "heads.keypoints")
    assert "tlx keypoints RUN_DIR" in worked("--help")
    code, said = tlx("list", "heads.keypoints", plugin=False)
    assert (code, "nothing is registered as 'heads.keypoints'" in said) == (1, True)


def test_an_experiment_with_it_is_checked(folder):
    said = worked("check", folder / "drawn.gin")
    assert "# heads.keypoints.points = 3" in said
    assert "# augmentations.jitter.share = 0.05" in said


@pytest.mark.parametrize(
    ("binding", "problem"),
    [
        ("search.metric = 'pixel_eror'", "did you mean 'pixel_error'? (there are PCK, pixel_error)"),
        ("run.metric = 'AP'", "run.metric = 'AP' is no metric"),
        ("run.evaluator = @evaluators.coco()", "run.evaluator judges detection, and run.head learns keypoints"),
        ("heads.keypoints.points = 0", "heads.keypoints.points = 0"),
        ("heads.keypoints.stride = 7", "heads.keypoints.stride: the backbone has no tap at stride 7"),
        ("freezes.first_blocks.frozen = -1", "freezes.first_blocks.frozen = -1 makes no sense"),
        ("augmentations.jitter.share = 2.0", "augmentations.jitter.share = 2.0"),
    ],
)
def test_what_is_wrong_with_it_is_told_before_any_data_is_read(folder, binding, problem):
    command = ["search", f"--run_dir={folder / 'none'}"] if binding.startswith("search") else ["check"]
    code, said = tlx(*command, folder / "drawn.gin", f"--gin_bindings={binding}")
    assert code == 1
    assert problem in said
    assert not (folder / "none").exists()


def test_a_run_learns_and_is_judged_by_its_evaluator(run):
    folder, said = run
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"]
    assert (result["split"], metrics["primary"], list(metrics["values"])) == ("test", "PCK", ["PCK", "pixel_error"])
    # Untrained, it is about a twentieth of the points, and 50 pixels.
    assert metrics["values"]["PCK"] > 0.8
    assert metrics["values"]["pixel_error"] < 8
    assert list(metrics["per_class"]) == ["triangle", "square"]
    assert f"test PCK {metrics['values']['PCK']:.3f}, pixel_error {metrics['values']['pixel_error']:.3f}" in said
    log = (folder / "run.log").read_text()
    assert "weight layers train" in log
    assert "are cached" in log
    with Image.open(folder / "test.jpg") as sheet:
        assert min(sheet.size) > 64


def test_its_predictions_and_losses_are_kept(run):
    rows = json.loads((run[0] / "predictions-test.json").read_text())
    assert len(rows) == 6
    assert all(np.array(one["points"]).shape == (3, 2) for row in rows for one in row["objects"])
    lines = [json.loads(line) for line in (run[0] / "history.jsonl").read_text().splitlines()]
    assert len(lines) == 2


def test_its_losses_are_logged_by_name(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    events = EventAccumulator(str(run[0] / "tensorboard"))
    events.Reload()
    told = {tag for kind in ("scalars", "tensors") for tag in events.Tags()[kind]}
    assert {"train/loss/points", "validation/loss/points", "validation/PCK", "validation/pixel_error"} <= told


def test_a_search_minimizes_the_metric_that_it_is_told(study):
    folder, said = study
    result = json.loads((folder / "result.json").read_text())
    done = [row for row in result["trials"] if row["state"] == "complete"]
    assert len(done) == 2
    best = result["best"]
    errors = {}
    for row in done:
        of_trial = json.loads((folder / row["folder"] / "result.json").read_text())
        assert of_trial["split"] == "validation"
        errors[row["trial"]] = of_trial["metrics"]["values"]["pixel_error"]
    assert best["trial"] == min(errors, key=errors.get)
    assert best["validation"]["values"]["pixel_error"] == pytest.approx(min(errors.values()))
    assert f"The best of 2 trials is trial {best['trial']}" in said


def test_it_finds_points_in_pictures(run, folder):
    pictures = folder / "pictures"
    pictures.mkdir()
    Image.open(folder / "data" / "0.png").resize((128, 96)).save(pictures / "wide.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    said = worked("predict", run[0], pictures, "--min_score=0.0")
    assert "broken.png" in said
    broken, row = json.loads((run[0] / "predictions" / "predictions.json").read_text())
    assert "not an image" in broken["error"]
    assert (row["width"], row["height"]) == (128, 96)
    for one in row["objects"]:
        assert sorted(one) == ["box", "class", "points", "score"]
        assert one["class"] in COLOURS
        assert np.array(one["points"]).shape == (3, 2)
    assert row["objects"]
    assert row["objects"] == sorted(row["objects"], key=lambda one: -one["score"])
    with Image.open(run[0] / "predictions" / row["drawn"]) as picture:
        # Enlarged, so that what is drawn can be seen.
        assert picture.size == (512, 384)


def test_a_run_is_judged_again_and_summed_up_by_its_own_command(run):
    folder, _ = run
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    assert f"test PCK {metrics['values']['PCK']:.3f}" in worked("evaluate", folder)
    said = worked("keypoints", folder, "--digits=1")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["triangle", "square"]
    assert f"{metrics['per_class']['square']['pixel_error']:.1f} px off" in said


def test_its_data_is_recognized_and_inspected(folder):
    # Of what it finds the worst is no error.
    code, said = tlx("inspect", folder / "data", f"--out={folder / 'report'}")
    assert code in (0, 1), said
    assert "hidden-points" in said
    assert " objects, 2 classes" in said
    assert (folder / "report" / "index.html").exists()
    code, said = tlx("inspect", folder / "drawn.gin", f"--out={folder / 'views'}")
    assert code in (0, 1), said
    with Image.open(folder / "views" / "augmented.png") as sheet:
        assert min(sheet.size) > 64

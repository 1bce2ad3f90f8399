"""`tlx inspect`: exit codes, JSON, what it writes, and that it does so without TensorFlow."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.scenes import write_scenes

DATA = Path(__file__).parents[2] / "../shared/data"
CODE = (
    "import sys; from tlx.cli import entry\n"
    "try: entry()\n"
    "finally: assert not {'tensorflow', 'keras', 'optuna'} & set(sys.modules), 'imported too much'"
)
EXPERIMENT = """\
run.data = @splits.ratio()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.fcos()
run.freeze = @freezes.last_layers()
run.image_size = (64, 96)
freezes.last_layers.unfrozen = 0
readers.voc.path = '{folder}'
splits.ratio.dataset = @readers.voc()
"""


def inspect(*arguments, cwd):
    command = [sys.executable, "-c", CODE, "inspect", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert "imported too much" not in done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    write_scenes(folder, 12, 0)
    return folder


@pytest.fixture
def scenes(drawn, tmp_path):
    return Path(shutil.copytree(drawn, tmp_path / "scenes"))


def test_a_folder_is_inspected_and_a_page_written(scenes, tmp_path):
    code, output, _ = inspect(scenes, "--format=voc", "--image_size=640", cwd=tmp_path)
    assert code in (0, 1)
    assert "scenes: voc, 12 images" in output
    assert {p.name for p in (tmp_path / "runs/inspect-scenes").iterdir()} == {
        *(".tlx-made", "index.html", "sheet.png", "inspection.json"),
    }


def test_json_is_all_that_is_printed_and_errors_exit_with_2(scenes, tmp_path):
    first, second = sorted((scenes / "JPEGImages").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:-1000])
    second.write_bytes(second.read_bytes()[:-1000])
    code, output, _ = inspect(scenes, "--format=voc", "--json", "--out=there", cwd=tmp_path)
    told = json.loads(output)
    assert (code, told["severity"]) == (2, "error")
    files = [f["file"] for f in told["findings"] if f["code"] == "unreadable-image"]
    assert files == [f"JPEGImages/{first.name}", f"JPEGImages/{second.name}"]
    assert json.loads((tmp_path / "there/inspection.json").read_text()) == told
    assert "repairs" not in told


@pytest.mark.parametrize("json_too", [False, True])
def test_what_cannot_be_read_is_one_error(tmp_path, json_too):
    (tmp_path / "empty").mkdir()
    code, output, errors = inspect("empty", "--format=voc", *["--json"] * json_too, cwd=tmp_path)
    assert code == 2
    assert "no XML file" in errors
    assert ("no XML file" in json.loads(output)["error"]) if json_too else output == ""
    code, _, errors = inspect("emty", cwd=tmp_path)
    assert (code, "did you mean 'empty'" in errors) == (2, True)


def test_a_repaired_copy_is_sound(scenes, tmp_path):
    (picture,) = (p for p in (scenes / "JPEGImages").iterdir() if p.stem.endswith("3"))
    Image.open(picture).convert("CMYK").save(picture)
    before = picture.read_bytes()
    code, output, _ = inspect(scenes, "--format=voc", "--json", "--fix=well", cwd=tmp_path)
    assert code == 1
    assert [deed["code"] for deed in json.loads(output)["repairs"]] == ["re-encoded-image"]
    assert picture.read_bytes() == before
    _, output, _ = inspect("well", "--format=voc", "--json", cwd=tmp_path)
    assert "cmyk-image" not in {one["code"] for one in json.loads(output)["codes"]}
    code, _, errors = inspect(scenes, "--format=voc", "--fix=well", cwd=tmp_path)
    assert (code, "nothing is overwritten" in errors) == (2, True)


def test_an_experiment_is_inspected_as_it_is_divided_and_at_its_size(scenes, tmp_path):
    (tmp_path / "tiny.gin").write_text(EXPERIMENT.format(folder=scenes))
    code, output, errors = inspect("tiny.gin", "--json", cwd=tmp_path)
    assert code in (0, 1), errors
    told = json.loads(output)
    assert (told["image_size"], told["format"]) == ([64, 96], "voc")
    assert list(told["parts"]) == ["train", "validation", "test"]
    assert (tmp_path / "runs/inspect-tiny/augmented.png").exists()


def test_an_experiment_shows_eight_augmented_views(scenes, tmp_path):
    several = "run.augment = (@augmentations.vertical_flip(), @augmentations.mosaic())\nrun.resize = 'stretch'\n"
    several += "run.tiles = (200, 300)\n"
    (tmp_path / "tiny.gin").write_text(EXPERIMENT.format(folder=scenes) + several)
    code, output, errors = inspect("tiny.gin", "--out=there", cwd=tmp_path)
    assert code in (0, 1), errors
    assert "augmented: there/augmented.png" in output
    assert "box size once tiles are 96 x 64 px" in output
    assert "boxes under 8 px on their shorter side: 0% at 320 x 320" in output
    assert "advice: run.image_size = (" in output
    html = (tmp_path / "there/index.html").read_text()
    shown = html[html.index("Augmented views") :]
    assert shown.count("<figure>") == 8
    # Four columns and two rows of 495 x 330 pixels, with a gap around each.
    with Image.open(tmp_path / "there/augmented.png") as sheet:
        assert sheet.size == (4 * (495 + 8) + 8, 2 * (330 + 8) + 8)


def test_nothing_is_cut_short_in_a_pipe(scenes, tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "tiny.gin").write_text(EXPERIMENT.format(folder=scenes))
    heads = "class images boxes train validation test small medium large ignored"
    _, output, errors = inspect("tiny.gin", cwd=tmp_path)
    assert heads.split() in [line.split() for line in output.splitlines()], errors


def test_a_wide_terminal_is_no_need(scenes, tmp_path):
    environment = os.environ | {"COLUMNS": "40"}
    command = [sys.executable, "-c", CODE, "inspect", str(scenes), "--format=voc"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode in (0, 1), done.stderr


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data in ../shared/data is absent")
def test_star_wars_contradicts_itself(tmp_path):
    code, output, _ = inspect(DATA / "voc_star_wars", "--format=voc", cwd=tmp_path)
    assert code == 1
    assert "BB-8_37.jpg: has the same bytes as images/R2-D2_102.jpg, and yet" in output
    assert "looks like 'r2d2' (101 x)" in output

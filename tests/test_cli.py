"""The command line: what it answers, and that it answers without TensorFlow."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tlx.data.scenes import write_scenes

EXPERIMENT = f"""\
include '{Path(__file__).with_name("small.gin")}'
readers.scenes.path = '{{folder}}/scenes'
features.folder = '{{folder}}/features'
"""


def answer(*arguments: str, cwd=None, env=None) -> tuple[int, str, bool]:
    """Return exit code, output, and whether TensorFlow was imported, of `tlx` with these arguments."""
    code = (
        "import sys; from tlx.cli import entry\n"
        "try: entry()\n"
        "finally: print('TF' if 'tensorflow' in sys.modules else 'no TF', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False)
    *lines, imported = done.stderr.strip().splitlines()
    return done.returncode, done.stdout + "\n".join(lines), imported == "TF"


@pytest.fixture
def gin(tmp_path):
    file = tmp_path / "tiny.gin"
    file.write_text(EXPERIMENT.format(folder=tmp_path))
    return file


QUESTIONS = {
    "help": (["--help"], 0, "tlx search EXPERIMENT.gin"),
    "nothing": ([], 0, "Commands:"),
    "help of a command": (["predict", "--help"], 0, "predictions.json"),
    "all": (["list"], 0, "backbones.resnet50 "),
    "a registry": (["list", "freezes"], 0, "freezes.last_layers"),
    "an entry": (["list", "readers.voc"], 0, "readers.voc.path: Path"),
    "a plugin's entry": (["list", "backbones.efficientnet_lite0"], 0, "min_restored: float = 0.9"),
    "an unknown entry": (["list", "readers.vco"], 1, "did you mean 'voc'"),
    "an unknown registry": (["list", "reeders"], 1, "the registries are assigners, augmentations, backbones"),
    "an unknown command": (["serach"], 2, "did you mean 'search'"),
    "an unknown command with a flag": (["serach", "--run_dir=x"], 2, "did you mean 'search'"),
    "commands": (["list", "commands"], 0, "commands.inspect "),
    "a command's module that is none": (["experiment"], 2, "'experiment' is no command"),
    "an unknown flag": (["train", "--gin_binding=x"], 2, "no flag --gin_binding; did you mean 'gin_bindings'?"),
    "another command's flag": (
        ["evaluate", "x", "--out=y"],
        2,
        "no flag --out (it has --allow_imports, --fuse, --gin_bind",
    ),
    "another's that is close": (["fetch", "x", "--format=y"], 2, "tlx fetch: there is no flag --format"),
    "a flag where there is none": (["list", "--overwrite"], 2, "tlx list: there is no flag --overwrite (it has none)"),
    "a value that is none": (["predict", "x", "--min_score=2"], 2, "tlx predict: flag --min_score=2"),
    "tiles that are none": (["evaluate", "x", "--tiles=large"], 2, "--tiles=large: expected a side in pixels, such as"),
    "no experiment": (["train"], 1, "name an experiment"),
    "a missing file": (["train", "nowhere.gin"], 1, "no gin file at"),
    "no run": (["evaluate", "nowhere"], 1, "no finished run"),
    "no pictures": (["predict", "nowhere"], 1, "no finished run"),
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_a_question_is_answered_without_tensorflow(case):
    arguments, code, text = QUESTIONS[case]
    got, output, imported = answer(*arguments)
    assert text in output
    assert (got, imported) == (code, False)


PLUGIN = """
from absl import flags
from tlx.registry import commands

flags.DEFINE_bool("loud", False, "Greet with an exclamation mark.")


@commands.register("greet")
def greet(arguments: list[str]) -> None:
    \"\"\"tlx greet NAME: say hello.\"\"\"
    print(f"hello {arguments[0]}" + "!" * flags.FLAGS.loud)
"""
RIVAL = PLUGIN.replace("greet", "inspect").replace("loud", "rude")


@pytest.fixture
def installed(tmp_path):
    """Return a function that installs a plugin, and returns the environment in which it is found."""

    def installed(code):
        (tmp_path / "greeter.py").write_text(code)
        about = tmp_path / "greeter-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[tlx.plugins]\ngreeter = greeter\n")
        return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}

    return installed


def test_a_plugin_brings_a_command_with_its_flags(installed):
    env = installed(PLUGIN)
    assert answer("greet", "Ada", "--loud", env=env) == (0, "hello Ada!\n", False)
    assert "  tlx greet NAME                               say hello." in answer("--help", env=env)[1]
    assert "  --loud            Greet with" in answer("greet", "--help", env=env)[1]
    code, said, _ = answer("greet", "Ada", "--out=x", env=env)
    assert (code, said) == (2, "tlx greet: there is no flag --out (it has --loud)")


def test_a_plugin_that_takes_a_commands_name_is_told_of_and_takes_nothing(installed):
    env = installed(RIVAL)
    code, output, _ = answer("inspect", "--help", env=env)
    assert (code, "tlx inspect PATH" in output) == (0, True)
    code, output, _ = answer("--help", env=env)
    assert code == 0
    assert "commands.inspect is registered twice: in " in output
    assert "tlx inspect PATH" in output


def test_a_command_imports_no_other(output_of):
    code = "import sys; from tlx import cli; cli._find('train')\n"
    code += "theirs = 'tlx.commands.', 'tlx.report.inspection', 'tlx.data.convert', 'tlx.data.fetching'\n"
    code += "print(sorted(m for m in sys.modules if m.startswith(theirs)))"
    assert output_of(code) == "['tlx.commands.experiment', 'tlx.commands.shared', 'tlx.commands.train']\n"


def test_a_checked_experiment_is_printed_and_a_wrong_one_refused(gin):
    code, output, imported = answer("check", str(gin))
    assert (code, imported) == (0, False)
    assert "run.image_size = 64" in output
    assert "# fit.clip = 10.0" in output
    code, output, imported = answer("train", str(gin), "--gin_bindings=fit.epohcs = 3")
    assert (code, imported) == (1, False)
    assert "did you mean 'epochs'" in output
    assert "Traceback" not in output


def test_flags_stand_for_the_file_as_gin_users_expect(gin):
    flags = [f"--gin_file={gin}", "--gin_bindings=fit.epochs = 3", "--gin_bindings=fit.clip = 1.0"]
    _, output, _ = answer("check", *flags)
    assert "fit.epochs = 3" in output
    assert "fit.clip = 1.0" in output


def test_train_evaluate_and_predict_work_together(gin, tmp_path):
    write_scenes(tmp_path / "scenes", 10, 0)
    folder = tmp_path / "run"
    code, output, _ = answer("train", str(gin), f"--run_dir={folder}")
    assert code == 0, output
    result = json.loads((folder / "result.json").read_text())
    assert result["split"] == "test"
    assert f"test AP {result['metrics']['values']['AP']:.3f}" in output

    code, output, _ = answer("evaluate", str(folder), "--fuse=mirror")
    assert f"without --fuse=mirror: AP {result['metrics']['values']['AP']:.3f}" in output
    assert "times the time (" in output
    # What --tiles asks for is called by that name, and so are the pictures that it is about.
    code, output, imported = answer("evaluate", str(folder), "--tiles=600")
    assert (code, imported) == (1, False)
    assert "--tiles=600: a tile of 600 x 600 pixels cuts none of the" in output
    assert re.search(r" \d pictures of .* test: the largest, .*\.jpg, has \d+ x \d+;", output)
    assert output.rstrip().endswith("give smaller tiles, or none")
    code, output, _ = answer("evaluate", str(folder), "--tiles=8")
    expected = "32 pixels or more to each side; see `tlx list tiles`"
    assert output.strip() == f"tlx evaluate: --tiles=8: tiles.size = 8 makes no sense: expected {expected}"

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (90, 60), "red").save(pictures / "a.png")
    (pictures / "b.png").write_bytes(b"no picture")
    for where in ("x", "y/z"):
        (pictures / where).mkdir(parents=True)
        Image.new("RGB", (90, 60), "blue").save(pictures / where / "a.png")
    one = next((tmp_path / "scenes" / "JPEGImages").iterdir())
    code, output, _ = answer(
        "predict", str(folder), str(pictures), str(pictures / "a.png"), str(one), "--min_score=0.0", "--tiles=64x96"
    )
    assert code == 0, output
    assert "b.png: not an image" in output
    assert "frozen layers are computed by tensorflow" in output
    damaged, *listed = json.loads((folder / "predictions" / "predictions.json").read_text())
    assert damaged["image"] == str(pictures / "b.png")
    inside = [str(pictures / name) for name in ("a.png", "x/a.png", "y/z/a.png")]
    assert [row["image"] for row in listed] == [*inside, str(one)]
    assert len({row["drawn"] for row in listed}) == 4
    for row in listed:
        assert (folder / "predictions" / row["drawn"]).exists()
        for detection in row["detections"]:
            x0, y0, x1, y1 = detection["box"]
            assert 0 <= x0 < x1 <= row["width"]
            assert 0 <= y0 < y1 <= row["height"]

    code, output, _ = answer("train", str(gin), f"--run_dir={folder}", "--gin_bindings=fit.epochs = 2")
    assert code == 1
    assert "holds another experiment" in output

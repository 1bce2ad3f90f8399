"""`tlx convert` from the outside: what it says, and that it says so without TensorFlow."""

import subprocess
import sys

import pytest

from tlx.data.readers.coco import coco
from tlx.data.scenes import write_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "scenes"
    write_scenes(folder, 5, 0)
    return folder


def convert(*arguments):
    """Return the exit code, the output, and whether TensorFlow was imported."""
    code = (
        "import sys; from tlx.cli import entry\n"
        "try: entry()\n"
        "finally: print('TF' if 'tensorflow' in sys.modules else 'no TF', file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "convert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    *lines, imported = done.stderr.strip().splitlines()
    return done.returncode, done.stdout + "\n".join(lines), imported == "TF"


def test_a_folder_is_converted_and_counted(scenes, tmp_path):
    code, output, imported = convert(scenes, tmp_path / "out", "--format=coco", "--images=copy")
    assert (code, imported) == (0, False)
    assert "5 images, " in output
    assert " boxes of 3 classes, " in output
    assert "read as voc" in output
    assert f"{tmp_path / 'out'}: written as coco" in output
    assert {example.split for example in coco(tmp_path / "out").examples} == {"train", "validation", "test"}
    assert not any(path.stat().st_nlink > 1 for path in (tmp_path / "out/images").iterdir())


def test_what_the_format_cannot_hold_is_told(scenes, tmp_path):
    code, output, _ = convert(scenes, tmp_path / "out", "--format=labelbox", "--source_format=voc")
    assert code == 0
    assert "Labelbox cannot hold 5 images of a declared split" in output
    assert "[cannot-hold]" in output


def test_bindings_are_the_readers_arguments(scenes, tmp_path):
    merge = "--gin_bindings=readers.voc.merge = {'mug': 'bottle', 'plant': 'bottle'}"
    assert convert(scenes, tmp_path / "out", "--format=coco", merge)[0] == 0
    assert coco(tmp_path / "out").classes == ("bottle",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{source}"], "say what to convert"),
        (["{source}", "{new}"], "--format=coco|"),
        (["{source}", "{new}", "--format=vco"], "did you mean 'voc'?"),
        (["{source}", "{new}", "--format=coco", "--source_format=vco"], "did you mean 'voc'?"),
        (["{source}", "{new}", "--format=coco", "--gin_bindings=readers.voc.mrge = 1"], "did you mean 'merge'?"),
        (["{source}", "{new}", "--format=coco", "--gin_bindings=readers.voc.merge = 1"], "expected dict"),
        (["{source}", "{new}", "--format=coco", "--gin_bindings=readers.coco.merge = 1"], "has no effect"),
        (["{source}x", "{new}", "--format=coco", "--source_format=voc"], "did you mean 'scenes'?"),
        (["{source}", "{source}/new", "--format=coco", "--source_format=voc"], "stays as it is"),
        (["{source}", "{taken}", "--format=coco", "--source_format=voc"], "nothing is overwritten"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(scenes, tmp_path, arguments, said):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("mine")
    places = {"source": scenes, "new": tmp_path / "new", "taken": tmp_path / "taken"}
    code, output, imported = convert(*(argument.format(**places) for argument in arguments))
    assert (code, imported) == (1, False)
    assert said in output
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine", "taken"]
    assert not (scenes / "new").exists()

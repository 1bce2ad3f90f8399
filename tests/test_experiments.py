"""Every shipped experiment runs end to end, on data of its format that somebody else might have."""

import json
from pathlib import Path

import pytest
from PIL import Image

from tlx import config, run
from tlx.data.readers.voc import voc
from tlx.data.scenes import write_scenes
from tlx.errors import ConfigError
from tlx.evaluate.choose import evaluator_of
from tlx.events import Listener
from tlx.search import space

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").glob("*.gin"))
TINY = [
    "run.image_size = 64",
    "fit.epochs = 1",
    "fit.batch_size = 2",
    "fit.evaluations = 1",
    "features.views = 1",
    "run.engine = @engines.tensorflow()",
]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, 10, 0)
    return folder


def as_kitti(dataset, folder):
    for name in ("image_2", "label_2"):
        (folder / "training" / name).mkdir(parents=True)
    for number, example in enumerate(dataset.examples):
        (folder / f"training/image_2/{number:06d}.jpg").write_bytes(example.image.read_bytes())
        lines = [
            f"{dataset.classes[label]} 0.00 0 -1.57 {' '.join(map(str, box))} 1 1 1 1 1 1 0"
            for box, label in zip(example.objects.boxes.tolist(), example.objects.labels, strict=True)
        ]
        (folder / f"training/label_2/{number:06d}.txt").write_text("\n".join(lines))
    return folder


def as_coco(dataset, folder):
    categories = [{"id": 10 * i + 1, "name": name} for i, name in enumerate(dataset.classes)]
    parts = {"train2017": dataset.examples[:7], "val2017": dataset.examples[7:]}
    (folder / "annotations").mkdir(parents=True)
    for part, examples in parts.items():
        (folder / "images" / part).mkdir(parents=True)
        images, annotations = [], []
        for example in examples:
            (folder / "images" / part / example.image.name).write_bytes(example.image.read_bytes())
            size = {"width": example.width, "height": example.height}
            images.append({"id": len(images), "file_name": example.image.name, **size})
            for (x0, y0, x1, y1), label in zip(
                example.objects.boxes.tolist(), example.objects.labels.tolist(), strict=True
            ):
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                place = {"id": len(annotations) + 1, "image_id": images[-1]["id"], "category_id": 10 * label + 1}
                annotations.append({**place, **box})
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"annotations/instances_{part}.json").write_text(json.dumps(content))
    return folder


def as_labelbox(dataset, folder):
    (folder / "images").mkdir(parents=True)
    rows = []
    for example in dataset.examples:
        (folder / "images" / example.image.name).write_bytes(example.image.read_bytes())
        objects = [
            {"value": dataset.classes[label], "bbox": {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}}
            for (x0, y0, x1, y1), label in zip(example.objects.boxes.tolist(), example.objects.labels, strict=True)
        ]
        url = f"https://example.com/bucket/{example.image.name}?token=x"
        rows.append({"ID": example.image.stem, "Labeled Data": url, "Label": {"objects": objects}})
    (folder / "export.json").write_text(json.dumps(rows))
    return folder / "export.json"


def as_class_folders(dataset, folder):
    """Every object becomes a picture of its own."""
    for number, example in enumerate(dataset.examples):
        with Image.open(example.image) as picture:
            for i, (box, label) in enumerate(zip(example.objects.boxes.tolist(), example.objects.labels, strict=True)):
                part = folder / ("train" if number < 7 else "test") / dataset.classes[label]
                part.mkdir(parents=True, exist_ok=True)
                picture.convert("RGB").crop(tuple(map(round, box))).save(part / f"{number}-{i}.png")
    return folder


WRITERS = {
    "kitti": as_kitti,
    "coco_tiny": as_coco,
    "labelbox_sharks": as_labelbox,
    "cifar10_last_layer": as_class_folders,
    "cifar10_search": as_class_folders,
    "inception_v3_cifar10": as_class_folders,
}
# Files that are not here: the networks begin at random.
WITHOUT = {"inception_v3_cifar10": ["backbones.inception_v3.weights = None"]}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_runs_end_to_end_on_other_data(file, scenes, tmp_path):
    data = scenes
    if file.stem in WRITERS:
        data = WRITERS[file.stem](voc(scenes), tmp_path / "data")
    if file.stem == "quickstart":
        data = tmp_path / "drawn"
        bindings = [*TINY, "readers.scenes.images = 10"]
    else:
        bindings = TINY
    bindings = [*bindings, *WITHOUT.get(file.stem, []), f"DATA = '{data}'"]
    bindings.append(f"features.folder = '{tmp_path / 'features'}'")
    experiment = config.load([file], bindings)
    result = run.train(config.build(experiment.trees["run"]), tmp_path / "run", experiment.text(), Listener())
    assert set(result["metrics"]["per_class"]) == {"bottle", "mug", "plant"}
    assert result["split"] == ("validation" if file.stem in ("coco_tiny", "kitti") else "test")
    assert config.load([tmp_path / "run" / "config.gin"]).text() == experiment.text()


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_an_experiment_says_how_to_run_it_and_can_be_searched(file):
    experiment = config.load([file])
    space.check(experiment, config.build(experiment.trees["search"]))
    opening = file.read_text().partition("\nDATA =")[0]
    assert f"tlx search experiments/{file.name}" in opening
    assert evaluator_of(experiment).primary in opening


@pytest.mark.parametrize("name", ["few", "some", "many", "small_objects", "photographs"])
def test_a_space_that_tlx_brings_can_be_included_from_anywhere(name, tmp_path):
    text = (EXPERIMENTS[0].parent / "star_wars.gin").read_text().partition("search.space")[0]
    file = tmp_path / "own.gin"
    file.write_text(f"{text}include 'spaces/{name}.gin'\n")
    experiment = config.load([file])
    space.check(experiment, config.build(experiment.trees["search"]))
    brought = Path(config.__file__).parent / "spaces" / f"{name}.gin"
    assert experiment.place("search.space").startswith(str(brought))
    assert f"include 'spaces/{name}.gin'" in brought.read_text()
    file.write_text(f"{text}include 'spaces/{name}s.gin'\n")
    with pytest.raises(ConfigError, match=rf"did you mean '{name}\.gin'"):
        config.load([file])
    file.write_text(f"{text}include 'spaces/{name}.gin'\n")
    # One's own of that name comes first.
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / f"{name}.gin").write_text("search.space = {'fit.epochs': ('float', 1, 40)}\n")
    assert config.load([file]).value("search.space") == {"fit.epochs": ("float", 1, 40)}

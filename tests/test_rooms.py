"""Data goes one way: each room imports only from rooms above it."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "tlx"

# From the top of the house to its door. A folder that is not divided here is one room.
_PLAN = """
errors meanwhile events marker ownership lock lazy registry typecheck ginfile tree config
data.targets data.dataset
data.bulk data.container data.headers data.images data.recent data.names data.survey data.similarity data.files
data.objects data.oddities data.assemble data.sniff data.place data.unheld
data.formats data.fetching data.writers data.scenes data.readers data.splits data.convert data.doctor
augment report.text report.pictures tasks windows tiles sizing pipeline
models.weights models.backbone models.graph models.published models.backbones
models.head models.boxes models.assign models.assigners models.postprocess models.pyramid models.heads models.detector
models.products
engines
freeze policies optimizers schedules segment featurefiles featurestore features gpu memory checkpoint devices scale
learner history looks fit evaluate predict fusion
report.histogram report.augmented report.inspection report.overview report.page
report.tensorboard report.runlog report.terminal report.pareto
runfolder phases run probe costs work
inference search
commands cli __main__
"""
ROOMS = _PLAN.split()
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(ROOT.rglob("*.py"))}
PACKAGES = {name.removesuffix(".__init__") for name in MODULES if name.endswith(".__init__")}


def imports(path):
    """Every module that a file imports, wherever in it, and what it takes from packages of tlx."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}".removeprefix("tlx.")
                yield f"tlx.{inside}" if inside in MODULES or inside in PACKAGES else node.module


def room_of(module):
    """The number of the room that a module, without its leading `tlx.`, is in."""
    found = [i for i, room in enumerate(ROOMS) if module == room or module.startswith(room + ".")]
    assert len(found) == 1, f"tlx.{module} is in no room, or in several: add it to ROOMS"
    return found[0]


def is_empty(module):
    return not ast.parse(MODULES[module].read_text()).body


@pytest.mark.parametrize("module", [name for name in MODULES if not is_empty(name)])
def test_a_room_imports_only_from_rooms_above_it(module):
    here = room_of(module.removesuffix(".__init__"))
    below = [name for name in imports(MODULES[module]) if name.startswith("tlx.") and room_of(name[4:]) > here]
    assert below == []


@pytest.mark.parametrize("folder", [ROOT, ROOT / "data"])
def test_the_way_around_names_every_module(folder):
    table = (ROOT.parent / "CONTRIBUTING.md").read_text().partition("## Where things are")[2].partition("## ")[0]
    named = set(re.findall(r"`(?:tlx/)?(?:data/)?(\w+(?:\.py|/))`", table))
    there = {path.name if path.suffix else f"{path.name}/" for path in folder.iterdir() if path.name[0] != "_"}
    assert there - {"data/"} <= named


def test_every_room_exists():
    assert [room for room in ROOMS if room not in MODULES and room not in PACKAGES] == []


@pytest.mark.parametrize(
    ("library", "where"), [("gin", {"ginfile"}), ("tensorflow", {"lazy"}), ("keras", {"lazy"}), ("torch", set())]
)
def test_a_library_is_imported_in_one_place(library, where):
    users = {name for name, path in MODULES.items() if any(i.split(".")[0] == library for i in imports(path))}
    assert users <= where


def test_importing_every_module_leaves_tensorflow_out(output_of):
    names = [f"tlx.{name}".removesuffix(".__init__") for name in MODULES if name != "__main__"]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
    code += "from tlx import registry; registry.discover()\n"
    code += "print([m for m in ('tensorflow', 'keras', 'jax', 'torch', 'optuna') if m in sys.modules])"
    assert output_of(code).strip() == "[]"

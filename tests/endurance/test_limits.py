"""Whatever the limit on memory, real training ends with a detector or with what would fit; the driver never dies.

`TLX_SLOW=1 make test` runs the short form, and `make endurance` the long one.
"""

import itertools
import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tlx.work.verdict import wants_memory

LONG = bool(os.environ.get("TLX_ENDURANCE"))
pytestmark = pytest.mark.skipif(
    not LONG and os.environ.get("TLX_SLOW") != "1", reason="TLX_SLOW=1 trains within limits on memory"
)
SCRIPT = Path(__file__).with_name("limited.py")
EXPERIMENT = """\
run.data = @splits.own()
run.backbone = @backbones.mobilenet_v2()
run.head = @heads.fcos()
run.freeze = @freezes.last_layers()
splits.own.dataset = @readers.scenes()
readers.scenes.path = '{folder}/scenes'
readers.scenes.images = 80
backbones.mobilenet_v2.weights = None
backbones.mobilenet_v2.alpha = 0.35
freezes.last_layers.unfrozen = 0
features.folder = '{folder}/features'
run.image_size = 64
fit.batch_size = 48
fit.epochs = 2
fit.evaluations = 1
"""
KINDS = [
    [f"run.image_size = {size}", f"freezes.last_layers.unfrozen = {unfrozen}"]
    for size, unfrozen in (((64, 0), (64, 6), (192, 0), (192, 6)) if LONG else ((192, 0),))
]
GIGABYTE = 1_000_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a function that trains within limits, one after another in one driver, and tells how each ended.

    What was measured once is known to all, unless another `ledger` is given.
    """
    folder = tmp_path_factory.mktemp("limits")
    gin = folder / "a.gin"
    gin.write_text(EXPERIMENT.format(folder=folder))
    number = itertools.count()

    def runs(cases, space=None, ledger=folder / "memory.json"):
        limit = space and (lambda: resource.setrlimit(resource.RLIMIT_AS, (space, space)))
        work = folder / f"run{next(number)}"
        work.mkdir()
        ended = subprocess.run(
            [sys.executable, SCRIPT, gin, work, ledger],
            input="".join(f"{json.dumps(case)}\n" for case in cases),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            preexec_fn=limit,
        )
        return [json.loads(line) for line in ended.stdout.splitlines()]

    runs([(all_bindings, {}) for all_bindings in KINDS])
    runs.ledger = folder / "memory.json"
    return runs


def judge(ended):
    """Check that a run ended well, and that all deaths on the way were for want of memory; return how often it died."""
    assert ended["kind"] in ("done", "infeasible"), ended
    assert all(map(wants_memory, ended["died"])), ended["died"]
    assert ("not even one example fits" in ended["content"]) == (ended["kind"] == "infeasible")
    return len(ended["died"])


def test_budgets_are_kept_without_a_death(runs, saw):
    chance = random.Random(0)
    budgets = [chance.uniform(0.25, 0.9) for _ in range(50)] if LONG else [0.2, 0.9]
    cases = [(chance.choice(KINDS), {"budget_gb": budget}) for budget in budgets]
    ended = runs(cases)
    deaths = Counter(str(case[0]) for case, one in zip(cases, ended, strict=True) for _ in range(judge(one)))
    assert all(count <= 1 for count in deaths.values())
    kinds = Counter(one["kind"] for one in ended)
    assert set(kinds) == {"done", "infeasible"}
    came = f"{kinds['done']} trained, {kinds['infeasible']} told what would fit; {deaths.total()} deaths on the way"
    saw("real training within memory budgets", f"{len(cases)} budgets: {came}")


def test_wrong_predictions_are_survived(runs, tmp_path, saw):
    chance = random.Random(1)
    told = json.loads(runs.ledger.read_text())
    for entry in told["entries"].values():
        for need, amount in itertools.product(entry["needs"], ("fixed", "each", "look")):
            need[amount] *= 0.5
    budgets = [chance.uniform(0.35, 0.6) for _ in range(20)] if LONG else [0.5]
    deaths = 0
    for budget in budgets:
        (tmp_path / "wrong.json").write_text(json.dumps(told))
        case = (chance.choice(KINDS), {"budget_gb": budget, "margin": 1.0})
        deaths += judge(runs([case], ledger=tmp_path / "wrong.json")[0])
    assert deaths
    saw(
        "real training where needs were thought half as large",
        f"{len(budgets)} budgets, {deaths} deaths, all told right",
    )


def test_limits_on_the_address_space_are_survived(runs, tmp_path, saw):
    chance = random.Random(2)
    limits = [int(chance.uniform(1.5, 3.5) * GIGABYTE) for _ in range(30)] if LONG else [int(2.6 * GIGABYTE)]
    kinds, deaths = Counter(), 0
    for space in limits:
        (tmp_path / "space.json").write_text(runs.ledger.read_text())
        # Twice: what the first run has learnt holds for the second.
        case = (chance.choice(KINDS), {})
        first, second = runs([case, case], space, tmp_path / "space.json")
        assert judge(first) <= 1 or first["kind"] == "infeasible"
        assert judge(second) == 0
        assert first["kind"] == second["kind"]
        kinds[first["kind"]] += 1
        deaths += judge(first)
    came = f"{kinds['done']} trained, {kinds['infeasible']} told what would fit; {deaths} deaths, all told right"
    saw("real training within limits on the address space", f"{len(limits)} limits: {came}")

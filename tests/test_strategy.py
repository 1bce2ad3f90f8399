"""Several devices do the update that one device does."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tlx import devices
from tlx.data.convert import convert
from tlx.errors import TlxError, TrainingError

CHILD = Path(__file__).with_name("strategy_child.py")
# Seven examples in micro-batches of three: pieces of one and two, and of none and one.
EXPERIMENT = """\
run.data = @splits.own()
splits.own.dataset = @readers.voc()
readers.voc.path = {path!r}
run.backbone = @backbones.small()
run.head = @heads.fcos()
heads.fcos.channels = 8
heads.fcos.depth = 0
heads.fcos.strides = (32,)
run.freeze = @freezes.last_layers()
freezes.last_layers.unfrozen = 2
run.augment = @augmentations.standard()
run.image_size = 64
features.folder = {features!r}
features.views = 2
fit.batch_size = 7
fit.micro_batch = 3
fit.epochs = 7
fit.evaluations = 3
fit.ema = 0.9
"""


class Runs:
    """Experiments run in child processes: `folder` holds what they left behind."""

    def __init__(self, folder, path):
        self.folder = folder
        self.file = folder / "experiment.gin"
        self.file.write_text(EXPERIMENT.format(path=str(path), features=str(folder / "features")))

    def start(self, *runs, **environment):
        """Start a child that does runs, each given as its folder's name, ":", and bindings with ";" between them."""
        return subprocess.Popen(
            [sys.executable, CHILD, self.file, *(f"{self.folder}/{one}" for one in runs)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def weights(self, name):
        found = {}
        with h5py.File(self.folder / name / "detector.weights.h5") as file:
            file.visititems(lambda key, item: found.update({key: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found


def ended(child):
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err[-5000:]
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def runs(draw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    convert(draw(14, splits=("train", "train", "validation", "test")), folder / "voc", "voc")
    return Runs(folder, folder / "voc")


MIRRORED = "fit.strategy = 'mirrored'"
DROPOUT = "backbones.small.dropout = 0.3"
NORMALIZED = "freezes.last_layers.unfrozen = 4"


@pytest.fixture(scope="module")
def local(runs):
    """What runs on one device and on two of this machine returned."""
    one, two, *more = ended(
        runs.start(
            "one:",
            f"two:{MIRRORED}",
            f"whole:{MIRRORED};{DROPOUT};{NORMALIZED}",
            f"halves:{MIRRORED};{DROPOUT};{NORMALIZED};stop",
            f"halves:{MIRRORED};{DROPOUT};{NORMALIZED}",
        )
    )
    return one, two, more


def assert_close(runs, one, other):
    one, other = runs.weights(one), runs.weights(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], atol=1e-5, err_msg=name)


def assert_same_result(one, other):
    assert one["split"] == other["split"]
    assert one["updates"] == other["updates"] >= 6
    for which in ("metrics", "validation"):
        for key in ("AP", "AP50", "AR"):
            assert one[which]["values"][key] == pytest.approx(other[which]["values"][key], abs=1e-5)


def losses(run):
    return [float(note.removeprefix("loss ")) for note in run["losses"]]


def test_two_devices_do_what_one_does(runs, local):
    one, two, _ = local
    assert_close(runs, "one", "two")
    assert_same_result(one["result"], two["result"])
    assert losses(one) == pytest.approx(losses(two), abs=2e-3)
    assert len(set(losses(one))) > 4
    assert "spread over 2 devices" in " ".join(two["said"])


def test_on_two_devices_a_run_goes_on_as_if_it_had_not_been_interrupted(runs, local):
    _, _, (whole, first, second) = local
    assert first["result"] is None
    assert losses(whole) == losses(first) + losses(second)
    assert_same_result(whole["result"], second["result"])
    before, after = runs.weights("whole"), runs.weights("halves")
    assert [name for name, value in before.items() if not np.array_equal(value, after[name])] == []
    assert any("BatchNorm" in line and "see the statistics of 2 examples" in line for line in whole["said"])


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def clustered(runs, name, *bindings):
    """The two workers of a cluster at a run, the chief first; the chief's folder is `name`."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    children = []
    for index in range(2):
        config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        more = ";".join(("fit.strategy = 'multi_worker'", *bindings))
        children.append(runs.start(f"{name}{'-worker-1' * index}:{more}", TF_CONFIG=config))
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_two_workers_do_what_one_device_does_interrupted_or_not(runs, local):
    one, *_ = local
    micro = "fit.micro_batch = 2"
    with clustered(runs, "chief", micro, "stop") as (chief, worker):
        assert ended(chief)[0]["result"] is None
        # Left alone, it ends too, and says why.
        assert "give the command again on every machine" in worker.communicate(timeout=100)[1]
        assert worker.returncode != 0
    with clustered(runs, "chief", micro) as children:
        chief, worker = (ended(child)[0] for child in children)
    assert_close(runs, "one", "chief")
    assert_same_result(one["result"], chief["result"])
    assert losses(one)[-len(losses(chief)) :] == pytest.approx(losses(chief), abs=2e-3)
    assert 0 < len(losses(chief)) < len(losses(one))
    assert worker["result"] == chief["result"]
    assert losses(worker) == losses(chief)
    left = {path.name for path in (runs.folder / "chief-worker-1").iterdir()}
    told = {"config.gin", "data.json", "environment.json", "model.json", "run.log"}
    assert left <= {".tlx-made", *told, "tensorboard"}


def test_one_device_shares_nothing():
    one = devices.several("none")
    assert (one.share(5), one.split([1, 2]), one.told({"a": 1}), one.chief) == (range(5), [1, 2], {"a": 1}, True)


WORKERS = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "TF_CONFIG is not set; .*10.0.0.1:2222"),
        ("{", "cannot be understood .JSONDecodeError"),
        ("[]", "cannot be understood"),
        (json.dumps({"cluster": WORKERS}), "KeyError: 'task'"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "ps", "index": 0}}), "nothing but workers"),
        (json.dumps({"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}), "nothing but workers"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}), "2 is none of the 2 workers"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": "0"}}), "'0' is none of the 2"),
    ],
)
def test_a_cluster_that_is_not_one_is_refused(monkeypatch, given, told):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(TlxError, match=told):
        devices.several("multi_worker")


def test_every_worker_has_a_folder_of_its_own(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": 1}}))
    assert devices.cluster() == devices.Cluster(2, 1)
    assert devices.cluster().folder(Path("runs/a")) == Path("runs/a-worker-1")
    assert devices.Cluster(2, 0).folder(Path("runs/a")) == Path("runs/a")


class FourReplicas:
    num_replicas_in_sync = 4


def test_workers_share_every_example_once():
    two = [devices._Several(FourReplicas(), "", 2, index) for index in range(2)]
    assert [list(one.share(7)) for one in two] == [[0, 1, 2], [3, 4, 5, 6]]
    assert [(one.chief, one.replicas_here) for one in two] == [(True, 2), (False, 2)]
    with pytest.raises(TrainingError, match=r"1 examples, fewer than there are workers \(2\): raise fit\.batch_size"):
        two[0].share(1)

"""The memory of GPUs, which stand-ins play here: no test has seen a real one."""

import subprocess
import sys
from types import SimpleNamespace

import pynvml
import pytest

from tlx import gpu, lazy, memory

GPUS = [("GPU-aaa", "NVIDIA L4", 20_000 << 20), ("GPU-bbb", "NVIDIA T4", 10_000 << 20), ("GPU-ccc", "Orin", None)]


@pytest.fixture
def machine(monkeypatch):
    """A machine whose driver lists the GPUs above, and whose TensorFlow sees as many as `seen.gpus` says."""
    seen = SimpleNamespace(gpus="2", driver=True, asked=0, processes={})

    def init():
        if not seen.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def info(index):
        if GPUS[index][2] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(free=GPUS[index][2])

    def running(index):
        if index == 2:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        held = seen.processes.get(index, {})
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in held.items()]

    def run(command, **_):
        seen.asked += 1
        if seen.gpus is None:
            raise subprocess.CalledProcessError(9, command)
        return SimpleNamespace(stdout=f"hello\n{seen.gpus}\n")

    driver = {
        "nvmlInit": init,
        "nvmlDeviceGetCount": lambda: len(GPUS),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda index: GPUS[index][0],
        "nvmlDeviceGetName": lambda index: GPUS[index][1],
        "nvmlDeviceGetMemoryInfo": info,
        "nvmlDeviceGetComputeRunningProcesses": running,
    }
    for name, stand_in in driver.items():
        monkeypatch.setattr(pynvml, name, stand_in)
    monkeypatch.setattr(gpu.subprocess, "run", run)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for cached in (gpu.free, gpu._visible):
        cached.cache_clear()
    yield seen
    for cached in (gpu.free, gpu._visible):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("visible", "name"),
    [(None, "NVIDIA T4"), ("0", "NVIDIA L4"), ("0,1", "NVIDIA T4"), ("GPU-aa", "NVIDIA L4"), ("", None), ("-1", None)],
)
def test_the_visible_gpu_with_least_memory_limits(machine, monkeypatch, visible, name):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    megabytes = {"NVIDIA T4": 10000, "NVIDIA L4": 20000}
    assert gpu.free() == ((name, megabytes[name] << 20) if name else None)
    limit, resident = memory.Memory().limit(), memory.Memory().resident()
    if name:
        assert limit == memory.Limit(
            int((megabytes[name] << 20) * 0.9), f"nine tenths of the free memory of the GPU {name}"
        )
    assert (limit.why == resident.why) is (name is None)


def test_a_budget_is_the_gpu_s_and_not_the_machine_s(machine):
    settings = memory.Memory(budget_gb=2.0)
    assert settings.limit().bytes == 2_000_000_000
    assert settings.resident().why != settings.limit().why
    # What the driver takes for itself comes on top.
    assert settings.on_gpu().bytes == 3_000_000_000
    assert memory.Memory().on_gpu() is None


def test_what_a_process_holds_is_asked_of_every_visible_gpu(machine, monkeypatch):
    machine.processes = {0: {7: 100, 8: 900}, 1: {7: 300, 9: None}}
    assert [gpu.held_by(pid) for pid in (7, 8, 9, 10)] == [300, 900, 0, 0]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    gpu._visible.cache_clear()
    assert gpu.held_by(7) == 100


def test_a_gpu_that_tensorflow_cannot_use_does_not_count(machine):
    for machine.gpus in ("0", "", None):
        gpu.free.cache_clear()
        assert gpu.free() is None
    assert memory.Memory(budget_gb=2.0).on_gpu() is None


def test_without_a_driver_nobody_is_asked(machine):
    machine.driver = False
    assert gpu.free() is None
    assert gpu.held_by(7) == machine.asked == 0


class Library:
    """TensorFlow on a machine with two GPUs."""

    def __init__(self):
        self.grown, self.reset = [], []
        names = ["/device:GPU:0", "/device:GPU:1"]
        info = {"GPU:0": {"current": 3, "peak": 5}, "GPU:1": {"current": 4, "peak": 9}}
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: ["first", "second"],
            list_logical_devices=lambda kind: [SimpleNamespace(name=name) for name in names],
            experimental=SimpleNamespace(
                get_memory_info=info.__getitem__,
                reset_memory_stats=self.reset.append,
                set_memory_growth=lambda device, on: self.grown.append((device, on)),
            ),
        )


def test_what_is_held_is_that_of_the_fullest_gpu(monkeypatch):
    library = Library()
    monkeypatch.setattr(gpu, "tf", library)
    monkeypatch.setitem(sys.modules, "tensorflow", library)
    assert (gpu.held(), gpu.peak()) == (4, 9)
    assert (memory.own(), memory.peak(), memory.own_peak()) == (4, 9, 9)
    memory.reset_peak()
    assert library.reset == ["GPU:0", "GPU:1"]


def test_without_a_gpu_the_process_counts():
    assert gpu.held() is gpu.peak() is None
    assert memory.peak() > 10_000_000


@pytest.mark.parametrize("level", [None, "0"])
def test_memory_of_a_gpu_is_taken_as_it_is_needed(monkeypatch, level):
    library = Library()
    monkeypatch.setitem(sys.modules, "tensorflow", library)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    lazy.import_tensorflow()
    assert library.grown == [("first", True), ("second", True)]

"""What a process holds, and what it may hold."""

import os

import numpy as np
import pytest

from tlx import memory
from tlx.errors import ConfigError


def test_what_is_allocated_is_held_and_remembered_as_peak():
    memory.give_back()
    memory.reset_peak()
    before, peak = memory.held(os.getpid())[0], memory.own_peak()
    block = np.ones(25_000_000)
    assert 190e6 < memory.held(os.getpid())[0] - before < 300e6
    del block
    assert memory.held(os.getpid())[0] - before < 100e6
    assert 150e6 < memory.own_peak() - peak < 300e6
    memory.reset_peak()
    assert memory.own_peak() - peak < 100e6


def test_a_process_that_is_gone_holds_nothing():
    assert memory.held(2**30) == (0, 0)


def test_a_budget_is_the_limit():
    assert memory.Memory(budget_gb=2.5).limit() == memory.Limit(2_500_000_000, "memory.budget_gb = 2.5")
    with pytest.raises(ConfigError, match=r"memory\.budget_gb = -1"):
        memory.Memory(budget_gb=-1)


def machine(tmp_path, monkeypatch, groups, available=8_000_000):
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text(f"MemTotal: 9000000 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n")
    (tmp_path / "self/cgroup").write_text(groups)
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    return tmp_path / "cgroup"


def test_without_a_budget_the_machine_limits(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, "0::/\n")
    assert memory.Memory().limit().bytes == int(8_000_000 * 1024 * 0.9)


@pytest.mark.parametrize(
    ("groups", "folder", "names"),
    [
        ("0::/user/tlx\n", "user", ("memory.max", "memory.current", "inactive_file")),
        (
            "5:cpu:/\n4:memory:/docker/7\n",
            "memory/docker/7",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
)
def test_the_tightest_control_group_limits(tmp_path, monkeypatch, groups, folder, names):
    root = machine(tmp_path, monkeypatch, groups)
    (root / "user/tlx").mkdir(parents=True)
    (root / "user/tlx/memory.max").write_text("max\n")
    (root / folder).mkdir(parents=True, exist_ok=True)
    most, now, cached = names
    (root / folder / most).write_text("3000000000\n")
    (root / folder / now).write_text("2500000000\n")
    # Files that were read once fill a control group, and leave it when memory is wanted.
    (root / folder / "memory.stat").write_text(f"anon 900000000\n{cached} 1500000000\n")
    limit = memory.Memory().limit()
    assert limit.bytes == int(2_000_000_000 * 0.9)
    assert folder in limit.why

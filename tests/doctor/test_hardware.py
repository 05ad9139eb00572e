"""Cores, memory and /dev/shm, within containers of either version of control groups."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flowerfast import machine
from flowerfast.doctor import hardware
from flowerfast.doctor.hardware import core_lines, memory_lines, shm_lines

Group = Callable[..., None]


class Usage(NamedTuple):
    """What `shutil.disk_usage` says."""

    total: int
    used: int
    free: int


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    """Function (file=content, ...): a container's control group; of 8 cores without any."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    root.mkdir()
    own.write_text("4:memory:/box\n1:cpu,cpuacct:/box\n0::/\n")
    for module in (machine, hardware):
        monkeypatch.setattr(module, "_CGROUPS", root)
        monkeypatch.setattr(module, "_OWN_CGROUP", own)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    def write(**files: Any) -> None:
        for name, content in files.items():
            file = root / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{content}\n")

    return write


def test_a_container_of_one_core_is_a_warning_that_names_the_limit(group: Group) -> None:
    (line,) = core_lines()
    assert (line.state, line.found.startswith("8 of 8; ")) == ("ok", True)
    group(cgroup_dot_controllers="cpu memory", cpu_dot_max="100000 100000")
    (line,) = core_lines()
    assert line.state == "warn"
    assert line.found.startswith("1 of 8: the container's limit (cgroup cpu.max)")
    assert line.mend.startswith("docker run --cpus")
    group(cpu_dot_max="400000 100000")
    (line,) = core_lines()
    assert (line.state, line.found.startswith("4 of 8: the container's limit")) == ("ok", True)


def test_affinity_and_ranks_are_named(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    (line,) = core_lines()
    assert (line.state, "bound to some" in line.found) == ("ok", True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    (line,) = core_lines()
    assert (line.state, "2 processes share them" in line.found) == ("warn", True)
    assert "cpu.max" not in line.found


def test_limits_of_version_1_that_nothing_looks_at_are_warnings(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "total_memory", lambda: 16 << 30)
    monkeypatch.setattr(hardware, "free_memory", lambda: 8 << 30)
    group(cpu__box__cpu_dot_cfs_quota_us=200000, cpu__box__cpu_dot_cfs_period_us=100000)
    group(memory__memory_dot_limit_in_bytes=3 << 30)  # mounted as the root, as in a container
    cores, memory = [*core_lines()], [*memory_lines()]
    assert [line.state for line in cores + memory] == ["ok", "warn", "ok", "warn"]
    assert cores[1].mend == "--set data.workers=2"
    assert "3.0 GiB" in memory[1].found
    group(cgroup_dot_controllers="cpu")  # these are of version 2, and have been read
    assert len([*core_lines()]) == len([*memory_lines()]) == 1


def test_little_memory_is_a_warning(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "free_memory", lambda: 1 << 30)
    line = next(memory_lines())
    assert (line.state, line.found.startswith("1.0 GiB free of ")) == ("warn", True)
    assert "docker run --memory" in line.mend


@pytest.mark.parametrize(("free", "state"), [(64 << 20, "warn"), (2 << 30, "ok")])
def test_a_small_shm_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str
) -> None:
    monkeypatch.setattr(hardware, "_SHM", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    (line,) = shm_lines()
    assert (line.state, "--shm-size=1g" in line.mend) == (state, state == "warn")
    monkeypatch.setattr(hardware, "_SHM", tmp_path / "none")
    assert [line.state for line in shm_lines()] == ["ok"]

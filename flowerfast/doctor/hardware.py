"""Cores, memory and /dev/shm, and what a container leaves of them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from flowerfast.doctor.line import Line
from flowerfast.machine import cpu_name, free_memory, sharing, total_memory, usable_cores

_GIB = 2**30
LEAST_MEMORY = 2 * _GIB
"""Bytes, about what a step of ResNet18 on a CPU needs with 32 photos of 224 pixels."""
LEAST_SHM = 1 * _GIB
"""Bytes, as NVIDIA's NCCL documentation advises for containers (--shm-size=1g)."""
_SHM = Path("/dev/shm")
_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def core_lines() -> Iterator[Line]:
    """Cores this process may use, and what keeps it from the others."""
    cores, host = usable_cores(), os.cpu_count() or 1
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else host
    why = []
    if bound < host:
        why.append("bound to some (affinity, cpuset)")
    if cores < max(bound // sharing(), 1):
        why.append("the container's limit (cgroup cpu.max)")
    if sharing() > 1:
        why.append(f"{sharing()} processes share them")
    found = f"{cores} of {host}{': ' * bool(why)}{', '.join(why)}; {cpu_name() or 'CPU of unknown name'}"
    if cores > 1:
        yield Line("cores", "ok", found)
    else:
        mend = "docker run --cpus 4, or resources.limits.cpu of the pod" if why else "a machine with more"
        yield Line("cores", "warn", found, mend)
    quota = _quota_v1()
    if quota is not None and quota < cores:
        found = f"a cgroup v1 quota of {quota:g} cores, which flowerfast does not look at"
        yield Line("cores", "warn", found, f"--set data.workers={max(round(quota), 1)}")


def memory_lines() -> Iterator[Line]:
    """Memory of the machine or container, and what is free of it."""
    total, free = total_memory(), free_memory()
    found = f"{free / _GIB:.1f} GiB free of {f'{total / _GIB:.1f} GiB' if total else 'unknown'}"
    if free >= LEAST_MEMORY:
        yield Line("memory", "ok", found)
    else:
        mend = "docker run --memory 8g, or end what else runs; else lower train.batch_size, data.prefetch"
        yield Line("memory", "warn", found, mend)
    limit = _memory_v1()
    if limit is not None and limit < (total or limit + 1):
        found = f"a cgroup v1 limit of {limit / _GIB:.1f} GiB, which flowerfast does not look at"
        yield Line("memory", "warn", found, f"--set data.cache_gb={limit / 3e9:.1f} with a cache in memory")


def shm_lines() -> Iterator[Line]:
    """/dev/shm, through which processes pass each other data."""
    if not _SHM.is_dir():
        yield Line("/dev/shm", "ok", "none on this system, and none needed")
        return
    room = shutil.disk_usage(_SHM)
    found = f"{room.free / _GIB:.2f} GiB free of {room.total / _GIB:.2f} GiB"
    if room.free >= LEAST_SHM:
        yield Line("/dev/shm", "ok", found)
    else:
        found += ": enough on one device, too small for NCCL between GPUs and DataLoader's workers"
        yield Line("/dev/shm", "warn", found, "docker run --shm-size=1g, or --ipc=host")


def _quota_v1() -> float | None:
    """Cores that a control group of version 1 allows, where those are in use; None: no limit."""
    quota, period = (_number_v1("cpu", f"cpu.cfs_{what}_us") for what in ("quota", "period"))
    return quota / period if quota is not None and quota > 0 and period else None


def _memory_v1() -> int | None:
    """Bytes that a control group of version 1 allows, where those are in use; None: not told."""
    return _number_v1("memory", "memory.limit_in_bytes")


def _number_v1(controller: str, name: str) -> int | None:
    """A file of this process's control group of version 1; in a container its own is mounted as the root."""
    if (_CGROUPS / "cgroup.controllers").exists():  # of version 2, which `machine` reads
        return None
    lines = _OWN_CGROUP.read_text().splitlines() if _OWN_CGROUP.exists() else []
    mine = (line.split(":", 2) for line in lines if line.count(":") >= 2)
    groups = [group for _, controllers, group in mine if controller in controllers.split(",")]
    for group in (*groups, "/"):
        try:
            return int((_CGROUPS / controller / group.lstrip("/") / name).read_text())
        except (OSError, ValueError):
            continue
    return None

"""Training on a CPU has the process keep the memory that it frees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import flowerfast

SCRIPT = """
import resource
import sys
import torch
from flowerfast.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytes(1 << 26).count(1)  # 16,384 pages are touched
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
print(keep_freed_memory(torch.device(sys.argv[1])), given_back, faults())
"""


def ran(device: str, **env: str) -> tuple[bool, int, int]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    path = str(Path(flowerfast.__file__).parents[1])
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, device],
        env={**plain, "PYTHONPATH": path, **env},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return out[0] == "True", int(out[1]), int(out[2])


def test_pages_of_freed_memory_are_not_asked_for_anew() -> None:
    asked, given_back, kept = ran("cpu")
    if not asked:
        pytest.skip("another malloc than glibc's")
    assert kept < given_back / 5


@pytest.mark.parametrize(("device", "env"), [("cpu", {"MALLOC_MMAP_THRESHOLD_": "1000000"}), ("cuda", {})])
def test_what_the_user_has_set_up_stays_and_what_a_gpu_needs_not(device: str, env: dict[str, str]) -> None:
    asked, given_back, kept = ran(device, **env)
    assert not asked
    assert kept > given_back / 2

"""Memory of the DALI executor on the CPU: it takes less from its pool, and a user's own setting stands."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nvidia.dali")

from flowerfast.loaders.dali import memory

VARIABLE = "DALI_MALLOC_POOL_THRESHOLD"
STEADY = {"MALLOC_ARENA_MAX": "1"}  # else glibc takes more or less, as its threads meet
DEFAULT = "32M"  # what DALI 2.4 takes when nothing is said
CHILD = """
import json, os, sys, zlib
from pathlib import Path
from flowerfast.augment import Augment
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

def anonymous():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024

photos = Photos(sys.argv[1], on_bad="fail")
before, taken, pixels = anonymous(), [], 0
given = {"batch_size": 16, "augment": Augment(), "device": "cpu", "workers": 4}
with Loader(photos, **given, backend="dali-cpu") as loader:
    for epoch in range(5):
        for batch in loader:
            pixels = zlib.crc32(batch.images.permute(0, 2, 3, 1).numpy(), pixels)
        taken.append(anonymous() - before)
print(json.dumps({"taken": taken, "pixels": pixels, "pool": os.environ.get("DALI_MALLOC_POOL_THRESHOLD")}))
"""


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in memory._DECIDED_BY:
        monkeypatch.setenv(name, "")  # for its restoration, whatever becomes of it
        monkeypatch.delenv(name)


def run(folder: Path) -> dict[str, object]:
    """Some epochs in a process of its own: MiB taken after each, a checksum of the pixels, the pool."""
    paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        env={**os.environ, "PYTHONPATH": paths.strip(os.pathsep), **STEADY},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.usefixtures("no_variables")
def test_pool_takes_less_memory_and_the_same_pixels(
    photo_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = np.random.default_rng(0).integers(300, 1000, (48, 2)).tolist()
    folder = photo_folder({"daisy": 48, "rose": 48}, sizes=[(w, h) for w, h in sides])
    ours = run(folder)
    monkeypatch.setenv(VARIABLE, DEFAULT)
    default = run(folder)
    assert (ours["pool"], default["pool"]) == ("1M", DEFAULT)
    assert ours["pixels"] == default["pixels"]
    assert max(ours["taken"]) < 0.9 * max(default["taken"])


@pytest.mark.usefixtures("no_variables")
@pytest.mark.parametrize("name", memory._DECIDED_BY)
def test_what_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "123456")
    memory.keep_batches_in_a_pool()
    assert {n: os.environ[n] for n in memory._DECIDED_BY if n in os.environ} == {name: "123456"}


@pytest.mark.usefixtures("no_variables")
def test_pool_is_asked_for_when_nothing_is_set() -> None:
    memory.keep_batches_in_a_pool()
    assert {n: os.environ[n] for n in memory._DECIDED_BY if n in os.environ} == {VARIABLE: "1M"}

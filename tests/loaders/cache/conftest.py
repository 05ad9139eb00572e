"""Decoded caches on disk, and other processes that use them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowerfast.augment import Augment
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.loaders.cache.disk import SIZES

Open = Callable[..., Loader]
Process = Callable[..., subprocess.Popen[str]]
OTHER_PROCESS = """
import sys
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

photos = Photos(sys.argv[1], on_bad="fail")
options = DataConfig(workers=2, backend="cpu", cache="disk", cache_dir=sys.argv[2])
given = {"size": 32, "batch_size": 4, "seed": int(sys.argv[3]), "augment": Augment(), "device": "cpu"}
loader = Loader(photos, **given, options=options)
print("open", flush=True)
sys.stdin.readline()
for epoch in range(int(sys.argv[4])):
    for _ in loader.epoch(epoch):
        pass
print("filled", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Path:
    return photo_folder({"a": 6, "b": 5}, sizes=SIZES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the cache files lie."""
    return tmp_path / "store/flowerfast-photos"


@pytest.fixture(params=["cpu", "dali-cpu"])
def backend_name(request: pytest.FixtureRequest) -> str:
    if request.param == "dali-cpu":
        pytest.importorskip("nvidia.dali")
    name: str = request.param
    return name


@pytest.fixture
def open_(folder: Path, open_loader: Open) -> Open:
    """Function (photos, cache, backend, **settings) → training loader."""

    def make(root: Path | Photos, cache: str = "disk", backend: str = "cpu", **settings: object) -> Loader:
        given = {"augment": Augment(), "seed": 3, "cache_dir": str(folder.parent), **settings}
        return open_loader(root, cache=cache, backend=backend, **given)

    return make


@pytest.fixture
def other_process(photos: Path, folder: Path) -> Iterator[Process]:
    """Function (seed, epochs) → a process that has opened the cache; a line on stdin lets it go on."""
    started = []

    def start(seed: int = 0, epochs: int = 1) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-c",
            OTHER_PROCESS,
            str(photos),
            str(folder.parent),
            str(seed),
            str(epochs),
        ]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=env, **pipes))
        assert started[-1].stdout.readline() == "open\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()

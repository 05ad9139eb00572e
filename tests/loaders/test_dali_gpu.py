"""The DALI executor on a CUDA machine: decoders, streams, memory, the end of the process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.data.plan import make_plan
from flowerfast.loaders import Choice, make_loader
from flowerfast.loaders.batch import Recipe
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.sampling import BadFiles

pytest.importorskip("nvidia.dali")

from flowerfast.loaders.dali import DaliLoader

SIDE, BATCH, COUNT = 96, 16, 72
MAX_SIDE = 400  # of a photo, so that the cache shrinks none
MEAN_BOUND, P99_BOUND = 0.5, 3
Open = Callable[..., DaliLoader]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("one_probe"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of smooth photos of many sizes."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for i in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        file = root / "ab"[i % 2] / f"{i:02}.jpg"
        file.parent.mkdir(exist_ok=True)
        width, height = rng.integers(150, MAX_SIDE, 2).tolist()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, quality=92)
    return root


@pytest.fixture
def open_dali(photos: Path) -> Iterator[Open]:
    """Function (cache, **DataConfig fields) → loader on the GPU, closed after the test."""
    opened = []

    def open_(cache: bool = False, **data: object) -> DaliLoader:
        manifest, device = load_manifest(photos), torch.device("cuda")
        members = np.arange(len(manifest))
        opened.append(
            DaliLoader(
                manifest,
                members,
                Recipe(SIDE, BATCH, seed=1, augment=AugmentConfig(), shuffle=True),
                DataConfig(**{"workers": 4, **data}),
                device,
                BadFiles(manifest, "fail", 1.0),
                PhotoCache(manifest, members, MAX_SIDE, device) if cache else None,
            )
        )
        return opened[-1]

    yield open_
    for loader in opened:
        loader.close()


def pixels(loader: DaliLoader, epoch: int = 0) -> np.ndarray:
    manifest, everyone = loader._manifest, np.arange(COUNT)
    plan = make_plan(1, epoch, everyone, (manifest.width, manifest.height), AugmentConfig(), SIDE)
    return loader.execute(plan)


def assert_agree(found: np.ndarray, expected: np.ndarray) -> None:
    apart = np.abs(found.astype(np.int16) - expected)
    assert apart.mean() <= MEAN_BOUND
    assert np.percentile(apart, 99) <= P99_BOUND


@pytest.mark.parametrize("load", [0.0, 0.65, 1.0])
def test_decoders_agree(open_dali: Open, load):
    assert_agree(pixels(open_dali(decoder="gpu", hw_decoder_load=load)), pixels(open_dali(decoder="cpu")))


def test_gpu_decoder_says_nothing_to_the_user(open_dali: Open, capfd):
    loader = open_dali(decoder="gpu")
    list(loader.epoch(0))
    assert "nvImageCodec" not in capfd.readouterr().err
    assert all("window" in note for note in loader.notes)


def test_cpu_decoder_gives_the_pixels_of_the_cache(open_dali: Open):
    assert np.array_equal(pixels(open_dali(decoder="cpu")), pixels(open_dali(cache=True)))


KINDS = [{"decoder": "gpu"}, {"decoder": "cpu"}, {"cache": True}]


def sums(loader: DaliLoader, epoch: int, delay: int = 0) -> list[int]:
    """A checksum of each batch, computed in the current stream, `delay` clock ticks late."""
    found = []
    for batch in loader.epoch(epoch):
        if delay:
            torch.cuda._sleep(delay)
        weights = torch.arange(batch.images.numel(), device="cuda").reshape(batch.images.shape) % 251
        found.append((batch.images.long() * weights).sum())
        del batch, weights
    return [int(one) for one in found]


@pytest.mark.parametrize("kind", KINDS, ids=["gpu", "cpu", "cache"])
def test_pixels_come_and_go_in_stream_order(open_dali: Open, kind):
    loader = open_dali(**kind)
    expected = [sums(loader, epoch) for epoch in range(3)]
    assert len({one for epoch in expected for one in epoch}) > COUNT // BATCH
    assert [sums(loader, epoch, delay=20_000_000) for epoch in range(3)] == expected
    with torch.cuda.stream(torch.cuda.Stream()):
        assert [sums(loader, epoch, delay=5_000_000) for epoch in range(3)] == expected


@pytest.mark.parametrize("kind", KINDS, ids=["gpu", "cpu", "cache"])
def test_every_sample_comes_once(open_dali: Open, kind):
    loader = open_dali(**kind)
    for epoch in range(2):
        batches = list(loader.epoch(epoch))
        assert [len(batch) for batch in batches] == [16, 16, 16, 16, 8]
        assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(COUNT))
        assert all(batch.images.is_cuda and batch.labels.is_cuda for batch in batches)


@pytest.mark.parametrize("kind", KINDS, ids=["gpu", "cpu", "cache"])
def test_device_memory_stays_flat(open_dali: Open, kind):
    loader = open_dali(**kind)
    free = []
    for epoch in range(12):
        for _ in loader.epoch(epoch):
            pass
        torch.cuda.synchronize()
        free.append(torch.cuda.mem_get_info()[0])
    # DALI and torch take memory in blocks of some MB; eight epochs of pixels would be 16 MB.
    assert free[3] - free[-1] < 12 << 20


def test_batches_of_the_cpu_graph_arrive_on_the_gpu(photos):
    manifest = load_manifest(photos)
    recipe, bad = Recipe(SIDE, BATCH, augment=AugmentConfig()), BadFiles(manifest, "fail", 1.0)
    arguments = (manifest, np.arange(COUNT), recipe, DataConfig(workers=2))
    loader = make_loader(Choice("dali-cpu", ""), *arguments, torch.device("cuda"), bad)
    host = make_loader(Choice("dali-cpu", ""), *arguments, torch.device("cpu"), bad)
    for found, expected in zip(loader.epoch(0), host.epoch(0), strict=True):
        assert found.images.is_cuda
        assert found.labels.is_cuda
        assert torch.equal(found.images.cpu(), expected.images)
    loader.close()
    host.close()


CHILD = """
import sys
import numpy as np, torch
from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders.batch import Recipe
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.dali import DaliLoader
from flowerfast.loaders.sampling import BadFiles
manifest, device = load_manifest(sys.argv[1]), torch.device("cuda")
members = np.arange(len(manifest))
cache = PhotoCache(manifest, members, MAX_SIDE, device) if sys.argv[2] == "cache" else None
loader = DaliLoader(manifest, members, Recipe(48, 4, augment=AugmentConfig(), shuffle=True),
                    DataConfig(workers=2, decoder="gpu"), device, BadFiles(manifest, "skip", 1.0), cache)
batches = loader.epoch(0)
next(batches)
raise SystemExit(5)
"""


@pytest.mark.parametrize("kind", ["gpu", "cache"])
def test_process_ends_cleanly_without_close(photos, kind):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CHILD, str(photos), kind]
    child = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert child.returncode == 5, child.stderr.decode()

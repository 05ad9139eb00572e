"""Batches out of a cache by kernels, beyond what all engines promise: `cpu`'s pixels, whatever has room."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.cached import CachedEngine
from flowerfast.loaders.engine import open_engine
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.threads import ThreadEngine
from flowerfast.photos.photos import Photos
from flowerfast.pixels import gpu
from flowerfast.plans.plan import Sampler

pytestmark = pytest.mark.gpu
Drawn = Callable[..., dict[int, bytes]]
SIZES = ((90, 64), (64, 97), (31, 40))
SIDE = 32


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 4, "b": 3}, sizes=SIZES))


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def sampler(photos: Photos) -> Sampler:
    return Sampler(photos, SIDE, 3, 3, Augment(), shuffle=True)


@pytest.fixture
def expected(sampler: Sampler, drawn: Drawn) -> dict[int, bytes]:
    """Epoch 1 of the cpu backend, from a cache of the same photos."""
    engine = ThreadEngine(sampler, DataConfig(workers=2), torch.device("cpu"), PhotoCache(sampler.photos, 48))
    found = drawn(engine.epoch(1))
    engine.close()
    return found


def test_the_kernels_give_the_cpu_backends_pixels(
    sampler: Sampler,
    expected: dict[int, bytes],
    device: torch.device,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if device.type == "cpu":
        monkeypatch.setattr(gpu, "_BLOCK", 4096)  # the interpreter takes as long for few pixels
    data, cache = DataConfig(workers=2, gpu_kernels="triton"), PhotoCache(sampler.photos, 48, device)
    engine = open_engine("dali", sampler, data, device, cache)
    assert isinstance(engine, CachedEngine)
    assert drawn(engine.epoch(1)) == expected
    engine.close()


@pytest.mark.usefixtures("quick_kernels")
@pytest.mark.parametrize("places", [0, 3, 7])
def test_photos_without_a_place_in_the_cache_are_decoded_each_epoch(
    sampler: Sampler, expected: dict[int, bytes], device: torch.device, drawn: Drawn, places: int
) -> None:
    budget = 48 * 100 * 3 * places if places < 7 else None
    cache = PhotoCache(sampler.photos, 48, device, budget)
    assert cache.places < 7 or places == 7
    engine = CachedEngine(sampler, DataConfig(workers=2), device, cache)
    for _ in range(2):
        assert drawn(engine.epoch(1)) == expected
    assert len(cache.missing(sampler.photos.indices)) == 7 - cache.places
    assert bool(engine.notes) == (places < 7)
    engine.close()


@pytest.mark.usefixtures("quick_kernels")
def test_a_filled_cache_needs_no_file(
    sampler: Sampler, expected: dict[int, bytes], device: torch.device, drawn: Drawn
) -> None:
    engine = CachedEngine(sampler, DataConfig(workers=2), device, PhotoCache(sampler.photos, 48, device))
    drawn(engine.epoch(0))
    for index in sampler.photos.indices.tolist():
        (sampler.photos.root / sampler.photos.path(index)).unlink()
    assert drawn(engine.epoch(1)) == expected
    engine.close()


@pytest.mark.usefixtures("quick_kernels")
def test_without_dali_the_cpu_backend_has_it_too(
    photos: Photos, expected: dict[int, bytes], monkeypatch: pytest.MonkeyPatch, drawn: Drawn
) -> None:
    """A loader of the cpu backend on a GPU; where there is none the choice stands for it."""
    settings: dict[str, Any] = {"size": SIDE, "batch_size": 3, "augment": Augment(), "seed": 3}
    options = DataConfig(cache_side=48, workers=2)
    if not torch.cuda.is_available():
        monkeypatch.setattr("flowerfast.loaders.loader.choose_cache", lambda *_: ("vram", ""))
    with Loader(photos, **settings, backend="cpu", cache="vram", options=options) as loader:
        assert loader.choice() == {"backend": "cpu", "cache": "vram", "gpu_kernels": "triton"}
        assert drawn(loader.epoch(1)) == expected


@pytest.mark.usefixtures("quick_kernels")
def test_an_evaluation_is_made_of_the_files(photos: Photos, device: torch.device, sampler: Sampler) -> None:
    data, plan = DataConfig(workers=2), Sampler(photos, SIDE, 3).plan(0, photos.indices)
    plain = ThreadEngine(sampler, data, torch.device("cpu"))
    engine = CachedEngine(sampler, data, device, PhotoCache(photos, 32, device))
    assert np.array_equal(engine.execute(plan), plain.execute(plan))
    engine.close()
    plain.close()

"""Decoded photos for DALI: those of the cpu backend's cache, cut where the window is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.dali.cached import window_rows
from flowerfast.loaders.engine import open_engine
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler, make_plan

Open = Callable[..., Loader]
SIZES = ((90, 64), (64, 97), (131, 60), (64, 64), (50, 120))
SIDE = 48


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 6, "b": 5}, sizes=SIZES))


@pytest.mark.parametrize("side", [32, 57])
def test_cached_photos_are_those_of_the_cpu_backend(photos: Photos, dali: dict[str, Any], side: int) -> None:
    stores, device = [], torch.device(dali["device"])
    sampler, data = Sampler(photos, SIDE, 4, 3, Augment(), shuffle=True), DataConfig(workers=2)
    for backend, place in (("cpu", torch.device("cpu")), (dali["backend"], device)):
        cache = PhotoCache(photos, side, place)
        engine = open_engine(backend, sampler, data, place, cache)
        assert sum(len(batch) for batch in engine.epoch(0)) == 11
        engine.close()
        assert not len(cache.missing(photos.indices))
        stores.append(cache.store.cpu())
    assert torch.equal(*stores)


def test_rows_are_those_of_the_moved_window(photos: Photos) -> None:
    cache, everyone = PhotoCache(photos, 40), photos.indices
    rng = np.random.default_rng(0)
    for i in everyone.tolist():
        cache.put(i, rng.integers(0, 256, (*cache.shape(i), 3), dtype=np.uint8))
    plan = make_plan(5, 1, everyone, photos.sizes(everyone), Augment(), SIDE)
    scaled = plan.at(cache.sizes(everyone))
    cut, rows = window_rows(cache, plan)
    for i in everyone.tolist():
        left, width = int(cut.left[i]), int(cut.width[i])
        top, height = int(scaled.top[i]), int(scaled.height[i])
        expected = cache.get(i).numpy()[top : top + height, left : left + width]
        assert cut.top[i] == 0
        assert cut.height[i] == len(rows[i])
        assert np.array_equal(rows[i][:, left : left + width], expected)
        assert np.shares_memory(rows[i], cache.store.numpy())

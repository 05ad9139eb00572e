"""A decoded cache on disk, filled and looked at without a loader."""

import subprocess
from pathlib import Path

import numpy as np
import torch

from flowerfast.config import DataConfig
from flowerfast.loaders.cache.choice import open_cache
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.photos.photos import Photos

CPU = torch.device("cpu")
SIZES = ((90, 64), (64, 97), (131, 60), (64, 64), (50, 120))


def go_on(process: subprocess.Popen[str], answer: str = "") -> None:
    """Let another process go on, see `other_process`, and wait until it says so."""
    process.stdin.write("\n")
    process.stdin.flush()
    if answer:
        assert process.stdout.readline() == answer + "\n"


def disk_cache(root: Path, folder: Path, side: int = 320, **settings: object) -> PhotoCache:
    data = DataConfig.model_validate({"cache_side": side, "cache_dir": str(folder.parent), **settings})
    cache = open_cache("disk", data, Photos(root).subset(range(3)), CPU)
    assert cache is not None
    return cache


def fill(cache: PhotoCache, count: int = 11) -> dict[int, np.ndarray]:
    """Put random pixels in the cache."""
    rng = np.random.default_rng(0)
    pixels = {}
    for i in range(count):
        pixels[i] = rng.integers(0, 256, (*cache.shape(i), 3), dtype=np.uint8)
        assert np.array_equal(cache.put(i, pixels[i]).numpy(), pixels[i])
    return pixels


def cached(cache: PhotoCache, pixels: dict[int, np.ndarray]) -> set[int]:
    """Photos that are there; fails on wrong pixels."""
    found = {i: cache.get(i) for i in pixels}
    assert all(np.array_equal(found[i].numpy(), pixels[i]) for i in found if found[i] is not None)
    return {i for i in found if found[i] is not None}


def cache_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.photos"))

"""The `cpu` backend's threads: how far they work ahead, and that none works on when nobody waits."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.threads import chunk_size
from flowerfast.photos.photos import Photos

Open = Callable[..., Loader]
AHEAD = {"kernels": "torchvision", "augment": Augment(), "batch_size": 1, "prefetch": 8}
SAMPLES = 15


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Path:
    return photo_folder()


@pytest.fixture
def slow_decode(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Decoding takes 20 ms; counts the calls begun and ended."""
    count, lock, decode = {"begun": 0, "ended": 0}, threading.Lock(), Photos.decode

    def slow(self: Photos, *args: object) -> np.ndarray:
        with lock:
            count["begun"] += 1
        time.sleep(0.02)
        with lock:
            count["ended"] += 1
        return decode(self, *args)

    monkeypatch.setattr(Photos, "decode", slow)
    return count


@pytest.mark.parametrize("leave", ["close", "drop", "throw"])
def test_an_abandoned_epoch_leaves_no_work_behind(
    photos: Path, open_loader: Open, slow_decode: dict[str, int], leave: str
) -> None:
    batches = open_loader(photos, **AHEAD).epoch(0)
    next(batches)
    if leave == "close":
        batches.close()
    elif leave == "drop":
        del batches
    else:
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert slow_decode["begun"] == slow_decode["ended"] < SAMPLES
    left = slow_decode["begun"]
    time.sleep(0.1)
    assert slow_decode["begun"] == left


@pytest.mark.timeout(60)
def test_a_loader_closed_in_mid_epoch(photos: Path, open_loader: Open, slow_decode: dict[str, int]) -> None:
    loader = open_loader(photos, **AHEAD)
    batches = loader.epoch(0)
    next(batches)
    loader.close()
    loader.close()
    assert slow_decode["begun"] == slow_decode["ended"]
    batches.close()  # its queued tasks were cancelled by the loader: nothing to wait for


def test_prefetch_bounds_the_work_ahead(photos: Path, open_loader: Open, slow_decode: dict[str, int]) -> None:
    batches = open_loader(photos, **{**AHEAD, "prefetch": 2}).epoch(0)
    next(batches)
    time.sleep(0.3)
    assert 1 <= slow_decode["begun"] <= 3
    batches.close()


def test_epochs_that_overlap_do_not_mix(
    photos: Path, open_loader: Open, digests: Callable[[Iterator[object]], list[object]]
) -> None:
    loader = open_loader(photos, augment=Augment())
    expected = [digests(loader.epoch(e)) for e in (0, 1)]
    pairs = list(zip(loader.epoch(0), loader.epoch(1), strict=True))
    assert [digests(iter(side)) for side in zip(*pairs, strict=True)] == expected


@pytest.mark.parametrize(
    ("batch_size", "prefetch", "threads", "samples"),
    [(32, 3, 2, 16), (32, 3, 16, 8), (256, 3, 16, 16), (256, 3, 1, 32), (1, 1, 1, 8)],
)
def test_tasks_are_large_where_there_are_enough_for_all_threads(
    batch_size: int, prefetch: int, threads: int, samples: int
) -> None:
    assert chunk_size(batch_size, prefetch, threads) == samples

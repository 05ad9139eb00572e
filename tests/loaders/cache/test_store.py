"""Decoded photos kept in memory: the same pixels on every backend, each photo decoded once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.loaders.cache.store import PhotoCache, cache_bytes
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.pixels.reference import augment, resize

Open = Callable[..., Loader]
Backend = dict[str, Any]
Drawn = Callable[..., dict[int, bytes]]
RANDOM: Backend = {"augment": Augment(), "seed": 3}
SIZES = ((90, 64), (64, 97), (131, 60), (64, 64), (50, 120))


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 6, "b": 5}, sizes=SIZES), max_bad=1)


def refuse(*_: object) -> None:
    raise AssertionError("read again")


def array(pixels: bytes) -> np.ndarray:
    """Pixels of one drawn photo, int16."""
    return np.frombuffer(pixels, np.uint8).astype(np.int16)


# -------------------------------------------------------------------------------------------- the store


def test_cache_bytes(photos: Photos) -> None:
    part = photos.subset([0, 2, 5])
    width, height = photos.sizes(part.indices)
    assert cache_bytes(photos, part.indices, 10_000) == int((width * height * 3).sum())
    assert cache_bytes(photos, part.indices, 16) == len(PhotoCache(part, 16).store)


def test_put_and_get(photos: Photos) -> None:
    cache = PhotoCache(photos.subset([6, 1, 4]), 16)
    rng = np.random.default_rng(0)
    stored = {}
    for index in (4, 6, 1):
        assert cache.get(index) is None
        stored[index] = rng.integers(0, 256, (*cache.shape(index), 3), dtype=np.uint8)
        assert np.array_equal(cache.put(index, stored[index]), stored[index])
    assert cache.missing(np.array([1, 2, 4, 6])).tolist() == [2]
    for index, expected in stored.items():
        assert np.array_equal(cache.get(index), expected)


def test_fill_decodes_once_what_has_a_place(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PhotoCache(photos.subset([2, 3]), 40)
    expected = [resize(photos.decode(i), *cache.shape(i)) for i in (2, 3, 5)]
    assert all(np.array_equal(cache.fill(i), pixels) for i, pixels in zip((2, 3, 5), expected, strict=True))
    monkeypatch.setattr(Photos, "decode", refuse)
    assert np.array_equal(cache.fill(3), expected[1])
    with pytest.raises(AssertionError, match="read again"):
        cache.fill(5)  # not of this set


def test_threads_fill_and_read_without_mixing(photos: Photos) -> None:
    cache = PhotoCache(photos, 24)

    def use(turn: int) -> None:
        index = turn % len(photos)
        found = cache.get(index)
        if found is None:
            found = cache.put(index, np.full((*cache.shape(index), 3), index + 1, np.uint8))
        assert (found == index + 1).all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(2000)))
    for index in range(len(photos)):
        assert (cache.get(index) == index + 1).all()


# --------------------------------------------------------------------------------------------- in loaders


@pytest.mark.parametrize("workers", [1, 4])
def test_pixels_are_the_same_with_and_without_cache(
    photos: Photos, open_loader: Open, backend: Backend, drawn: Drawn, workers: int
) -> None:
    plain = open_loader(photos, **backend, **RANDOM)
    cached = open_loader(photos, **backend, **RANDOM, cache="auto", workers=workers)
    for epoch in (0, 1, 1, 0):
        expected = drawn(plain.epoch(epoch))
        assert len(expected) == 11
        assert drawn(cached.epoch(epoch)) == expected


@pytest.mark.parametrize("side", [40, 320])
def test_the_second_epoch_reads_and_decodes_nothing(
    photos: Photos,
    open_loader: Open,
    backend: Backend,
    drawn: Drawn,
    monkeypatch: pytest.MonkeyPatch,
    side: int,
) -> None:
    cache = {"cache": "auto", "cache_side": side}
    expected = drawn(open_loader(photos, **backend, **RANDOM, **cache).epoch(1))
    loader = open_loader(photos, **backend, **RANDOM, **cache)
    list(loader.epoch(0))
    for name in ("read", "read_one", "decode"):
        monkeypatch.setattr(Photos, name, refuse)
    assert drawn(loader.epoch(1)) == expected


def test_an_epoch_entered_late_or_left_early_changes_nothing(
    photos: Photos, open_loader: Open, backend: Backend, drawn: Drawn
) -> None:
    plain = open_loader(photos, **backend, **RANDOM)
    for start in (1, 2):
        loader = open_loader(photos, **backend, **RANDOM, cache="auto")
        assert drawn(loader.epoch(0, start)) == drawn(plain.epoch(0, start))
        next(loader.epoch(1))
        assert drawn(loader.epoch(2)) == drawn(plain.epoch(2))
    assert not photos.bad


def test_larger_photos_are_resized_once_and_cut_with_the_moved_window(
    photos: Photos, open_loader: Open, backend: Backend, drawn: Drawn
) -> None:
    loader = open_loader(photos, **backend, **RANDOM, cache="auto", cache_side=40)
    found, cache = drawn(loader.epoch(1)), PhotoCache(photos, 40)
    plan = loader.plan_sampler.plan(1, photos.indices)
    moved, expected = plan.at(cache.sizes(photos.indices)), np.empty((32, 32, 3), np.uint8)
    for i in photos.indices.tolist():
        augment(resize(photos.decode(i), *cache.shape(i)), moved, i, expected)
        apart = np.abs(array(found[i]) - expected.transpose(2, 0, 1).reshape(-1))
        assert apart.mean() <= (0 if backend["backend"] == "cpu" else 0.5)
        assert np.percentile(apart, 99) <= (0 if backend["backend"] == "cpu" else 3)


def test_the_shrunk_photo_looks_like_the_whole_one(
    photo_folder: Callable[..., Path], open_loader: Open, backend: Backend, drawn: Drawn
) -> None:
    photos = Photos(photo_folder({"a": 4, "b": 4}, sizes=((160, 128), (128, 140)), name="large"))
    given = {**backend, "augment": Augment(crop_scale=(0.6, 1.0))}
    whole = drawn(open_loader(photos, **given).epoch(0))
    shrunk = drawn(open_loader(photos, **given, cache="auto", cache_side=64).epoch(0))
    for i in whole:
        # Edges are rounded to pixels of the smaller photo: up to 1.9 levels; without the window, 12 to 42.
        assert np.abs(array(whole[i]) - array(shrunk[i])).mean() < 4
    assert whole != shrunk

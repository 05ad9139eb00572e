"""Decoded photos kept in memory: sizes, windows, pixels, threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flowerfast.config import AugmentConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.plan import make_plan
from flowerfast.loaders.cache import PhotoCache, cache_bytes, cached_size, scale_plan
from flowerfast.loaders.torchvision import TorchvisionLoader, augment, resize

Open = Callable[..., TorchvisionLoader]
AUGMENT = {"augment": AugmentConfig(), "shuffle": True}


@pytest.fixture
def photos(photo_folder) -> Path:
    return photo_folder({"a": 5, "b": 4})


def pixels(loader: TorchvisionLoader, epoch: int) -> dict[int, np.ndarray]:
    return {
        i: image.permute(1, 2, 0).numpy()
        for batch in loader.epoch(epoch)
        for i, image in zip(batch.indices.tolist(), batch.images, strict=True)
    }


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((640, 480), 240, (320, 240)), ((480, 640), 240, (240, 320)), ((100, 80), 240, (100, 80)),
     ((100, 80), 80, (100, 80)), ((101, 81), 80, (100, 80)), ((3000, 40), 32, (2400, 32)),
     ((1, 1), 32, (1, 1)), ((1, 3000), 32, (1, 3000))],
)  # fmt: skip
def test_cached_size(size, side, expected):
    width, height = cached_size(np.array([size[0]]), np.array([size[1]]), side)
    assert (int(width[0]), int(height[0])) == expected
    assert width.dtype == height.dtype == np.int32


edges = st.integers(1, 4000)


@settings(deadline=None)
@given(width=edges, height=edges, side=st.integers(32, 800))
def test_cached_photos_keep_their_shape_and_never_grow(width, height, side):
    found = cached_size(np.array([width]), np.array([height]), side)
    new_width, new_height = int(found[0][0]), int(found[1][0])
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert min(new_width, new_height) == min(width, height, side)
    scale = min(1, side / min(width, height))
    assert abs(new_width - width * scale) <= 0.5
    assert abs(new_height - height * scale) <= 0.5


@settings(deadline=None)
@given(
    width=edges,
    height=edges,
    side=st.integers(32, 800),
    seed=st.integers(0, 99),
    smallest=st.sampled_from([0.08, 1e-6]),  # the latter makes windows of less than a cached pixel
)
def test_scaled_windows_stay_inside_and_cover_the_same_share(width, height, side, seed, smallest):
    old = np.array([width]), np.array([height])
    new = cached_size(*old, side)
    drawn = AugmentConfig(crop_scale=(smallest, min(1.0, 8 * smallest)))
    plan = make_plan(seed, 0, np.zeros(1, np.int64), old, drawn, 64)
    scaled = scale_plan(plan, old, new)
    for start, length, before, after, whole, shrunk in (
        (scaled.left, scaled.width, plan.left, plan.width, width, int(new[0][0])),
        (scaled.top, scaled.height, plan.top, plan.height, height, int(new[1][0])),
    ):
        assert start.dtype == length.dtype == np.int32
        assert start[0] >= 0
        assert length[0] >= 1
        assert start[0] + length[0] <= shrunk
        ratio = shrunk / whole
        # Edges move by half a pixel; a window of less than a pixel is widened to one.
        tolerance = (0.5 if after[0] * ratio >= 1 else 1.5) + 1e-9
        assert abs(start[0] - before[0] * ratio) <= tolerance
        assert abs(start[0] + length[0] - (before[0] + after[0]) * ratio) <= tolerance
    if side >= min(width, height):
        assert (scaled.left, scaled.top) == (plan.left, plan.top)
        assert (scaled.width, scaled.height) == (plan.width, plan.height)
    assert scaled.flip is plan.flip
    assert scaled.shift_x is plan.shift_x


def test_cache_bytes(photos):
    manifest = load_manifest(photos)
    part = np.array([0, 2, 5])
    assert cache_bytes(manifest, part, 10_000) == int((manifest.width * manifest.height * 3)[part].sum())
    assert cache_bytes(manifest, part, 16) == len(PhotoCache(manifest, part, 16).store)


def test_put_and_get(photos):
    manifest = load_manifest(photos)
    cache = PhotoCache(manifest, np.array([6, 1, 4]), 16)
    rng = np.random.default_rng(0)
    stored = {}
    for index in (4, 6, 1):
        assert cache.get(index) is None
        stored[index] = rng.integers(0, 256, (*cache.shape(index), 3), dtype=np.uint8)
        assert np.array_equal(cache.put(index, stored[index]), stored[index])
    for index, expected in stored.items():
        assert np.array_equal(cache.get(index), expected)


def test_threads_fill_and_read_without_mixing(photos):
    manifest = load_manifest(photos)
    cache = PhotoCache(manifest, np.arange(len(manifest)), 24)

    def use(turn: int) -> None:
        index = turn % len(manifest)
        found = cache.get(index)
        if found is None:
            found = cache.put(index, np.full((*cache.shape(index), 3), index + 1, np.uint8))
        assert (found == index + 1).all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(2000)))
    for index in range(len(manifest)):
        assert (cache.get(index) == index + 1).all()


@pytest.mark.parametrize("workers", [1, 4])
def test_pixels_are_the_same_with_and_without_cache(photos, open_loader: Open, workers):
    plain = open_loader(photos, **AUGMENT)
    cached = open_loader(photos, **AUGMENT, cache_side=320, workers=workers)
    for epoch in (0, 1, 1, 0):
        expected, found = pixels(plain, epoch), pixels(cached, epoch)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[i], expected[i]) for i in expected)


def test_larger_photos_are_resized_once_and_cut_with_the_scaled_window(open_loader: Open, photo_folder):
    root = photo_folder({"a": 3, "b": 2}, sizes=((130, 90), (70, 120), (60, 30)))
    manifest, indices = load_manifest(root), np.arange(5)
    found = pixels(open_loader(root, **AUGMENT, cache_side=40), 1)
    plan = make_plan(0, 1, indices, (manifest.width, manifest.height), AugmentConfig(), 32)
    new = cached_size(manifest.width, manifest.height, 40)
    scaled = scale_plan(plan, (manifest.width, manifest.height), new)
    for i in range(5):
        photo = np.array(Image.open(root / manifest.path(i)).convert("RGB"))
        small = resize(photo, int(new[1][i]), int(new[0][i]))
        expected = np.empty((32, 32, 3), np.uint8)
        augment(small, scaled, i, expected)
        assert np.array_equal(found[i], expected)


def test_the_shrunk_photo_looks_like_the_whole_one(open_loader: Open, photo_folder):
    root = photo_folder({"a": 4, "b": 4}, sizes=((160, 128), (128, 140)))
    recipe = {"augment": AugmentConfig(crop_scale=(0.6, 1.0)), "image_size": 32}
    whole = pixels(open_loader(root, **recipe), 0)
    shrunk = pixels(open_loader(root, **recipe, cache_side=64), 0)
    for i in whole:
        # Edges are rounded to pixels of the smaller photo: up to 1.9 levels; without the window, 12 to 42.
        assert np.abs(whole[i].astype(np.int16) - shrunk[i]).mean() < 4
    assert any(not np.array_equal(whole[i], shrunk[i]) for i in whole)


@pytest.mark.parametrize("side", [16, 320])
def test_second_epoch_decodes_nothing(photos, open_loader: Open, monkeypatch: pytest.MonkeyPatch, side):
    loader = open_loader(photos, **AUGMENT, cache_side=side)
    expected = pixels(open_loader(photos, **AUGMENT, cache_side=side), 1)
    list(loader.epoch(0))

    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("read again")

    monkeypatch.setattr(Manifest, "read", refuse)
    found = pixels(loader, 1)
    assert all(np.array_equal(found[i], expected[i]) for i in expected)


def test_epoch_entered_late_fills_the_rest_later(photos, open_loader: Open):
    loader = open_loader(photos, **AUGMENT, cache_side=320)
    expected = pixels(open_loader(photos, **AUGMENT), 1)
    batches = loader.epoch(0, 1)
    next(batches)
    batches.close()
    found = pixels(loader, 1)
    assert all(np.array_equal(found[i], expected[i]) for i in expected)
    assert not loader.bad

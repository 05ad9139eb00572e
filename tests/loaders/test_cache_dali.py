"""The DALI executor with decoded photos: the same pixels as without, whatever the order of first use."""

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.plan import make_eval_plan, make_plan
from flowerfast.errors import UserError
from flowerfast.loaders import Choice, make_loader
from flowerfast.loaders.batch import Batch, Recipe
from flowerfast.loaders.cache import PhotoCache, cached_size, scale_plan
from flowerfast.loaders.sampling import BadFiles
from flowerfast.loaders.torchvision import TorchvisionLoader

pytest.importorskip("nvidia.dali")

from flowerfast.loaders import dali as dali_loader
from flowerfast.loaders import dali_cache
from flowerfast.loaders.dali import DaliLoader
from flowerfast.loaders.dali_inputs import DeviceArray

SIDE, BATCH = 48, 4
CPU = torch.device("cpu")
SIZES = ((90, 64), (64, 97), (131, 60), (64, 64), (50, 120))
Open = Callable[..., DaliLoader]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


@pytest.fixture
def photos(photo_folder) -> Path:
    return photo_folder({"a": 6, "b": 5}, sizes=SIZES)


@pytest.fixture
def open_dali() -> Iterator[Open]:
    """Function (photos, device, cache_side, on_bad, augment) → loader, closed after the test."""
    opened = []

    def open_(
        root: Path,
        device: torch.device = CPU,
        cache_side: int | None = None,
        on_bad: str = "skip",
        **data: object,
    ) -> DaliLoader:
        manifest = load_manifest(root)
        members = np.arange(len(manifest))
        cache = PhotoCache(manifest, members, cache_side, device) if cache_side else None
        config = DataConfig(**{"workers": 2, "decoder": "cpu", **data})
        recipe = Recipe(SIDE, BATCH, seed=3, augment=AugmentConfig(), shuffle=True)
        bad = BadFiles(manifest, on_bad, 1.0)
        opened.append(DaliLoader(manifest, members, recipe, config, device, bad, cache))
        return opened[-1]

    yield open_
    for loader in opened:
        loader.close()


def refuse(*_: object) -> None:
    raise AssertionError("decoded again")


def test_pixels_are_the_same_with_and_without_cache(photos, open_dali: Open, device, drawn):
    plain, cached = open_dali(photos, device), open_dali(photos, device, 320)
    for epoch in (0, 1, 1, 0):
        expected = drawn(plain.epoch(epoch))
        assert len(expected) == 11
        assert drawn(cached.epoch(epoch)) == expected


@pytest.mark.parametrize("side", [40, 320])
def test_second_epoch_reads_and_decodes_nothing(photos, open_dali: Open, device, monkeypatch, side, drawn):
    expected = drawn(open_dali(photos, device, side).epoch(1))
    loader = open_dali(photos, device, side)
    drawn(loader.epoch(0))
    monkeypatch.setattr(dali_cache, "decode", refuse)
    monkeypatch.setattr(Manifest, "read", refuse)
    assert drawn(loader.epoch(1)) == expected


def test_epoch_entered_late_or_left_early_changes_nothing(photos, open_dali: Open, device, drawn):
    plain = open_dali(photos, device)
    for start in (1, 2):
        loader = open_dali(photos, device, 320)
        assert drawn(loader.epoch(0, start)) == drawn(plain.epoch(0, start))
        next(loader.epoch(1))
        assert drawn(loader.epoch(2)) == drawn(plain.epoch(2))


def test_batch_shape_order_and_labels(photos, open_dali: Open, device):
    loader, plain = open_dali(photos, device, 40), open_dali(photos, device)
    for found, expected in zip(loader.epoch(0), plain.epoch(0), strict=True):
        assert found.indices.tolist() == expected.indices.tolist()
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.images.shape == expected.images.shape
        assert found.images.device.type == device.type
        assert found.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [32, 57])
def test_shrunk_photos_are_those_of_the_torchvision_executor(photos, open_dali: Open, device, side):
    manifest = load_manifest(photos)
    everyone = np.arange(len(manifest))
    theirs = PhotoCache(manifest, everyone, side)
    other = TorchvisionLoader(
        manifest,
        everyone,
        Recipe(SIDE, BATCH, seed=3, augment=AugmentConfig(), shuffle=True),
        DataConfig(workers=1),
        CPU,
        BadFiles(manifest, "fail", 1.0),
        theirs,
    )
    loader = open_dali(photos, device, side)
    expected = {
        i: image
        for batch in other.epoch(0)
        for i, image in zip(batch.indices.tolist(), batch.images, strict=True)
    }
    for batch in loader.epoch(0):
        for i, image in zip(batch.indices.tolist(), batch.images.cpu(), strict=True):
            apart = (image.to(torch.int16) - expected[i]).abs().double()
            assert apart.mean() <= 0.5
            assert apart.quantile(0.99) <= 3
    ours = loader._cached._cache
    for i in everyone.tolist():
        assert torch.equal(ours.get(i).cpu(), theirs.get(i))
    other.close()


def test_rows_are_those_of_the_scaled_window(photos):
    manifest = load_manifest(photos)
    everyone = np.arange(len(manifest))
    cache = PhotoCache(manifest, everyone, 40)
    rng = np.random.default_rng(0)
    for i in everyone.tolist():
        cache.put(i, rng.integers(0, 256, (*cache.shape(i), 3), dtype=np.uint8))
    old = manifest.width, manifest.height
    plan = make_plan(5, 1, everyone, old, AugmentConfig(), SIDE)
    scaled = scale_plan(plan, old, cached_size(*old, 40))
    moved, rows = dali_cache.window_rows(cache, plan)
    for i in everyone.tolist():
        left, width = int(moved.left[i]), int(moved.width[i])
        top, height = int(scaled.top[i]), int(scaled.height[i])
        expected = cache.get(i).numpy()[top : top + height, left : left + width]
        assert moved.top[i] == 0
        assert moved.height[i] == len(rows[i])
        assert np.array_equal(rows[i][:, left : left + width], expected)
        assert np.shares_memory(rows[i], cache.store.numpy())


def test_device_array_names_its_own_bytes():
    store = torch.arange(100, dtype=torch.uint8)
    piece = DeviceArray(store, 7, (2, 3, 3))
    face = piece.__cuda_array_interface__
    assert (face["shape"], face["typestr"]) == ((2, 3, 3), "|u1")
    assert list((ctypes.c_uint8 * 18).from_address(face["data"][0])) == list(range(7, 25))


def test_bad_files_are_left_out_and_named_each_epoch(photos, open_dali: Open, device, drawn):
    loader = open_dali(photos, device, 40)
    manifest = loader._manifest
    expected = drawn(open_dali(photos, device, 40).epoch(0))
    gone, cut, odd = (photos / manifest.path(i) for i in (1, 4, 7))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-300])
    odd.write_bytes(bytes(500))
    for epoch in (0, 0):
        found = drawn(loader.epoch(epoch))
        assert found == {i: pixels for i, pixels in expected.items() if i not in (1, 4, 7)}
        assert set(loader.bad) == {1, 4, 7}
        assert all(bad.error for bad in loader.bad.values())


def test_batch_of_bad_files_only_is_empty(photos, open_dali: Open, device):
    loader = open_dali(photos, device, 320)
    first = next(loader._sampler.plans(0)).indices
    for i in first.tolist():
        (photos / loader._manifest.path(i)).unlink()
    for _ in range(2):
        sizes = [len(batch) for batch in loader.epoch(0)]
        assert sizes == [0, 4, 3]
    empty = next(loader.epoch(0))
    assert empty.images.shape == (0, 3, SIDE, SIDE)
    assert (empty.images.dtype, empty.images.device.type) == (torch.uint8, device.type)


def test_bad_file_stops_the_run_when_told_to(photos, open_dali: Open):
    loader = open_dali(photos, CPU, 320, on_bad="fail")
    (photos / loader._manifest.path(3)).unlink()
    with pytest.raises(UserError, match=loader._manifest.path(3)):
        list(loader.epoch(0))


def test_evaluation_goes_past_the_cache(photos, open_dali: Open, device):
    cached, plain = open_dali(photos, device, 32), open_dali(photos, device)
    manifest = cached._manifest
    plan = make_eval_plan(np.arange(11), (manifest.width, manifest.height), SIDE, 0.875)
    assert np.array_equal(cached.execute(plan), plain.execute(plan))
    assert len(cached._cached._cache.missing(np.arange(11))) == 11


def test_execute_gives_the_pixels_of_the_epoch(photos, open_dali: Open, device):
    loader = open_dali(photos, device, 40)
    batch = next(loader.epoch(2))
    plan = loader._sampler.plan(2, batch.indices.numpy())
    assert np.array_equal(loader.execute(plan), batch.images.cpu().permute(0, 2, 3, 1).numpy())


def test_memory_stays_flat(photos, open_dali: Open):
    psutil = pytest.importorskip("psutil")
    loader, process = open_dali(photos, CPU, 320), psutil.Process()
    for epoch in range(40):
        list(loader.epoch(epoch))
        if epoch == 10:
            before = process.memory_info().rss
    assert process.memory_info().rss - before < 2_000_000  # the pixels of 30 epochs are 2.3 MB


@pytest.mark.parametrize("kind", ["none", "ram"])
def test_make_loader_gives_dali_its_cache(photos, kind):
    manifest = load_manifest(photos)
    recipe = Recipe(32, 4, augment=AugmentConfig(), shuffle=True)
    loader = make_loader(
        Choice("dali-cpu", "", kind),
        manifest,
        np.arange(11),
        recipe,
        DataConfig(workers=1),
        CPU,
        BadFiles(manifest, "skip", 1.0),
    )
    assert isinstance(loader, DaliLoader)
    assert (loader._cached is not None) == (kind == "ram")
    assert sum(len(batch) for batch in loader.epoch(0)) == 11
    loader.close()


def test_batches_of_the_cpu_graph_go_to_the_training_device(photos, monkeypatch):
    sent = []

    def send(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
        sent.append(device)
        return batches

    monkeypatch.setattr(dali_loader, "to_device", send)
    manifest, cuda = load_manifest(photos), torch.device("cuda")
    recipe, bad = Recipe(32, 4, augment=AugmentConfig()), BadFiles(manifest, "skip", 1.0)
    choice, data = Choice("dali-cpu", ""), DataConfig(workers=1)
    loader = make_loader(choice, manifest, np.arange(11), recipe, data, cuda, bad)
    assert sum(len(batch) for batch in loader.epoch(0)) == 11
    assert sent == [cuda]
    loader.close()

"""Packed photos in the loaders: for the same seed the batches of the folder, bit by bit."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flowerfast.config import AugmentConfig, DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.data.shard_writer import PackSettings
from flowerfast.data.split import make_split
from flowerfast.errors import UserError
from flowerfast.loaders import BadFiles, Choice, Loader, Recipe, make_loader
from flowerfast.loaders.batch import Batch
from flowerfast.pack import pack

CPU = torch.device("cpu")
dali = pytest.param(
    "dali-cpu",
    marks=pytest.mark.skipif(importlib.util.find_spec("nvidia") is None, reason="needs NVIDIA DALI"),
)
Open = Callable[..., Loader]


@pytest.fixture(scope="module")
def zoo_shards(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo, packed without shrinking into several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    pack(zoo, out, PackSettings(shard_bytes=61_440), DataConfig())
    assert len(list(out.glob("*.tar"))) > 3
    return out


@pytest.fixture
def open_backend() -> Iterator[Open]:
    """Function (backend, manifest, indices, augment, cache, **DataConfig fields) → loader, closed after."""
    opened = []

    def open_(
        backend: str,
        manifest: Manifest,
        indices: np.ndarray | None = None,
        augment: bool = True,
        cache: str = "none",
        **data: object,
    ) -> Loader:
        recipe = Recipe(48, 7, seed=11, augment=AugmentConfig() if augment else None, shuffle=augment)
        config = DataConfig(**{"workers": 2, **data})
        rows = np.arange(len(manifest)) if indices is None else indices
        bad = BadFiles(manifest, config.on_bad, 1.0)
        loader = make_loader(Choice(backend, "", cache), manifest, rows, recipe, config, CPU, bad)
        opened.append(loader)
        return loader

    yield open_
    for loader in opened:
        loader.close()


def assert_same(ours: Iterator[Batch], theirs: Iterator[Batch]) -> int:
    """Batches are equal, in order; returns how many samples they had."""
    count = 0
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.images, other.images)
        count += len(one)
    return count


@pytest.mark.parametrize("backend", ["torchvision", dali])
@pytest.mark.parametrize("augment", [True, False])
def test_batches_are_those_of_the_folder(
    zoo: Path, zoo_shards: Path, open_backend: Open, backend: str, augment: bool
) -> None:
    folder, shards = load_manifest(zoo), load_manifest(zoo_shards)
    split = make_split(folder, 0.25, 3)
    assert np.array_equal(make_split(shards, 0.25, 3).train, split.train)
    ours = open_backend(backend, shards, split.train, augment)
    theirs = open_backend(backend, folder, split.train, augment)
    for epoch in range(2):
        assert assert_same(ours.epoch(epoch), theirs.epoch(epoch)) == len(split.train)
    assert assert_same(ours.epoch(2, 3), theirs.epoch(2, 3)) == len(split.train) - 21


def test_so_they_are_with_a_cache(zoo: Path, zoo_shards: Path, open_backend: Open) -> None:
    ours = open_backend("torchvision", load_manifest(zoo_shards), cache="ram")
    theirs = open_backend("torchvision", load_manifest(zoo), cache="ram")
    for epoch in range(2):
        assert assert_same(ours.epoch(epoch), theirs.epoch(epoch)) > 0


@pytest.mark.parametrize("backend", ["torchvision", dali])
def test_a_damaged_photo_is_skipped_and_named_by_shard_and_member(
    tmp_path: Path, photo_folder: Callable[..., Path], open_backend: Open, backend: str
) -> None:
    photos = photo_folder({"a": 5, "b": 5}, sizes=[(80, 70)])
    whole = (photos / "a/a_002.jpg").read_bytes()
    (photos / "a/a_002.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    pack(photos, tmp_path / "out", PackSettings(), DataConfig())
    shards = load_manifest(tmp_path / "out")
    ours, theirs = open_backend(backend, shards), open_backend(backend, load_manifest(photos))
    assert assert_same(ours.epoch(0), theirs.epoch(0)) == 9
    assert [bad.path for bad in ours.bad.values()] == ["shard-000000.tar: 000000002.jpg (a/a_002.jpg)"]
    strict = open_backend(backend, shards, on_bad="fail")
    with pytest.raises(UserError, match=r"out/shard-000000\.tar: 000000002\.jpg \(a/a_002\.jpg\): .*skip"):
        list(strict.epoch(0))


@pytest.mark.real_data
@pytest.mark.parametrize("backend", ["torchvision", dali])
def test_real_photos(real_photos: Path, tmp_path: Path, open_backend: Open, backend: str) -> None:
    pack(real_photos, tmp_path / "out", PackSettings(shard_bytes=5_000_000), DataConfig())
    folder, shards = load_manifest(real_photos), load_manifest(tmp_path / "out")
    rows = make_split(folder, 0.2, 0).train[:200]
    ours, theirs = open_backend(backend, shards, rows), open_backend(backend, folder, rows)
    assert assert_same(ours.epoch(0), theirs.epoch(0)) == len(rows)

"""Packed photos in the loaders: for the same seed the batches of the folder, bit by bit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos

Open = Callable[..., Loader]
RANDOM: dict[str, Any] = {"size": 48, "batch_size": 7, "augment": Augment(), "seed": 11}


@pytest.fixture(scope="module", params=[False, True], ids=["copied", "seekable"])
def zoo_shards(zoo: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The zoo, packed without shrinking into several shards."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    result = pack(zoo, out, PackSettings(shard_bytes=61_440, seekable=request.param), DataConfig())
    assert bool(result.seekable) is request.param
    assert len(list(out.glob("*.tar"))) > 3
    return out


def assert_same(ours: Iterator[Batch], theirs: Iterator[Batch]) -> int:
    """Batches are equal, in order; returns how many samples they had."""
    count = 0
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.images, other.images)
        count += len(one)
    return count


@pytest.mark.parametrize(
    "kind",
    [RANDOM, {"batch_size": 7, "size": 48}, {**RANDOM, "cache": "auto"}],
    ids=["augmented", "evaluation", "cached"],
)
def test_batches_are_those_of_the_folder(
    zoo: Path, zoo_shards: Path, open_loader: Open, backend: dict[str, Any], kind: dict[str, Any]
) -> None:
    train, theirs = (Photos(folder).split(0.25, 3)[0] for folder in (zoo, zoo_shards))
    assert np.array_equal(train.indices, theirs.indices)
    one, other = (open_loader(photos, **backend, **kind) for photos in (train, theirs))
    for epoch in range(2):
        assert assert_same(one.epoch(epoch), other.epoch(epoch)) == len(train)
    assert assert_same(one.epoch(2, 3), other.epoch(2, 3)) == len(train) - 21


def test_a_damaged_photo_is_skipped_and_named_by_shard_and_member(
    tmp_path: Path, photo_folder: Callable[..., Path], open_loader: Open, backend: dict[str, Any]
) -> None:
    folder = photo_folder({"a": 5, "b": 5}, sizes=[(80, 70)])
    whole = (folder / "a/a_002.jpg").read_bytes()
    (folder / "a/a_002.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    pack(folder, tmp_path / "out", PackSettings(), DataConfig())
    shards = Photos(tmp_path / "out", max_bad=1)
    ours, theirs = open_loader(shards, **backend, **RANDOM), open_loader(folder, **backend, **RANDOM)
    assert assert_same(ours.epoch(0), theirs.epoch(0)) == 9
    assert [bad.path for bad in shards.bad] == ["shard-000000.tar: 000000002.jpg (a/a_002.jpg)"]
    strict = open_loader(Photos(tmp_path / "out", on_bad="fail"), **backend, **RANDOM)
    with pytest.raises(UserError, match=r"out/shard-000000\.tar: 000000002\.jpg \(a/a_002\.jpg\): .*skip"):
        list(strict.epoch(0))


@pytest.mark.real_data
def test_real_photos(real_photos: Path, tmp_path: Path, open_loader: Open, backend: dict[str, Any]) -> None:
    pack(real_photos, tmp_path / "out", PackSettings(shard_bytes=5_000_000), DataConfig())
    rows = Photos(real_photos).split(0.2, 0)[0].indices[:200]
    sets = [Photos(folder).subset(rows) for folder in (tmp_path / "out", real_photos)]
    ours, theirs = (open_loader(photos, **backend, **RANDOM) for photos in sets)
    assert assert_same(ours.epoch(0), theirs.epoch(0)) == len(rows)

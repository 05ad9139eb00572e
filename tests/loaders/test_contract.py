"""What all engines promise, each tried: batches, their order and pixels, what may vary, bad files, ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.errors import UserError
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import epoch_order, make_eval_plan

Open = Callable[..., Loader]
Engine = dict[str, Any]
Drawn = Callable[..., dict[int, bytes]]
Digests = Callable[..., list[tuple[list[int], list[int], str]]]
RANDOM: Engine = {"augment": Augment(), "seed": 3}
CACHED: Engine = {**RANDOM, "cache": "auto"}
SAMPLES = 15
two_kinds = pytest.mark.parametrize("kind", [RANDOM, {}], ids=["augmented", "evaluation"])
all_kinds = pytest.mark.parametrize("kind", [RANDOM, {}, CACHED], ids=["augmented", "evaluation", "cached"])


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    """Three classes, 15 photos of different sizes."""
    return Photos(photo_folder(), max_bad=1)


# --------------------------------------------------------------------------------------- batches and pixels


@two_kinds
def test_batches(photos: Photos, open_loader: Open, engine: Engine, kind: Engine) -> None:
    loader = open_loader(photos, **engine, **kind)
    assert len(loader) == 4
    for epoch in range(2):
        batches = list(loader.epoch(epoch))
        assert [len(b) for b in batches] == [4, 4, 4, 3]
        assert sorted(i for b in batches for i in b.indices.tolist()) == list(range(SAMPLES))
        for batch in batches:
            images, labels = batch
            assert images is batch.images
            assert (images.shape, images.dtype) == ((len(batch), 3, 32, 32), torch.uint8)
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert (labels.dtype, batch.indices.dtype) == (torch.int64, torch.int64)
            assert (images.device.type, labels.device.type) == (loader.device.type,) * 2
            assert batch.indices.device.type == "cpu"
            assert labels.tolist() == photos.table.label[batch.indices.numpy()].tolist()


@all_kinds
def test_batches_hold_the_planned_pixels(
    photos: Photos, open_loader: Open, engine: Engine, kind: Engine
) -> None:
    loader = open_loader(photos, **engine, **kind)
    whole = loader.execute(loader.plan_sampler.plan(2, photos.indices))
    assert (whole.shape, whole.dtype) == ((SAMPLES, 32, 32, 3), np.uint8)
    for batch in loader.epoch(2):
        assert np.array_equal(batch.images.permute(0, 2, 3, 1).cpu(), whole[batch.indices.numpy()])
    nothing = loader.execute(loader.plan_sampler.plan(2, photos.indices[:0]))
    assert (nothing.shape, nothing.dtype) == ((0, 32, 32, 3), np.uint8)


@all_kinds
def test_balanced_batches_hold_the_planned_pixels_of_samples_that_come_again(
    photos: Photos, open_loader: Open, engine: Engine, kind: Engine
) -> None:
    few = photos.subset([0, 1, 2, 3, 4, 5, 14])  # one of two classes is a single photo
    loader = open_loader(few, **engine, **kind, sampling="balanced")
    for epoch in range(2):
        planned, again = [*loader.plan_sampler.plans(epoch)], 0
        for plan, batch in zip(planned, [*loader.epoch(epoch)], strict=True):
            assert batch.indices.tolist() == plan.indices.tolist()
            assert batch.labels.tolist() == photos.table.label[plan.indices].tolist()
            rows = [loader.execute(plan.select(np.array([row]))) for row in range(len(plan))]
            assert np.array_equal(batch.images.permute(0, 2, 3, 1).cpu(), np.concatenate(rows))
            again += len(plan) - len({*plan.indices.tolist()})
        assert again >= 1
        assert sum((plan.indices == 14).sum() for plan in planned) in (3, 4)


@all_kinds
def test_a_bad_file_that_comes_again_is_left_out_each_time_and_named_once(
    photos: Photos, open_loader: Open, engine: Engine, kind: Engine
) -> None:
    few = photos.subset([0, 1, 2, 3, 4, 5, 14])
    break_off(photos.root / photos.path(14))
    loader = open_loader(few, **engine, **kind, sampling="balanced")
    for epoch in range(2):
        planned = [plan.indices[plan.indices != 14].tolist() for plan in loader.plan_sampler.plans(epoch)]
        assert [batch.indices.tolist() for batch in loader.epoch(epoch)] == planned
    assert [bad.path for bad in photos.bad] == [photos.path(14)]


def break_off(photo: Path) -> None:
    photo.write_bytes(photo.read_bytes()[:-60])


@two_kinds
def test_pixels_agree_with_the_reference(
    photos: Photos, open_loader: Open, engine: Engine, kind: Engine
) -> None:
    loader = open_loader(photos, **engine, **kind)
    plan = loader.plan_sampler.plan(1, photos.indices)
    expected = open_loader(photos, kernels="torchvision", **kind).execute(plan)
    apart = np.abs(loader.execute(plan).astype(np.int16) - expected)
    exact = engine["backend"] == "cpu" or engine.get("gpu_kernels") == "triton"
    assert apart.mean() <= (0 if exact else 0.5)
    assert np.percentile(apart, 99) <= (0 if exact else 3)


def test_a_part_of_the_photos_keeps_their_pixels(
    photos: Photos, open_loader: Open, engine: Engine, drawn: Drawn
) -> None:
    part = [1, 4, 9, 12, 14]
    loader = open_loader(photos.subset(part), **engine, **RANDOM)
    assert [len(b) for b in loader.epoch(0)] == [4, 1]
    whole = drawn(open_loader(photos, **engine, **RANDOM).epoch(0))
    found = drawn(loader.epoch(0))
    assert found == {i: whole[i] for i in part}
    assert list(found) != part


@two_kinds
def test_pixels_hang_on_no_setting_of_the_machine(
    photos: Photos, open_loader: Open, engine: Engine, kind: Engine, drawn: Drawn
) -> None:
    found = []
    for workers, prefetch, depth, size in (
        (1, 1, 1, 4),
        (4, 9, 3, 4),
        (2, 30, 2, 1),
        (3, 3, 2, 7),
        (2, 3, 2, 20),
    ):
        given = {"workers": workers, "prefetch": prefetch, "dali_prefetch": depth, "batch_size": size}
        found.append(drawn(open_loader(photos, **engine, **kind, **given).epoch(1)))
    assert all([*other.items()] == [*found[0].items()] for other in found)


def test_order_is_the_epochs_permutation(
    photos: Photos, open_loader: Open, engine: Engine, drawn: Drawn
) -> None:
    loader = open_loader(photos, **engine, **RANDOM)
    orders = [list(drawn(loader.epoch(epoch))) for epoch in range(3)]
    assert orders == [epoch_order(3, epoch, SAMPLES)[:].tolist() for epoch in range(3)]
    assert len({tuple(order) for order in [*orders, range(SAMPLES)]}) == 4


def test_epochs_and_seeds_differ_and_repeat(
    photos: Photos, open_loader: Open, engine: Engine, digests: Digests
) -> None:
    loader = open_loader(photos, **engine, **RANDOM)
    first = digests(loader.epoch(0))
    assert digests(loader.epoch(1)) != first
    assert digests(loader.epoch(0)) == first
    assert digests(open_loader(photos, **engine, **RANDOM).epoch(0)) == first
    assert digests(open_loader(photos, **engine, **{**RANDOM, "seed": 1}).epoch(0)) != first


def test_evaluation_is_neither_shuffled_nor_random(
    photos: Photos, open_loader: Open, engine: Engine, digests: Digests, drawn: Drawn
) -> None:
    loader = open_loader(photos, **engine)
    first = digests(loader.epoch(0))
    assert [i for batch in first for i in batch[0]] == list(range(SAMPLES))
    assert digests(loader.epoch(7)) == first
    augmented = open_loader(photos, **engine, **RANDOM, shuffle=False)
    one, other = drawn(augmented.epoch(0)), drawn(augmented.epoch(1))
    assert list(one) == list(other) == list(range(SAMPLES))
    assert one != other
    assert drawn(augmented.epoch(0)) == one


def test_start_batch_gives_the_tail(
    photos: Photos, open_loader: Open, engine: Engine, digests: Digests
) -> None:
    loader = open_loader(photos, **engine, **CACHED)
    whole = digests(open_loader(photos, **engine, **RANDOM).epoch(3))
    for start in (3, 0, 1, 4):
        assert digests(loader.epoch(3, start)) == whole[start:]


@pytest.mark.parametrize("leave", ["close", "drop", "keep", "throw"])
def test_an_abandoned_epoch_is_followed_by_a_full_one(
    photos: Photos, open_loader: Open, engine: Engine, digests: Digests, leave: str
) -> None:
    loader = open_loader(photos, **engine, **RANDOM)
    expected = digests(loader.epoch(4))
    batches = loader.epoch(0)
    next(batches)
    if leave == "close":
        batches.close()
    elif leave == "drop":
        del batches
    elif leave == "throw":
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    assert digests(loader.epoch(4)) == expected


def test_batches_outlive_the_loader(photos: Photos, open_loader: Open, engine: Engine) -> None:
    loader = open_loader(photos, **engine, **RANDOM)
    kept = [batch.images for batch in loader.epoch(0)]
    sums = [int(images.sum()) for images in kept]
    list(loader.epoch(1))
    loader.close()
    loader.close()
    assert [int(images.sum()) for images in kept] == sums


@two_kinds
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_together_have_the_batches_of_one(
    photos: Photos, open_loader: Open, engine: Engine, kind: Engine, world_size: int
) -> None:
    """Also of the last batch, of 3, which is too small for 4."""
    alone = open_loader(photos, **engine, **kind)
    ranks = [open_loader(photos, **engine, **kind, rank=r, world_size=world_size) for r in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for epoch, start in ((0, 0), (1, 2)):
        parts = [list(rank.epoch(epoch, start)) for rank in ranks]
        for number, batch in enumerate(alone.epoch(epoch, start)):
            shares = [part[number] for part in parts]
            for name in ("images", "labels", "indices"):
                joined = torch.cat([getattr(share, name) for share in shares])
                assert torch.equal(joined, getattr(batch, name))
            assert all(share.images.shape[1:] == (3, 32, 32) for share in shares)
        assert {len(part) for part in parts} == {4 - start}


# ------------------------------------------------------------------------------------------------ bad files


def ruin(root: Path, write_photo: Callable[..., Path]) -> set[str]:
    """Damage photos after the scan: cut short, garbage, gone, of another size, broken inside; their paths."""
    cut, junk, gone, resized, inside, stray = (
        root / path
        for path in (
            "daisy/daisy_001.jpg", "daisy/daisy_004.jpg", "rose/rose_000.jpg", "tulip/tulip_003.jpg",
            "tulip/z.png", "rose/rose_003.jpg",
        )
    )  # fmt: skip
    cut.write_bytes(cut.read_bytes()[:-60])
    junk.write_bytes(junk.read_bytes()[:4] + np.random.default_rng(0).bytes(900))
    gone.unlink()
    write_photo(resized, (9, 9))
    break_inside(inside)
    data = stray.read_bytes()  # a marker near its end: libjpeg gives up, but not every decoder reads so far
    stray.write_bytes(data[:-40] + b"\xff\xc4\0\3" + data[-40:])
    return {path.relative_to(root).as_posix() for path in (cut, junk, gone, resized, inside, stray)}


def break_inside(png: Path) -> None:
    """Header and end are well: only decoding tells."""
    data = png.read_bytes()
    png.write_bytes(data[: len(data) // 2] + data[-12:])


@all_kinds
def test_bad_files_are_left_out_and_named(
    photo_folder: Callable[..., Path],
    write_photo: Callable[..., Path],
    open_loader: Open,
    engine: Engine,
    kind: Engine,
    drawn: Drawn,
) -> None:
    write_photo(photo_folder() / "tulip/z.png")
    photos = Photos(photo_folder(), max_bad=1)
    good = drawn(open_loader(photos, **engine, **kind).epoch(0))
    ruined = ruin(photos.root, write_photo)
    loader = open_loader(photos, **engine, **kind)
    for _ in range(2):
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader)
        found = drawn(batches)
        assert found == {i: good[i] for i in good if photos.path(i) not in ruined}
        assert list(found) == [i for i in good if photos.path(i) not in ruined]
        for batch in batches:
            assert len(batch) == len(batch.images) == len(batch.labels)
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert batch.labels.tolist() == photos.table.label[batch.indices.numpy()].tolist()
        assert {bad.path for bad in photos.bad} == ruined
        assert {photos.path(i) for i in photos.bad_indices} == ruined
        assert all(bad.error and "\n" not in bad.error for bad in photos.bad)
    assert "9x9 now" in next(bad.error for bad in photos.bad if "tulip_003" in bad.path)


@all_kinds
@pytest.mark.parametrize("how", ["gone", "broken inside"])
def test_a_batch_of_bad_files_only_is_empty(
    photo_folder: Callable[..., Path], open_loader: Open, engine: Engine, kind: Engine, how: str
) -> None:
    photos = Photos(photo_folder({"a": 5, "b": 4}, suffix=".png"), max_bad=1)
    for path in sorted((photos.root / "a").iterdir())[:4]:
        if how == "gone":
            path.unlink()
        else:
            break_inside(path)
    loader = open_loader(photos, **engine, **{**kind, "shuffle": False}, batch_size=2, dali_prefetch=3)
    for start in (0, 1, 2):
        batches = list(loader.epoch(0, start))
        assert [len(batch) for batch in batches] == [0, 0, 2, 2, 1][start:]
        for batch in batches:
            assert batch.images.shape == (len(batch), 3, 32, 32)
            assert (batch.images.dtype, batch.images.device.type) == (torch.uint8, loader.device.type)
            assert (len(batch.labels), batch.labels.dtype) == (len(batch), torch.int64)


@all_kinds
def test_a_bad_file_stops_the_run_when_told_to(
    photo_folder: Callable[..., Path], open_loader: Open, engine: Engine, kind: Engine
) -> None:
    photos = Photos(photo_folder(), on_bad="fail")
    (photos.root / "daisy/daisy_001.jpg").unlink()
    with pytest.raises(UserError, match=r"daisy_001\.jpg.*data\.on_bad=skip"):
        list(open_loader(photos, **engine, **kind).epoch(0))


def test_too_many_bad_files_stop_the_run(
    photo_folder: Callable[..., Path], open_loader: Open, engine: Engine
) -> None:
    photos = Photos(photo_folder(), max_bad=0.2)  # 3 of 15
    loader = open_loader(photos, **engine)
    for i in range(3):
        (photos.root / f"daisy/daisy_{i:03d}.jpg").write_bytes(b"")
    assert sum(len(b) for b in loader.epoch(0)) == 12
    assert sum(len(b) for b in loader.epoch(1)) == 12  # the same three are not counted again
    (photos.root / "rose/rose_000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"4 of 15 files.*data\.max_bad=0\.2.*rose_000\.jpg"):
        list(loader.epoch(2))


@all_kinds
def test_execute_names_the_bad_file(photos: Photos, open_loader: Open, engine: Engine, kind: Engine) -> None:
    loader = open_loader(photos, **engine, **kind)
    (photos.root / "daisy/daisy_001.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"daisy/daisy_001\.jpg: \w+"):
        loader.execute(loader.plan_sampler.plan(0, photos.indices))


def test_an_evaluation_plan_goes_past_the_cache(
    photos: Photos, open_loader: Open, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_eval_plan(photos.indices, photos.sizes(photos.indices), 32, 0.875)
    expected = open_loader(photos, **engine, **RANDOM).execute(plan)
    cached = open_loader(photos, **engine, **CACHED, cache_side=32)
    monkeypatch.setattr(PhotoCache, "put", None)
    assert np.array_equal(cached.execute(plan), expected)

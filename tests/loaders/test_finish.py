"""Every engine does the same to its finished squares, whatever the workers, cache, rank or start."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from flowerfast.pixels.finish_reference import finish_square

Open = Callable[..., Loader]
Engine = dict[str, Any]
Drawn = Callable[..., dict[int, bytes]]
MORE: Engine = {
    "augment": Augment(
        vflip=0.5, saturation=0.4, hue=0.1, grey=0.2, policy="rand", policy_ops=2, policy_magnitude=12,
        blur=0.5, erase=0.4,
    ),
    "seed": 3,
}  # fmt: skip


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    """Three classes, 15 photos of different sizes."""
    return Photos(photo_folder(), max_bad=1)


def test_pixels_agree_with_the_reference(photos: Photos, open_loader: Open, engine: Engine) -> None:
    """Given the same squares, to the bit. DALI's own operators give others, a level off here and there."""
    loader = open_loader(photos, **engine, **MORE)
    plan = loader.plan_sampler.plan(1, photos.indices)
    assert plan.finish is not None
    found, squares = loader.execute(plan), loader.execute(replace(plan, finish=None))
    assert (found != squares).any(axis=(1, 2, 3)).mean() > 0.7
    for row, square in enumerate(squares):
        finish_square(square, plan.finish, row)
    assert np.array_equal(found, squares)
    expected = open_loader(photos, kernels="torchvision", **MORE).execute(plan)
    exact = engine["backend"] == "cpu" or engine.get("gpu_kernels") == "triton"
    assert np.abs(found.astype(np.int16) - expected).mean() <= (0 if exact else 0.5)


def test_pixels_hang_on_no_setting_of_the_machine(
    photos: Photos, open_loader: Open, engine: Engine, drawn: Drawn
) -> None:
    found = [
        drawn(open_loader(photos, **engine, **MORE, **given).epoch(1))
        for given in (
            {"workers": 1, "prefetch": 1},
            {"workers": 4, "prefetch": 9, "batch_size": 7},
            {"batch_size": 1},
            {"cache": "auto"},
        )
    ]
    assert all([*other.items()] == [*found[0].items()] for other in found)
    loader = open_loader(photos, **engine, **MORE)
    assert [*drawn(loader.epoch(1, 2)).items()] == [*found[0].items()][8:]


def test_a_disk_cache_gives_the_same(photos: Photos, open_loader: Open, drawn: Drawn, tmp_path: Path) -> None:
    whole = drawn(open_loader(photos, **MORE).epoch(1))
    for _ in range(2):
        assert drawn(open_loader(photos, **MORE, cache="disk", cache_dir=str(tmp_path)).epoch(1)) == whole


def test_ranks_together_have_the_batches_of_one(photos: Photos, open_loader: Open, engine: Engine) -> None:
    alone = open_loader(photos, **engine, **MORE)
    ranks = [open_loader(photos, **engine, **MORE, rank=rank, world_size=3) for rank in range(3)]
    for batch, *shares in zip(alone.epoch(2), *(rank.epoch(2) for rank in ranks), strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert (batch.partner_labels, batch.weight) == (None, None)


def test_a_bad_file_takes_its_own_row_along(photos: Photos, open_loader: Open, engine: Engine) -> None:
    before = {
        int(i): image.cpu()
        for batch in open_loader(photos, **engine, **MORE).epoch(0)
        for i, image in zip(batch.indices, batch.images, strict=True)
    }
    loader = open_loader(photos, **engine, **MORE)
    victim = int(next(loader.plan_sampler.plans(0)).indices[1])
    (photos.root / photos.path(victim)).write_bytes(b"")
    batch = next(loader.epoch(0))
    assert len(batch) == 3
    for index, image in zip(batch.indices.tolist(), batch.images.cpu(), strict=True):
        assert torch.equal(image, before[index])


def test_what_is_off_costs_no_pass(
    photos: Photos, open_loader: Open, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pixels.compiled.finish_rows", "pixels.reference.finish_square",
                 "pixels.finish_batch.finish_rows", "pixels.finish_batch.finish_batch"):  # fmt: skip
        monkeypatch.setattr(f"flowerfast.{name}", None)
    loader = open_loader(photos, **engine, augment=Augment())
    assert sum(len(batch) for batch in loader.epoch(0)) == 15

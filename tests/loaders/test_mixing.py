"""Mixed batches: the pixels that the plan says, the labels and shares that go with them, on every backend."""

from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.augment import Augment
from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.loaders.mixing import mixed
from flowerfast.photos.photos import Photos
from flowerfast.plans.mixing import WHOLE, Mix, make_mix, pairs

Open = Callable[..., Loader]
Engine = dict[str, Any]
MIXING: Engine = {"augment": Augment(mixup=0.4, cutmix=1.0), "seed": 3}


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    """Three classes, 15 photos of different sizes."""
    return Photos(photo_folder(), max_bad=1)


def batch_of(n: int, side: int = 32, mix: Mix | None = None) -> Batch:
    images = np.random.default_rng(n).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.arange(n) % 3, torch.arange(n), mix=mix)


def expected(images: np.ndarray, mix: Mix) -> np.ndarray:
    """Mixed pixel by pixel in whole numbers, from the definition: uint8 (n, S, S, 3) to the same."""
    out = images.copy()
    for row, partner in enumerate(mix.partners().tolist()):
        if partner == row:
            continue
        top, left, own = int(mix.top[row]), int(mix.left[row]), int(mix.own[row])
        window = slice(top, top + int(mix.height[row])), slice(left, left + int(mix.width[row]))
        one, other = images[row][window].astype(np.int64), images[partner][window].astype(np.int64)
        out[row][window] = (own * one + (WHOLE - own) * other + WHOLE // 2) // WHOLE
    return out


@pytest.mark.parametrize("n", [1, 2, 5, 40, 71])
@pytest.mark.parametrize(
    "settings", [{"mixup": 0.4}, {"cutmix": 1}, {"mixup": 1, "cutmix": 1, "mix_prob": 0.7}]
)
def test_pixels_labels_and_shares(n: int, settings: dict[str, float]) -> None:
    mix = make_mix(5, 1, pairs(0, 0, n), Augment(**settings), 32)
    batch = batch_of(n, mix=mix)
    before = batch.images.clone()
    found = mixed(batch)
    assert torch.equal(batch.images, before)
    images = before.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(found.images.permute(0, 2, 3, 1), expected(images, mix))
    assert found.images.is_contiguous(memory_format=torch.channels_last)
    partners = mix.partners()
    assert found.partner_labels is not None
    assert found.weight is not None
    assert found.partner_labels.tolist() == batch.labels[partners].tolist()
    alone = partners == np.arange(n)
    assert found.weight.tolist() == np.where(alone, 1, mix.share).tolist()
    kinds = (found.images.dtype, found.partner_labels.dtype, found.weight.dtype)
    assert kinds == (torch.uint8, torch.int64, torch.float32)
    assert (found.labels is batch.labels, found.mix) == (True, None)
    images_too, labels = found
    assert (images_too is found.images, labels is found.labels) == (True, True)


def test_an_empty_batch_and_one_that_is_not_mixed() -> None:
    found = mixed(batch_of(0, mix=make_mix(0, 0, pairs(0, 0, 0), Augment(mixup=1), 32)))
    assert (len(found), found.images.shape) == (0, (0, 3, 32, 32))
    plain = batch_of(3)
    assert mixed(plain) is plain
    assert (plain.partner_labels, plain.weight) == (None, None)


def test_batches_are_mixed_as_planned(photos: Photos, open_loader: Open, engine: Engine) -> None:
    loader = open_loader(photos, **engine, **MIXING)
    for number, (plan, batch) in enumerate(zip(loader.plan_sampler.plans(1), loader.epoch(1), strict=True)):
        assert plan.mix is not None
        pixels = expected(loader.execute(plan), plan.mix) if engine["backend"] == "cpu" else None
        if pixels is not None:
            assert np.array_equal(batch.images.permute(0, 2, 3, 1).cpu(), pixels), number
        assert batch.partner_labels is not None
        assert batch.weight is not None
        assert {batch.partner_labels.device.type, batch.weight.device.type} == {loader.device.type}
        assert batch.partner_labels.tolist() == batch.labels[plan.mix.partners()].tolist()
    assert batch.weight.tolist()[-1] == 1  # of 15 photos the last has no partner


def test_what_is_mixed_hangs_on_no_setting_of_the_machine(
    photos: Photos, open_loader: Open, engine: Engine
) -> None:
    def drawn(start: int = 0, **given: Any) -> list[tuple[Any, ...]]:
        loader = open_loader(photos, **engine, **{**MIXING, **given})
        if start:
            other = open_loader(photos, **engine, **MIXING)
            batches = other.epoch(1)
            for _ in range(start):
                next(batches)
            loader.load_state_dict(other.state_dict())
        return [parts(batch) for batch in loader.epoch(1)]

    whole = drawn(workers=1, prefetch=1)
    assert drawn(workers=4, prefetch=9) == whole
    assert drawn(start=2) == whole[2:]
    assert drawn(cache="auto") == whole


def parts(batch: Batch) -> tuple[Any, ...]:
    assert batch.weight is not None
    assert batch.partner_labels is not None
    rest = batch.labels, batch.partner_labels, batch.weight, batch.indices
    return batch.images.cpu().numpy().tobytes(), *(each.tolist() for each in rest)


def test_ranks_together_have_the_batches_of_one(photos: Photos, open_loader: Open, engine: Engine) -> None:
    alone = open_loader(photos, **engine, **MIXING)
    ranks = [open_loader(photos, **engine, **MIXING, rank=rank, world_size=2) for rank in range(2)]
    for batch, *shares in zip(alone.epoch(2), *(rank.epoch(2) for rank in ranks), strict=True):
        joined = [reduce(add, each) for each in zip(*map(parts, shares), strict=True)]
        assert joined == [*parts(batch)]


def test_a_partner_that_cannot_be_decoded_leaves_a_sample_as_it_is(
    photos: Photos, open_loader: Open, engine: Engine
) -> None:
    plain = open_loader(photos, **engine, **{**MIXING, "augment": Augment()})
    whole = {
        int(i): image.cpu() for b in plain.epoch(0) for i, image in zip(b.indices, b.images, strict=True)
    }
    victim, left = next(plain.plan_sampler.plans(0)).indices[:2].tolist()
    (photos.root / photos.path(victim)).write_bytes(b"")
    batch = next(open_loader(photos, **engine, **MIXING).epoch(0))
    assert batch.indices.tolist()[0] == left
    assert len(batch) == 3
    assert batch.weight is not None
    assert batch.weight[0] == 1
    assert torch.equal(batch.images[0].cpu(), whole[left])


def test_each_rank_needs_a_pair(photos: Photos, open_loader: Open) -> None:
    with pytest.raises(UserError, match=r"world_size=3, batch_size=4: .*batch_size of 5 or more"):
        open_loader(photos, **MIXING, rank=0, world_size=3)
    ranks = [open_loader(photos, **MIXING, world_size=3, rank=rank, batch_size=5) for rank in range(3)]
    assert [[len(batch) for batch in rank.epoch(0)] for rank in ranks] == [[2] * 3, [2] * 3, [1] * 3]


def test_states_of_earlier_versions_are_taken(photos: Photos, open_loader: Open) -> None:
    loader = open_loader(photos, augment=Augment(rotate=5))
    state = loader.state_dict()
    known = ("crop_scale", "crop_ratio", "flip", "rotate", "brightness", "contrast", "translate")
    state["augment"] = {name: state["augment"][name] for name in known}
    loader.load_state_dict(state)
    with pytest.raises(UserError, match=r"loader state: augment is"):
        open_loader(photos, augment=Augment(rotate=5, vflip=0.5)).load_state_dict(state)

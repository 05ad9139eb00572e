"""Mixing as data: pairs are whole, shares and boxes are those of MixUp and CutMix."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from flowerfast.augment import Augment
from flowerfast.photos.photos import Photos
from flowerfast.plans.mixing import WHOLE, Mix, make_mix, pairs, part_of
from flowerfast.plans.plan import Plan, Sampler

DRAWS = 20_000
BOTH = Augment(mixup=0.2, cutmix=1.0)


def draw(n: int = DRAWS, seed: int = 1, size: int = 224, **settings: float) -> Mix:
    return make_mix(seed, 0, np.arange(0, 2 * n, 2), Augment(**settings), size)


def columns(mix: Mix) -> dict[str, np.ndarray]:
    return {field.name: getattr(mix, field.name) for field in fields(mix)}


def assert_same(one: Mix, other: Mix) -> None:
    for name, values in columns(one).items():
        np.testing.assert_array_equal(values, columns(other)[name], err_msg=name)


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 6, "b": 7}))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0, 100.0])
def test_shares_of_mixup_are_betas(alpha: float) -> None:
    mix = draw(mixup=alpha)
    theirs = np.rint(np.random.default_rng(0).beta(alpha, alpha, DRAWS) * WHOLE)
    assert ks_2samp(mix.own, theirs).pvalue > 1e-3
    assert mix.own.std() == pytest.approx(theirs.std(), rel=0.02)
    assert np.array_equal(mix.share, (mix.own / WHOLE).astype(np.float32))
    assert {name: set(columns(mix)[name].tolist()) for name in ("top", "left", "height", "width")} == {
        "top": {0},
        "left": {0},
        "height": {224},
        "width": {224},
    }


@pytest.mark.parametrize("size", [32, 224])
def test_boxes_of_cutmix_are_timms(size: int) -> None:
    """Sides of size * sqrt(1 - lambda) about any centre, cut at the edges; the share is that of the area."""
    mix = draw(size=size, cutmix=1.0)
    assert set(mix.own.tolist()) == {0}
    area = mix.height * mix.width / size**2
    np.testing.assert_allclose(mix.share, 1 - area, atol=1e-6)
    assert (mix.top >= 0).all()
    assert (mix.top + mix.height <= size).all()
    assert (mix.left + mix.width <= size).all()
    whole = (mix.top > 0) & (mix.top + mix.height < size) & (mix.left > 0) & (mix.left + mix.width < size)
    assert np.array_equal(mix.height[whole], mix.width[whole])
    rng = np.random.default_rng(0)
    side = (size * np.sqrt(1 - rng.beta(1, 1, DRAWS))).astype(int)
    ends = [
        np.minimum(c + (side + 1) // 2, size) - np.maximum(c - side // 2, 0)
        for c in rng.integers(0, size, (2, DRAWS))
    ]
    assert area.mean() == pytest.approx((ends[0] * ends[1]).mean() / size**2, abs=0.01)
    assert mix.height.std() == pytest.approx(ends[0].std(), rel=0.03)


def test_both_kinds_share_the_pairs_that_are_mixed() -> None:
    mix = draw(mixup=0.2, cutmix=1.0, mix_prob=0.6)
    boxed, plain = (mix.own == 0) & (mix.height < 224), mix.share == 1
    assert np.mean(boxed) == pytest.approx(0.3, abs=0.02)
    # Of Beta(0.2, 0.2) some shares are 1 in whole numbers, and some boxes have no area.
    assert 0.4 <= np.mean(plain) < 0.48
    assert np.mean(draw(mixup=1, cutmix=1, mix_prob=0).share == 1) == 1


PINNED = {
    "pair": [0, 0, 2, 4, 6, 64],
    "own": [0, 0, 51, 0, 0, 0],
    "top": [111, 111, 0, 111, 0, 0],
    "left": [0, 0, 0, 51, 0, 0],
    "height": [88, 88, 224, 113, 184, 202],
    "width": [48, 48, 224, 173, 171, 120],
}


def test_mixing_is_pinned() -> None:
    """Numbers of some pairs: a change here changes every run that resumes."""
    mix = make_mix(7, 3, np.array([0, 0, 2, 4, 6, 64]), BOTH, 224)
    found = {name: values.tolist() for name, values in columns(mix).items() if name != "share"}
    assert found == PINNED


def test_partners_are_the_next_one_in_the_order() -> None:
    assert pairs(10, 10, 15).tolist() == [10, 10, 12, 12, 14]
    assert pairs(11, 13, 16).tolist() == [13, 13, 15]
    mix = make_mix(0, 0, pairs(10, 10, 15), BOTH, 32)
    assert mix.partners().tolist() == [1, 0, 3, 2, 4]
    assert mix.select(np.array([4, 1, 2, 0])).partners().tolist() == [0, 3, 2, 1]
    assert mix.select(np.zeros(5, bool)).partners().tolist() == []
    for name, values in columns(mix).items():
        assert (values[0], values[2]) == (values[1], values[3]), name


def test_parts_of_ranks_cut_no_pair_and_leave_no_sample() -> None:
    for held in range(1, 40):
        for world_size in range(1, 9):
            parts = [part_of(held, rank, world_size, True) for rank in range(world_size)]
            assert [end for _, end in parts[:-1]] == [first for first, _ in parts[1:]]
            assert (parts[0][0], parts[-1][1]) == (0, held)
            assert all(first % 2 == 0 or first == held for first, _ in parts)
            lengths = [end - first for first, end in parts]
            assert max(lengths) - min(lengths) <= 2
            assert min(lengths) > 0 or world_size > -(-held // 2)


@pytest.mark.parametrize("batch_size", [3, 4, 6])
def test_a_samplers_mixing_hangs_on_the_place_in_the_order_alone(photos: Photos, batch_size: int) -> None:
    alone = Sampler(photos, 32, batch_size, 5, BOTH, shuffle=True)
    whole = list(alone.plans(2))
    for start in (1, 2):
        for plan, later in zip(whole[start:], alone.plans(2, start), strict=True):
            assert_same(mix_of(later), mix_of(plan))
    ranks = [replace(alone, rank=rank, world_size=2) for rank in range(2)]
    for plan, *shares in zip(whole, *(rank.plans(2) for rank in ranks), strict=True):
        joined = {
            name: np.concatenate([columns(mix_of(share))[name] for share in shares])
            for name in columns(BLANK)
        }
        assert_same(Mix(**joined), mix_of(plan))
        assert [*plan.indices] == [i for share in shares for i in share.indices]
    assert mix_of(whole[0]).share.tolist() != mix_of(next(alone.plans(3))).share.tolist()


BLANK = Mix(*[np.zeros(0)] * 7)


def mix_of(plan: Plan) -> Mix:
    assert plan.mix is not None
    return plan.mix


def test_without_mixing_there_is_none_and_parts_are_as_they_were(photos: Photos) -> None:
    for settings in ({}, {"mixup": 1, "mix_prob": 0}):
        sampler = Sampler(photos, 32, 5, 0, Augment(**settings), True, rank=1, world_size=2)
        assert [plan.mix for plan in sampler.plans(0)] == [None] * 3
        assert [len(plan) for plan in sampler.plans(0)] == [3, 3, 2]
    assert Sampler(photos, 32, 5, 0, BOTH).plan(0, photos.indices).mix is None


def test_a_part_of_a_plan_keeps_its_mixing(photos: Photos) -> None:
    (plan,) = Sampler(photos, 32, 13, 0, BOTH, shuffle=True).plans(0)
    rows = np.array([5, 2, 3])
    assert_same(mix_of(plan.select(rows)), mix_of(plan).select(rows))
    assert mix_of(plan.without(plan.indices[:1].tolist())).partners().tolist()[:3] == [0, 2, 1]
    assert plan.at((plan.photo_width, plan.photo_height)).mix is plan.mix

"""Balanced sampling: classes and samples have equal turns, and what comes again has a plan of its own."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowerfast.augment import Augment
from flowerfast.photos.photos import Photos
from flowerfast.plans.balance import Balance
from flowerfast.plans.order import WHOLE
from flowerfast.plans.plan import COLUMNS, Plan, Sampler

Folder = Callable[..., Path]
MANY = 2**48 - 3  # an epoch of those that there can be at most


def labels_of(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any),
    st.integers(0, 2**63 - 1),
    st.sampled_from([0, 1, 7, MANY]),
)
def test_all_have_equal_turns(counts: list[int], seed: int, first: int) -> None:
    labels = labels_of(counts)
    balance, n = Balance(labels, seed), len(labels)
    epochs = [balance.draw(epoch, np.arange(n))[0] for epoch in (first, first + 1, first + 2)]
    for drawn in (*epochs, np.concatenate(epochs), np.concatenate(epochs)[n // 2 : n // 2 + n]):
        times = np.bincount(drawn, minlength=n)
        of_class = np.bincount(labels, times)
        present = of_class[np.unique(labels)]
        assert present.max() - present.min() <= 1
        for kind in np.unique(labels):
            mine = times[labels == kind]
            assert mine.max() - mine.min() <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 9), st.integers(0, 5))
def test_a_part_of_an_epoch_is_that_of_the_whole_and_repeats_are_counted(
    counts: list[int], seed: int, epoch: int
) -> None:
    labels = labels_of(counts)
    draws = np.random.default_rng(seed).permutation(len(labels))
    samples, repeats = Balance(labels, seed).draw(epoch, np.arange(len(labels)))
    part = Balance(labels, seed).draw(epoch, draws[:7])
    assert (part[0].tolist(), part[1].tolist()) == (samples[draws[:7]].tolist(), repeats[draws[:7]].tolist())
    seen: dict[int, int] = {}
    for sample, repeat in zip(samples.tolist(), repeats.tolist(), strict=True):
        assert repeat == seen.get(sample, 0)
        seen[sample] = repeat + 1


def test_a_class_too_large_to_be_shuffled_whole_has_its_turns_too() -> None:
    labels = np.repeat([0, 1, 2], [WHOLE + 5, 3, 10])
    balance, n = Balance(labels, 1), len(labels)
    first = np.concatenate([balance.draw(epoch, np.arange(n))[0] for epoch in range(3)])
    common = np.bincount(first[labels[first] == 0], minlength=WHOLE + 5)[: WHOLE + 5]
    assert common.max() - common.min() == 1  # three epochs have n draws of it, 13 more than it has samples
    assert not (np.diff(first[labels[first] == 0][:1000]) == 1).all()  # in random order
    assert np.bincount(balance.draw(0, np.arange(n))[0]).max() > 7000


def test_seeds_draw_other_samples_of_a_class() -> None:
    labels = np.repeat([0, 1], [90, 10])
    drawn = [set(Balance(labels, seed).draw(0, np.arange(100))[0].tolist()) for seed in range(4)]
    assert all(one != other for one, other in pairwise(drawn))


# ------------------------------------------------------------------------------------------------ the sampler


@pytest.fixture
def photos(photo_folder: Folder) -> Photos:
    """Fifteen of one class and two of another, of which an epoch has nine of one and eight of the other."""
    return Photos(photo_folder({"daisy": 15, "rose": 2}))


def plans(sampler: Sampler, epoch: int = 0, start: int = 0) -> list[Plan]:
    return list(sampler.plans(epoch, start))


def columns(made: list[Plan]) -> dict[str, list[float]]:
    return {name: np.concatenate([getattr(plan, name) for plan in made]).tolist() for name in COLUMNS}


def test_an_epoch_is_as_long_as_ever_and_classes_are_equal_in_it(photos: Photos) -> None:
    sampler = Sampler(photos, 32, 4, augment=Augment(), shuffle=True, sampling="balanced")
    indices = columns(plans(sampler))["indices"]
    assert (len(sampler), len(indices)) == (5, 17)
    assert sorted(np.bincount(photos.table.label[indices])) == [8, 9]
    assert set(columns(plans(sampler, 1))["indices"]) != set(indices)


def test_an_epoch_is_entered_anywhere_and_shared_among_ranks(photos: Photos) -> None:
    def sampler(rank: int = 0, ranks: int = 1) -> Sampler:
        return Sampler(photos, 32, 4, 3, Augment(), True, 0.875, rank, ranks, True, "balanced")

    whole = plans(sampler(), 2)
    assert columns(plans(sampler(), 2, 2)) == columns(whole[2:])
    parts = zip(*(plans(sampler(rank, 3), 2) for rank in range(3)), strict=True)
    assert columns([plan for batch in parts for plan in batch]) == columns(whole)
    assert [len(plan) for plan in whole] == [4, 4, 4, 5]  # the last one of one is joined


def test_a_sample_that_comes_again_has_a_plan_of_its_own_and_the_first_time_its_usual_one(
    photos: Photos,
) -> None:
    sampler = Sampler(photos, 32, 17, augment=Augment(), sampling="balanced")  # in order: repeats count up
    (plan,) = plans(sampler, 4)
    rose = plan.indices[photos.table.label[plan.indices] == 1]
    assert sorted(np.bincount(rose)[-2:]) in ([4, 4], [4, 5])
    angles = {float(angle) for angle in plan.angle}
    assert len(angles) == len(plan)
    usual = Sampler(photos, 32, 17, augment=Augment()).plan(4, np.unique(plan.indices))
    assert {float(angle) for angle in usual.angle} <= angles
    assert np.isin(usual.left * 1000 + usual.width, plan.left * 1000 + plan.width).all()

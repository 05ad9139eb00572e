"""Plans are pure functions of (seed, epoch, index), stay in bounds, and are distributed as torchvision's."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torchvision.transforms import ColorJitter, RandomAffine, RandomRotation

from flowerfast.augment import Augment
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import COLUMNS, Plan, Sampler, epoch_order, make_eval_plan, make_plan, still_plan

DRAWS = 20_000
P_VALUE = 1e-3
DEFAULTS = Augment()
NEUTRAL = Augment(flip=0, rotate=0, brightness=0, contrast=0, translate=0)
AWKWARD = [(1, 1), (1, 2), (2, 1), (3000, 40), (40, 3000), (1, 5000), (5000, 1), (500, 375), (65_500, 1200)]
REALS, FLAGS = {"angle", "brightness", "contrast"}, {"flip", "contrast_first"}

seeds = st.integers(0, 2**63 - 1)


def columns(plan: Plan) -> dict[str, np.ndarray]:
    return {name: getattr(plan, name) for name in COLUMNS}


def sizes_of(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes that hang on the index alone, from 1 px on."""
    return 1 + indices * 7919 % 1201, 1 + indices * 104_729 % 907


def plan_of(
    indices: np.ndarray, seed: int = 0, epoch: int = 0, augment: Augment = DEFAULTS, side: int = 224
) -> Plan:
    return make_plan(seed, epoch, indices, sizes_of(indices), augment, side)


def plan_like(photo: tuple[int, int], augment: Augment = DEFAULTS, n: int = DRAWS, seed: int = 1) -> Plan:
    """Plan of n photos of one size."""
    sizes = np.full(n, photo[0]), np.full(n, photo[1])
    return make_plan(seed, 0, np.arange(n), sizes, augment, 224)


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert len(ours) == len(theirs) == DRAWS
    assert ks_2samp(ours, theirs).pvalue > P_VALUE


# The same plan, however it is asked for


@settings(max_examples=60, deadline=None)
@given(
    indices=st.lists(st.integers(0, 2**40), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
    seed=seeds,
    epoch=st.integers(0, 2**32),
    rng=st.randoms(use_true_random=False),
)
def test_any_batch_split_and_any_order_give_the_same_plan(
    indices: list[int], cuts: list[int], seed: int, epoch: int, rng: random.Random
) -> None:
    whole = columns(plan_of(np.array(indices), seed, epoch))
    order = list(range(len(indices)))
    rng.shuffle(order)
    edges = sorted({0, len(indices), *(cut for cut in cuts if cut < len(indices))})
    batches = [order[a:b] for a, b in pairwise(edges)]
    rng.shuffle(batches)
    for rows in batches:
        part = columns(plan_of(np.array([indices[row] for row in rows]), seed, epoch))
        for name, values in part.items():
            np.testing.assert_array_equal(values, whole[name][rows], err_msg=name)


def test_a_sample_does_not_depend_on_the_rest_of_the_batch() -> None:
    sizes = np.full(100, 500), np.full(100, 375)
    whole = columns(make_plan(3, 2, np.arange(100), sizes, DEFAULTS, 224))
    for i in (0, 1, 57, 99):
        alone = columns(make_plan(3, 2, np.array([i]), (sizes[0][:1], sizes[1][:1]), DEFAULTS, 224))
        assert all(alone[name][0] == whole[name][i] for name in alone)


def test_dtypes_and_lengths() -> None:
    for n in (0, 1, 5):
        plan = plan_of(np.arange(n), side=96)
        for name, values in columns(plan).items():
            kind = np.float32 if name in REALS else np.bool_ if name in FLAGS else np.int64
            assert values.dtype == kind, name
        assert all(values.shape == (n,) for values in columns(plan).values())
        assert len(plan) == n
        assert (plan.size, plan.augmented) == (96, True)


PINNED = {
    "indices": 11,
    "shrink": 1,
    "photo_height": 375,
    "photo_width": 500,
    "out_height": 224,
    "out_width": 224,
    "from_row": 0,
    "from_column": 0,
    "top": 1,
    "left": 67,
    "height": 366,
    "width": 392,
    "flip": True,
    "angle": 6.632388,
    "brightness": 1.060300,
    "contrast": 1.147297,
    "contrast_first": False,
    "shift_x": -15,
    "shift_y": -19,
}


def test_plans_are_pinned() -> None:
    """Numbers of one sample: a change here changes every run that resumes."""
    plan = make_plan(7, 3, np.array([11]), (np.array([500]), np.array([375])), DEFAULTS, 224)
    values = {name: column[0].item() for name, column in columns(plan).items()}
    assert values == pytest.approx(PINNED, rel=1e-6)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"seed": 2**62}, {"seed": 2**63 - 1}, {"epoch": 1}, {"epoch": 2**31}]
)
def test_another_seed_or_epoch_changes_nearly_all_rows(change: dict[str, int]) -> None:
    indices = np.arange(5000)
    one, other = plan_of(indices), plan_of(indices, change.get("seed", 0), change.get("epoch", 0))
    for name in ("angle", "brightness", "contrast"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours != theirs).mean() > 0.999
        assert np.isin(ours, theirs).mean() < 0.01  # nor are they the same numbers at other places
    assert (one.flip != other.flip).mean() == pytest.approx(0.5, abs=0.05)


def test_samples_and_parameters_are_independent() -> None:
    plan = plan_like((500, 375))
    assert len(np.unique(plan.angle)) > 0.99 * DRAWS
    names = ("flip", "angle", "brightness", "contrast", "contrast_first", "shift_x", "shift_y")
    shape = plan.width / plan.height
    beside, above = plan.left / (500 - plan.width + 1), plan.top / (375 - plan.height + 1)
    rows = np.stack([shape, beside, above, *(getattr(plan, name) for name in names)]).astype(float)
    bound = 4.5 / np.sqrt(DRAWS)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < bound
    for row in rows:  # of neighbours in the folder, too
        assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) < bound


# Bounds


@settings(max_examples=60, deadline=None)
@given(
    shares=st.tuples(*[st.floats(0, 1)] * 4),
    rotate=st.floats(0, 180),
    side=st.integers(32, 2048),
    seed=seeds,
)
def test_other_parameters_stay_in_bounds(
    shares: tuple[float, float, float, float], rotate: float, side: int, seed: int
) -> None:
    flip, brightness, contrast, translate = shares
    augment = Augment(flip=flip, brightness=brightness, contrast=contrast, translate=translate, rotate=rotate)
    plan = plan_of(np.arange(64), seed, 0, augment, side)
    assert (np.abs(plan.angle) <= np.float32(rotate)).all()
    for factor, share in ((plan.brightness, brightness), (plan.contrast, contrast)):
        assert (factor >= np.float32(1 - share)).all()
        assert (factor <= np.float32(1 + share)).all()
    reach = round(translate * side)
    assert max(np.abs(plan.shift_x).max(), np.abs(plan.shift_y).max()) <= reach


def test_neutral_settings_change_nothing() -> None:
    plan = plan_like(
        (300, 300), NEUTRAL.model_copy(update={"crop_scale": (1, 1), "crop_ratio": (1, 1)}), n=500
    )
    assert not plan.flip.any()
    assert (plan.angle == 0).all()
    assert (plan.brightness == 1).all()
    assert (plan.contrast == 1).all()
    assert (plan.shift_x == 0).all()
    assert (plan.shift_y == 0).all()
    assert (plan.top == 0).all()
    assert (plan.left == 0).all()
    assert (plan.height == 300).all()
    assert (plan.width == 300).all()


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_sure_flips(flip: float) -> None:
    assert plan_like((8, 8), Augment(flip=flip)).flip.mean() == flip


# Distributions are torchvision's


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize("degrees", [15.0, 180.0])
def test_angles_are_distributed_as_torchvisions(degrees: float) -> None:
    theirs = np.array([RandomRotation.get_params([-degrees, degrees]) for _ in range(DRAWS)])
    assert_same_distribution(plan_like((8, 8), Augment(rotate=degrees)).angle, theirs)


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize(("brightness", "contrast"), [(0.2, 0.2), (0.1, 1.0)])
def test_colour_factors_and_their_order_are_distributed_as_torchvisions(
    brightness: float, contrast: float
) -> None:
    jitter = ColorJitter(brightness, contrast)
    draws = [ColorJitter.get_params(jitter.brightness, jitter.contrast, None, None) for _ in range(DRAWS)]
    plan = plan_like((8, 8), Augment(brightness=brightness, contrast=contrast))
    assert_same_distribution(plan.brightness, np.array([draw[1] for draw in draws]))
    assert_same_distribution(plan.contrast, np.array([draw[2] for draw in draws]))
    order = np.array([draw[0].tolist().index(1) < draw[0].tolist().index(0) for draw in draws])
    assert_same_distribution(plan.contrast_first, order)


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize(("share", "side"), [(0.1, 224), (0.1, 30), (0.05, 50), (1.0, 32)])
def test_shifts_are_distributed_as_torchvisions(share: float, side: int) -> None:
    n = DRAWS
    theirs = np.array(
        [RandomAffine.get_params([0.0, 0.0], [share, share], None, None, [side, side])[1] for _ in range(n)]
    )
    plan = make_plan(1, 0, np.arange(n), (np.full(n, 8), np.full(n, 8)), Augment(translate=share), side)
    assert_same_distribution(plan.shift_x, theirs[:, 0])
    assert_same_distribution(plan.shift_y, theirs[:, 1])


@pytest.mark.parametrize("share", [0.5, 0.1, 0.9])
def test_the_share_of_flips(share: float) -> None:
    flips = plan_like((8, 8), Augment(flip=share)).flip
    # RandomHorizontalFlip: torch.rand(1) < p
    theirs = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0)).numpy() < share
    assert_same_distribution(flips, theirs)
    assert flips.mean() == pytest.approx(share, abs=0.015)


# Order of an epoch


def test_the_order_hangs_on_seed_and_epoch_alone() -> None:
    orders = {
        (seed, epoch): epoch_order(seed, epoch, 1000)[:] for seed in (0, 1, 2**63 - 1) for epoch in range(5)
    }
    for (seed, epoch), order in orders.items():
        assert (epoch_order(seed, epoch, 1000)[:] == order).all()
        for other in orders:
            if other != (seed, epoch):
                assert (orders[other] == order).mean() < 0.02  # one place in a thousand by chance


# Evaluation, and plans made of others


def test_evaluation_plan_of_the_reference_recipe() -> None:
    plan = make_eval_plan(np.array([3, 9]), (np.array([500, 240]), np.array([375, 320])), 224, 0.875)
    assert plan.out_height.tolist() == [256, 341]
    assert plan.out_width.tolist() == [341, 256]
    assert plan.from_row.tolist() == [16, 58]
    assert plan.from_column.tolist() == [58, 16]
    assert (len(plan), plan.size, plan.augmented) == (2, 224, False)
    still = columns(still_plan(np.array([3, 9]), (np.array([500, 240]), np.array([375, 320])), 224))
    for name in set(COLUMNS) - {"out_height", "out_width", "from_row", "from_column"}:
        np.testing.assert_array_equal(getattr(plan, name), still[name], err_msg=name)


def test_a_still_plan_takes_the_whole_photo_and_no_more() -> None:
    plan = still_plan(np.array([4]), (np.array([50]), np.array([30])), 32)
    window = [getattr(plan, name)[0] for name in ("top", "left", "height", "width")]
    assert window == [0, 0, plan.photo_height[0], plan.photo_width[0]] == [0, 0, 30, 50]
    assert (plan.out_height[0], plan.out_width[0], plan.from_row[0], plan.from_column[0]) == (32, 32, 0, 0)
    assert (plan.angle[0], plan.brightness[0], plan.contrast[0], plan.flip[0]) == (0, 1, 1, False)
    assert all(
        values.dtype == columns(plan_of(np.arange(1)))[name].dtype for name, values in columns(plan).items()
    )


def test_a_part_of_a_plan_by_positions_mask_or_what_is_left_out() -> None:
    whole = plan_of(np.array([8, 3, 5, 1]), side=64)
    parts = [whole.select(np.array([2, 0])), whole.select(np.array([True, False, True, False])),
             whole.without([3, 1])]  # fmt: skip
    for part, rows in zip(parts, ([2, 0], [0, 2], [0, 2]), strict=True):
        assert (part.size, part.augmented, len(part)) == (64, True, 2)
        for name, values in columns(part).items():
            np.testing.assert_array_equal(values, columns(whole)[name][rows], err_msg=name)
    assert whole.without([]) is whole
    assert len(whole.without([1, 3, 5, 8])) == 0


def test_at_another_size_only_the_window_differs() -> None:
    plan = plan_of(np.arange(40))
    shrink = np.full(40, 2)
    half = plan.at((-(-plan.photo_width // 2), -(-plan.photo_height // 2)), shrink)
    changed = {"photo_height", "photo_width", "top", "left", "height", "width", "shrink"}
    for name in set(COLUMNS) - changed:
        assert getattr(half, name) is getattr(plan, name)
    assert half.shrink is shrink
    same = plan.at((plan.photo_width, plan.photo_height))
    for name, values in columns(same).items():
        np.testing.assert_array_equal(values, columns(plan)[name], err_msg=name)


# Samplers


@pytest.fixture
def photos(photo_folder: Callable[..., Path]) -> Photos:
    return Photos(photo_folder({"a": 6, "b": 5}))


def taken(sampler: Sampler, epoch: int = 0, start: int = 0) -> list[list[int]]:
    """Samples of each batch."""
    return [plan.indices.tolist() for plan in sampler.plans(epoch, start)]


@pytest.mark.parametrize("augment", [DEFAULTS, None])
def test_batches_of_a_sampler(photos: Photos, augment: Augment | None) -> None:
    part = photos.subset([9, 0, 4, 7, 2])
    sampler = Sampler(part, 32, 2, 5, augment, shuffle=True, crop_pct=0.5)
    expected = [part.indices[epoch_order(5, 3, 5)[:]].tolist()[i : i + 2] for i in (0, 2, 4)]
    assert taken(sampler, 3) == expected
    assert [taken(sampler, 3, start) for start in (1, 2, 3, 9)] == [expected[1:], expected[2:], [], []]
    assert len(sampler) == 3
    still = replace(sampler, shuffle=False)
    assert taken(still, 3) == taken(still, 4) == [[9, 0], [4, 7], [2]]
    for plan in sampler.plans(3):
        sizes = photos.sizes(plan.indices)
        wanted = (
            make_eval_plan(plan.indices, sizes, 32, 0.5)
            if augment is None
            else make_plan(5, 3, plan.indices, sizes, augment, 32)
        )
        for name, values in columns(plan).items():
            np.testing.assert_array_equal(values, columns(wanted)[name], err_msg=name)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_together_take_the_batch_in_order(photos: Photos, world_size: int, batch_size: int) -> None:
    alone = Sampler(photos, 32, batch_size, 7, DEFAULTS, shuffle=True)
    ranks = [replace(alone, rank=rank, world_size=world_size) for rank in range(world_size)]
    for start in (0, 2):
        whole = list(alone.plans(1, start))
        parts = list(zip(*(rank.plans(1, start) for rank in ranks), strict=True))
        assert len(parts) == len(whole)
        for plan, shares in zip(whole, parts, strict=True):
            lengths = [len(share) for share in shares]
            assert max(lengths) - min(lengths) <= 1
            for name, values in columns(plan).items():
                joined = np.concatenate([columns(share)[name] for share in shares])
                np.testing.assert_array_equal(joined, values, err_msg=name)
    assert {len(rank) for rank in ranks} == {len(alone)}


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(5, [5, 6]), (2, [2, 2, 2, 2, 3]), (4, [4, 4, 3]), (11, [11]), (10, [11])]
)
def test_a_last_batch_of_one_joins_the_one_before_and_nothing_else_changes(
    photos: Photos, batch_size: int, sizes: list[int]
) -> None:
    random = {"seed": 3, "augment": Augment(), "shuffle": True}
    plain, folded = (Sampler(photos, 32, batch_size, fold_last=f, **random) for f in (False, True))
    batches = taken(folded, 2)
    assert [len(batch) for batch in batches] == sizes
    assert (len(folded), folded.largest_batch) == (len(sizes), max(*sizes, batch_size))
    assert [*chain(*batches)] == [*chain(*taken(plain, 2))]
    assert [taken(folded, 2, start) for start in range(len(sizes) + 1)] == [
        batches[start:] for start in range(len(sizes) + 1)
    ]
    ranks = (
        taken(Sampler(photos, 32, batch_size, fold_last=True, rank=r, world_size=2, **random), 2)
        for r in (0, 1)
    )
    assert [[*chain(*parts)] for parts in zip(*ranks, strict=True)] == batches

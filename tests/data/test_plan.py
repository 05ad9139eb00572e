"""Plans are pure functions of (seed, epoch, index), stay in bounds, and are distributed as torchvision's."""

import random
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import ColorJitter, RandomAffine, RandomResizedCrop, RandomRotation
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

from flowerfast.config import AugmentConfig
from flowerfast.data.plan import EvalPlan, Plan, epoch_order, generator, make_eval_plan, make_plan

DRAWS = 20_000
P_VALUE = 1e-3
DEFAULTS = AugmentConfig()
NEUTRAL = AugmentConfig(flip=0, rotate=0, brightness=0, contrast=0, translate=0)
AWKWARD = [(1, 1), (1, 2), (2, 1), (3000, 40), (40, 3000), (1, 5000), (5000, 1), (500, 375), (65_500, 1200)]
DTYPES = {
    "indices": np.int64,
    "top": np.int32,
    "left": np.int32,
    "height": np.int32,
    "width": np.int32,
    "flip": np.bool_,
    "angle": np.float32,
    "brightness": np.float32,
    "contrast": np.float32,
    "contrast_first": np.bool_,
    "shift_x": np.int32,
    "shift_y": np.int32,
}

sides = st.integers(1, 6000)
seeds = st.integers(0, 2**63 - 1)


def columns(plan: Plan | EvalPlan) -> dict[str, np.ndarray]:
    return {f.name: getattr(plan, f.name) for f in fields(plan) if f.name != "size"}


def sizes_of(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes that hang on the index alone, from 1 px on."""
    return 1 + indices * 7919 % 1201, 1 + indices * 104_729 % 907


def plan_of(
    indices: np.ndarray, seed: int = 0, epoch: int = 0, augment: AugmentConfig = DEFAULTS, side: int = 224
) -> Plan:
    return make_plan(seed, epoch, indices, sizes_of(indices), augment, side)


def plan_like(
    photo: tuple[int, int], augment: AugmentConfig = DEFAULTS, n: int = DRAWS, seed: int = 1
) -> Plan:
    """Plan of n photos of one size."""
    sizes = np.full(n, photo[0]), np.full(n, photo[1])
    return make_plan(seed, 0, np.arange(n), sizes, augment, 224)


@pytest.fixture
def torch_seed() -> Iterator[None]:
    """torchvision draws from torch's global generator: fix it, and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


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
        assert {name: values.dtype.type for name, values in columns(plan).items()} == DTYPES
        assert all(values.shape == (n,) for values in columns(plan).values())
        assert len(plan) == n
        assert plan.size == 96


PINNED = {
    "indices": 11,
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


@settings(max_examples=80, deadline=None)
@given(
    photos=st.lists(st.tuples(sides, sides), min_size=1, max_size=30),
    scale=st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)),
    ratio=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    seed=seeds,
)
@example(photos=AWKWARD, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), seed=0)
@example(photos=[(1, 1)] * 30, scale=(0.08, 1.0), ratio=(0.1, 0.3), seed=0)
@example(photos=[(1, 1)] * 30, scale=(0.08, 1.0), ratio=(50.0, 99.0), seed=0)
def test_windows_lie_inside_the_photo(
    photos: list[tuple[int, int]], scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    augment = AugmentConfig(
        crop_scale=(min(scale), max(scale)),
        crop_ratio=(min(ratio), max(ratio)),
    )
    width, height = np.array(photos).T
    plan = make_plan(seed, 0, np.arange(len(photos)), (width, height), augment, 224)
    assert (plan.top >= 0).all()
    assert (plan.left >= 0).all()
    assert (plan.height >= 1).all()
    assert (plan.width >= 1).all()
    assert (plan.top + plan.height <= height).all()
    assert (plan.left + plan.width <= width).all()


@pytest.mark.parametrize("photo", AWKWARD)
def test_windows_of_awkward_photos_lie_inside(photo: tuple[int, int]) -> None:
    plan = plan_like(photo, n=3000)
    assert plan.top.min() >= 0
    assert plan.left.min() >= 0
    assert min(plan.height.min(), plan.width.min()) >= 1
    assert (plan.top + plan.height).max() <= photo[1]
    assert (plan.left + plan.width).max() <= photo[0]


def test_windows_reach_every_edge() -> None:
    plan = plan_like((12, 9))
    assert (plan.top.min(), plan.left.min()) == (0, 0)
    assert ((plan.top + plan.height).max(), (plan.left + plan.width).max()) == (9, 12)


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
    augment = AugmentConfig(
        flip=flip, brightness=brightness, contrast=contrast, translate=translate, rotate=rotate
    )
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
    assert plan_like((8, 8), AugmentConfig(flip=flip)).flip.mean() == flip


# Distributions are torchvision's


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize(
    ("photo", "augment"),
    [
        ((500, 375), DEFAULTS),
        ((7, 5), DEFAULTS),
        ((1000, 100), DEFAULTS),  # the central fallback in about three of four
        ((100, 1000), DEFAULTS),
        ((240, 320), AugmentConfig(crop_scale=(0.35, 0.9), crop_ratio=(0.5, 3.0))),
    ],
    ids=["usual", "tiny", "wide", "tall", "other ranges"],
)
def test_windows_are_distributed_as_torchvisions(photo: tuple[int, int], augment: AugmentConfig) -> None:
    picture = Image.new("1", photo)
    scale, ratio = list(augment.crop_scale), list(augment.crop_ratio)
    theirs = np.array([RandomResizedCrop.get_params(picture, scale, ratio) for _ in range(DRAWS)]).T
    plan = plan_like(photo, augment)
    ours = np.stack([plan.top, plan.left, plan.height, plan.width])
    for mine, reference in zip(ours, theirs, strict=True):
        assert_same_distribution(mine, reference)

    def derived(top: np.ndarray, left: np.ndarray, height: np.ndarray, width: np.ndarray) -> list[np.ndarray]:
        above, beside = top / np.maximum(photo[1] - height, 1), left / np.maximum(photo[0] - width, 1)
        return [height * width, width / height, top + height, left + width, above, beside]

    for mine, reference in zip(derived(*ours), derived(*theirs), strict=True):
        assert_same_distribution(mine, reference)


def test_the_fallback_is_what_the_extreme_photos_above_test() -> None:
    plan = plan_like((1000, 100))
    central = (plan.height == 100) & (plan.width == 133) & (plan.left == 433)
    assert 0.5 < central.mean() < 0.95


@settings(max_examples=100, deadline=None)
@given(
    short=st.integers(2, 60),
    times=st.integers(100, 150),
    extra=st.integers(0, 99),
    ratio=st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)),
    upright=st.booleans(),
)
@example(short=100, times=20, extra=0, ratio=(3 / 4, 4 / 3), upright=False)
@example(short=40, times=75, extra=0, ratio=(3 / 4, 4 / 3), upright=True)
@example(short=33, times=100, extra=1, ratio=(0.5, 1.5), upright=False)  # 49.5 px: to even
def test_the_fallback_window_is_torchvisions(
    short: int, times: int, extra: int, ratio: tuple[float, float], upright: bool
) -> None:
    long = short * times + extra  # so long that no attempt fits
    photo = (short, long) if upright else (long, short)
    augment = AugmentConfig(crop_ratio=(min(ratio), max(ratio)))
    expected = RandomResizedCrop.get_params(
        Image.new("1", photo), list(augment.crop_scale), list(augment.crop_ratio)
    )
    plan = plan_like(photo, augment, n=3)
    for row in range(3):
        assert (plan.top[row], plan.left[row], plan.height[row], plan.width[row]) == expected


def test_the_fallback_inside_the_ratios_is_the_whole_photo() -> None:
    # A scale so small that every attempt rounds to no pixels.
    plan = plan_like((10, 9), AugmentConfig(crop_scale=(1e-4, 1e-3)), n=100)
    assert {*zip(plan.top.tolist(), plan.left.tolist(), strict=True)} == {(0, 0)}
    assert (plan.width == 10).all()
    assert (plan.height == 9).all()


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize("degrees", [15.0, 180.0])
def test_angles_are_distributed_as_torchvisions(degrees: float) -> None:
    theirs = np.array([RandomRotation.get_params([-degrees, degrees]) for _ in range(DRAWS)])
    assert_same_distribution(plan_like((8, 8), AugmentConfig(rotate=degrees)).angle, theirs)


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize(("brightness", "contrast"), [(0.2, 0.2), (0.1, 1.0)])
def test_colour_factors_and_their_order_are_distributed_as_torchvisions(
    brightness: float, contrast: float
) -> None:
    jitter = ColorJitter(brightness, contrast)
    draws = [ColorJitter.get_params(jitter.brightness, jitter.contrast, None, None) for _ in range(DRAWS)]
    plan = plan_like((8, 8), AugmentConfig(brightness=brightness, contrast=contrast))
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
    plan = make_plan(1, 0, np.arange(n), (np.full(n, 8), np.full(n, 8)), AugmentConfig(translate=share), side)
    assert_same_distribution(plan.shift_x, theirs[:, 0])
    assert_same_distribution(plan.shift_y, theirs[:, 1])


@pytest.mark.parametrize("share", [0.5, 0.1, 0.9])
def test_the_share_of_flips(share: float) -> None:
    flips = plan_like((8, 8), AugmentConfig(flip=share)).flip
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


def test_purposes_draw_different_numbers() -> None:
    draws = [generator(purpose, 5, 1).random(100) for purpose in ("augment", "order", "split")]
    assert len(np.unique(draws)) == 300
    assert (generator("split", 5, 1).random(100) == draws[2]).all()


# Evaluation


def geometry_of_torchvision(photo: tuple[int, int], side: int, crop_pct: float) -> tuple[int, int, int, int]:
    """(resized height, resized width, top, left) of F.resize and F.center_crop on a PIL image."""
    short = round(side / crop_pct)
    resized = F.resize(Image.new("L", photo), [short], InterpolationMode.NEAREST)
    width, height = resized.size
    places = Image.fromarray(np.arange(width * height, dtype=np.int32).reshape(height, width))
    cut = F.center_crop(places, [side, side])
    assert cut.size == (side, side)
    top, left = divmod(cut.getpixel((0, 0)), width)
    return height, width, top, left


@settings(max_examples=150, deadline=None)
@given(
    short=st.integers(1, 700),
    stretch=st.floats(1, 20),
    upright=st.booleans(),
    side=st.integers(32, 230),
    crop_pct=st.one_of(st.sampled_from([0.875, 0.9, 0.95, 0.96, 1.0]), st.floats(0.5, 1)),
)
@example(short=375, stretch=500 / 375, upright=False, side=224, crop_pct=0.875)
@example(short=375, stretch=1.0, upright=False, side=224, crop_pct=1.0)
@example(short=1, stretch=20.0, upright=True, side=32, crop_pct=1.0)
@example(short=10, stretch=1.0, upright=False, side=33, crop_pct=33 / 34)  # a margin of 0.5: to even, 0
@example(short=10, stretch=1.0, upright=False, side=33, crop_pct=33 / 36)  # a margin of 1.5: to even, 2
def test_the_evaluation_window_is_torchvisions(
    short: int, stretch: float, upright: bool, side: int, crop_pct: float
) -> None:
    long = int(short * stretch)
    width, height = (short, long) if upright else (long, short)
    plan = make_eval_plan(np.array([4]), (np.array([width]), np.array([height])), side, crop_pct)
    ours = tuple(getattr(plan, n)[0] for n in ("resize_height", "resize_width", "top", "left"))
    assert ours == geometry_of_torchvision((width, height), side, crop_pct)


@settings(max_examples=100, deadline=None)
@given(
    photos=st.lists(st.tuples(sides, sides), min_size=1, max_size=20),
    side=st.integers(32, 2048),
    crop_pct=st.floats(0.1, 1),
)
@example(photos=AWKWARD, side=224, crop_pct=0.875)
@example(photos=AWKWARD, side=224, crop_pct=1.0)
def test_the_resized_photo_holds_the_evaluation_window(
    photos: list[tuple[int, int]], side: int, crop_pct: float
) -> None:
    width, height = np.array(photos).T
    plan = make_eval_plan(np.arange(len(photos)), (width, height), side, crop_pct)
    assert (plan.top >= 0).all()
    assert (plan.left >= 0).all()
    assert (plan.top + side <= plan.resize_height).all()
    assert (plan.left + side <= plan.resize_width).all()
    assert (np.minimum(plan.resize_height, plan.resize_width) == round(side / crop_pct)).all()


def test_evaluation_plan_of_the_reference_recipe() -> None:
    plan = make_eval_plan(np.array([3, 9]), (np.array([500, 240]), np.array([375, 320])), 224, 0.875)
    assert plan.resize_height.tolist() == [256, 341]
    assert plan.resize_width.tolist() == [341, 256]
    assert plan.top.tolist() == [16, 58]
    assert plan.left.tolist() == [58, 16]
    assert plan.indices.tolist() == [3, 9]
    assert (len(plan), plan.size) == (2, 224)
    assert {name: values.dtype.type for name, values in columns(plan).items()} == {
        "indices": np.int64,
        "resize_height": np.int32,
        "resize_width": np.int32,
        "top": np.int32,
        "left": np.int32,
    }

"""What is done to finished squares, as data: torchvision's distributions; the rest of a plan stays."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from flowerfast.augment import Augment
from flowerfast.kernels.operations import Operation
from flowerfast.plans.finish import Finish, make_finish
from flowerfast.plans.plan import COLUMNS, make_plan

DRAWS = 20_000
ALL = {
    "vflip": 0.5, "saturation": 0.3, "hue": 0.1, "grey": 0.2, "policy": "rand", "policy_ops": 3,
    "policy_magnitude": 12, "blur": 0.5, "erase": 0.4,
}  # fmt: skip


def draw(n: int = DRAWS, size: int = 224, seed: int = 1, **settings: object) -> Finish:
    finish = make_finish(seed, 0, np.arange(n), Augment(**settings), size)
    assert finish is not None
    return finish


def columns(finish: Finish) -> dict[str, np.ndarray]:
    return {field.name: getattr(finish, field.name) for field in fields(finish)}


def assert_same(one: Finish, other: Finish) -> None:
    for name, values in columns(one).items():
        np.testing.assert_array_equal(values, columns(other)[name], err_msg=name)


def test_all_off_there_is_none() -> None:
    assert make_finish(0, 0, np.arange(3), Augment(policy_ops=4, mixup=1), 224) is None


def test_the_rest_of_a_plan_does_not_change() -> None:
    sizes = np.full(50, 500), np.full(50, 375)
    plain, more = (make_plan(3, 1, np.arange(50), sizes, Augment(**given), 224) for given in ({}, ALL))
    assert (plain.finish, more.finish is None) == (None, False)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(plain, name), getattr(more, name), err_msg=name)


def test_a_sample_hangs_on_nothing_but_its_index() -> None:
    whole = draw(40, **ALL)
    order = np.random.default_rng(0).permutation(40)
    for first, end in pairwise((0, 1, 7, 40)):
        part = make_finish(1, 0, order[first:end], Augment(**ALL), 224)
        assert part is not None
        assert_same(part, whole.select(order[first:end]))
    for change in ({"seed": 2}, {"vflip": 0.6}):
        other = draw(40, **{**ALL, **change})
        assert np.array_equal(other.hue, whole.hue) == ("seed" not in change)


def test_each_setting_leaves_the_others_draws_alone() -> None:
    whole = draw(200, **ALL)
    for name, column in (("vflip", "vflip"), ("saturation", "saturation"), ("hue", "hue"), ("grey", "grey"),
                         ("blur", "sigma"), ("erase", "erase_top")):  # fmt: skip
        alone = columns(draw(200, **{name: ALL[name]}))
        assert np.array_equal(alone[column], columns(whole)[column])
        assert alone["operation"].shape == (200, 0)


def test_dtypes_and_neutral_values() -> None:
    finish = columns(draw(5, vflip=1.0))
    kinds = dict.fromkeys(("vflip", "grey"), np.bool_)
    kinds |= dict.fromkeys(("saturation", "hue", "magnitude", "sigma"), np.float32)
    for name, values in finish.items():
        assert values.dtype == kinds.get(name, np.int64), name
        assert values.shape == ((5, 0) if name in ("operation", "magnitude") else (5,))
        neutral = {"vflip": 1, "saturation": 1}.get(name, 0)
        assert (values == neutral).all()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_shares(share: float) -> None:
    finish = draw(vflip=share, grey=share, blur=share, erase=share, hue=0.1)
    for of in (finish.vflip, finish.grey, finish.sigma > 0, finish.erase_height > 0):
        assert of.mean() == pytest.approx(share, abs=0.012)


def test_jitter_and_blur_are_uniform() -> None:
    finish, rng = draw(saturation=0.4, hue=0.1, blur=1), np.random.default_rng(0)
    for ours, low, high in (
        (finish.saturation, 0.6, 1.4), (finish.hue, -0.1, 0.1), (finish.sigma, 0.1, 2.0)
    ):  # fmt: skip
        assert ks_2samp(ours, rng.uniform(low, high, DRAWS)).pvalue > 1e-3


def test_rectangles_are_torchvisions() -> None:
    finish, picture = draw(erase=1.0, size=64), torch.zeros(3, 64, 64)
    torch.manual_seed(0)
    erasing = v2.RandomErasing(p=1)
    theirs = np.array([
        [p["i"], p["j"], p["h"], p["w"]]
        for p in (erasing.make_params([picture]) for _ in range(4000))
    ])  # fmt: skip
    ours = finish.erase_top, finish.erase_left, finish.erase_height, finish.erase_width
    for mine, his in zip(ours, theirs.T, strict=True):
        assert ks_2samp(mine, his).pvalue > 1e-3
    assert (finish.erase_top + finish.erase_height <= 64).all()
    assert (finish.erase_left + finish.erase_width <= 64).all()


SPACES = {
    "trivial": v2.TrivialAugmentWide._AUGMENTATION_SPACE,
    "rand": v2.RandAugment._AUGMENTATION_SPACE,
}
NAMES = dict(zip(SPACES["rand"], Operation, strict=True))


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("strength", [0, 9, 30])
def test_rand_is_torchvisions_space(size: int, strength: int) -> None:
    finish = draw(4000, size, policy="rand", policy_ops=4, policy_magnitude=strength)
    assert finish.operation.shape == (4000, 4)
    shares = np.bincount(finish.operation.ravel(), minlength=14) / 16_000
    assert np.abs(shares - 1 / 14).max() < 0.008
    for name, operation in NAMES.items():
        values, signed = SPACES["rand"][name]
        bins = values(31, size, size)
        expected = 0.0 if bins is None else float(bins[strength])
        found = finish.magnitude[finish.operation == operation]
        wanted = [expected, -expected] if signed else [expected]
        np.testing.assert_allclose(np.unique(found), np.unique(wanted), atol=1e-5)
        if signed and expected:
            assert (found > 0).mean() == pytest.approx(0.5, abs=0.06)


def test_trivial_is_torchvisions_space() -> None:
    finish = draw(60_000, policy="trivial")
    assert finish.operation.shape == (60_000, 1)
    for name, operation in NAMES.items():
        values, signed = SPACES["trivial"][name]
        bins = values(31, 224, 224)
        expected = np.zeros(1) if bins is None else bins.numpy().astype(np.float64)
        found, counts = np.unique(finish.magnitude[finish.operation == operation], return_counts=True)
        np.testing.assert_allclose(found, np.unique([expected, -expected] if signed else expected), atol=1e-5)
        assert counts.sum() == pytest.approx(60_000 / 14, rel=0.07)
        assert counts[found != 0].max(initial=0) < 2 * counts.sum() / len(counts)  # 0 comes with both signs


def test_a_part_of_a_plan_keeps_what_is_done_to_its_samples() -> None:
    sizes = np.full(6, 50), np.full(6, 40)
    plan = make_plan(0, 0, np.arange(6), sizes, Augment(**ALL), 32)
    assert plan.finish is not None
    part = plan.select(np.array([4, 1]))
    assert part.finish is not None
    assert_same(part.finish, plan.finish.select(np.array([4, 1])))
    assert plan.at(sizes).finish is plan.finish


def test_finishes_are_pinned() -> None:
    """Numbers of one sample: a change here changes every run that resumes."""
    finish = make_finish(7, 3, np.array([11]), Augment(**{**ALL, "erase": 1, "blur": 1}), 224)
    assert finish is not None
    found = {name: values[0].tolist() for name, values in columns(finish).items()}
    assert found == {name: pytest.approx(value, rel=1e-5) for name, value in PINNED.items()}


PINNED = {
    "vflip": True,
    "saturation": 0.770825,
    "hue": 0.040777,
    "grey": False,
    "operation": [9, 8, 11],
    "magnitude": [-0.36, 0.36, 0.6],
    "sigma": 0.58593,
    "erase_top": 36,
    "erase_left": 118,
    "erase_height": 101,
    "erase_width": 61,
}

"""Windows lie inside their photo, fall as torchvision's do, and follow a photo to other sizes."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

from flowerfast.augment import Augment
from flowerfast.pixels.reference import augment as execute
from flowerfast.plans import plan as plans
from flowerfast.plans.geometry import limited, moved, resized
from flowerfast.plans.plan import Plan, make_eval_plan, make_plan

DRAWS = 20_000
DEFAULTS = Augment()
AWKWARD = [(1, 1), (1, 2), (2, 1), (3000, 40), (40, 3000), (1, 5000), (5000, 1), (500, 375), (65_500, 1200)]

sides = st.integers(1, 6000)


def plan_like(photo: tuple[int, int], augment: Augment = DEFAULTS, n: int = DRAWS) -> Plan:
    """Plan of n photos of one size."""
    return make_plan(1, 0, np.arange(n), (np.full(n, photo[0]), np.full(n, photo[1])), augment, 224)


def assert_inside(plan: Plan) -> None:
    """Every window has a pixel or more, none beyond the photo."""
    assert min(plan.top.min(), plan.left.min()) >= 0
    assert min(plan.height.min(), plan.width.min()) >= 1
    assert (plan.top + plan.height <= plan.photo_height).all()
    assert (plan.left + plan.width <= plan.photo_width).all()


# Random windows


@settings(max_examples=80, deadline=None)
@given(
    photos=st.lists(st.tuples(sides, sides), min_size=1, max_size=30),
    scale=st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 1)),
    ratio=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    seed=st.integers(0, 2**63 - 1),
)
@example(photos=AWKWARD, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), seed=0)
@example(photos=[(1, 1)] * 30, scale=(0.08, 1.0), ratio=(0.1, 0.3), seed=0)
@example(photos=[(1, 1)] * 30, scale=(0.08, 1.0), ratio=(50.0, 99.0), seed=0)
def test_windows_lie_inside_the_photo(
    photos: list[tuple[int, int]], scale: tuple[float, float], ratio: tuple[float, float], seed: int
) -> None:
    augment = Augment(crop_scale=(min(scale), max(scale)), crop_ratio=(min(ratio), max(ratio)))
    width, height = np.array(photos).T
    plan = make_plan(seed, 0, np.arange(len(photos)), (width, height), augment, 224)
    assert_inside(plan)


@pytest.mark.parametrize("photo", AWKWARD)
def test_windows_of_awkward_photos_lie_inside(photo: tuple[int, int]) -> None:
    assert_inside(plan_like(photo, n=3000))


def test_windows_reach_every_edge() -> None:
    plan = plan_like((12, 9))
    assert (plan.top.min(), plan.left.min()) == (0, 0)
    assert ((plan.top + plan.height).max(), (plan.left + plan.width).max()) == (9, 12)


# Their distribution is torchvision's


@pytest.mark.usefixtures("torch_seed")
@pytest.mark.parametrize(
    ("photo", "augment"),
    [
        ((500, 375), DEFAULTS),
        ((7, 5), DEFAULTS),
        ((1000, 100), DEFAULTS),  # the central fallback in about three of four
        ((100, 1000), DEFAULTS),
        ((240, 320), Augment(crop_scale=(0.35, 0.9), crop_ratio=(0.5, 3.0))),
    ],
    ids=["usual", "tiny", "wide", "tall", "other ranges"],
)
def test_windows_are_distributed_as_torchvisions(photo: tuple[int, int], augment: Augment) -> None:
    picture = Image.new("1", photo)
    scale, ratio = list(augment.crop_scale), list(augment.crop_ratio)
    theirs = np.array([RandomResizedCrop.get_params(picture, scale, ratio) for _ in range(DRAWS)]).T
    plan = plan_like(photo, augment)
    ours = np.stack([plan.top, plan.left, plan.height, plan.width])
    for mine, reference in zip(ours, theirs, strict=True):
        assert ks_2samp(mine, reference).pvalue > 1e-3

    def derived(top: np.ndarray, left: np.ndarray, height: np.ndarray, width: np.ndarray) -> list[np.ndarray]:
        above, beside = top / np.maximum(photo[1] - height, 1), left / np.maximum(photo[0] - width, 1)
        return [height * width, width / height, top + height, left + width, above, beside]

    for mine, reference in zip(derived(*ours), derived(*theirs), strict=True):
        assert ks_2samp(mine, reference).pvalue > 1e-3


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
    augment = Augment(crop_ratio=(min(ratio), max(ratio)))
    expected = RandomResizedCrop.get_params(
        Image.new("1", photo), list(augment.crop_scale), list(augment.crop_ratio)
    )
    plan = plan_like(photo, augment, n=3)
    for row in range(3):
        assert (plan.top[row], plan.left[row], plan.height[row], plan.width[row]) == expected


def test_the_fallback_inside_the_ratios_is_the_whole_photo() -> None:
    # A scale so small that every attempt rounds to no pixels.
    plan = plan_like((10, 9), Augment(crop_scale=(1e-4, 1e-3)), n=100)
    assert {*zip(plan.top.tolist(), plan.left.tolist(), strict=True)} == {(0, 0)}
    assert (plan.width == 10).all()
    assert (plan.height == 9).all()


# Windows of the evaluation


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
    ours = tuple(getattr(plan, n)[0] for n in ("out_height", "out_width", "from_row", "from_column"))
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
    assert (plan.from_row >= 0).all()
    assert (plan.from_column >= 0).all()
    assert (plan.from_row + side <= plan.out_height).all()
    assert (plan.from_column + side <= plan.out_width).all()
    found = resized((width, height), side, crop_pct)
    whole = (plan.width == width) & (plan.height == height)
    np.testing.assert_array_equal(np.array(found)[:, whole], (plan.out_width[whole], plan.out_height[whole]))
    assert (np.minimum(plan.out_height, plan.out_width)[whole] == round(side / crop_pct)).all()
    # Of a strip the part around the window, at the scale of the whole.
    assert (plan.out_width * plan.out_height <= found[0] * found[1]).all()
    assert (whole | (np.maximum(width, height) > 32 * np.minimum(width, height))).all()
    for axis, length, out in (("width", width, found[0]), ("height", height, found[1])):
        scale = getattr(plan, f"out_{axis}") / getattr(plan, axis)
        np.testing.assert_allclose(scale, out / length, rtol=0.2)


@pytest.mark.parametrize("upright", [False, True], ids=["wide", "upright"])
@pytest.mark.parametrize(("long", "short"), [(700, 1), (2000, 3), (5000, 110), (9000, 260)])
def test_of_a_strip_the_window_shows_what_the_whole_would(
    long: int, short: int, upright: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole photo resized: apart by a shift of less than a pixel."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (short, -(-long // 8), 3), dtype=np.uint8))
    strip = coarse.resize((long, short))
    photo = np.array(strip.transpose(Image.Transpose.TRANSPOSE) if upright else strip)
    sizes = np.array([photo.shape[1]]), np.array([photo.shape[0]])
    monkeypatch.setattr(plans, "_LARGE", 1 << 40)
    whole = make_eval_plan(np.zeros(1), sizes, 96, 0.875)
    monkeypatch.setattr(plans, "_LARGE", 1 << 16)
    part = make_eval_plan(np.zeros(1), sizes, 96, 0.875)
    assert 8 * (part.width * part.height)[0] < (whole.width * whole.height)[0]
    assert 8 * (part.out_width * part.out_height)[0] < (whole.out_width * whole.out_height)[0]
    expected, found = np.empty((2, 96, 96, 3), np.uint8)
    execute(photo, whole, 0, expected)
    execute(photo, part, 0, found)
    step = np.abs(np.diff(expected.astype(int), axis=0 if upright else 1)).max()  # between neighbours
    assert np.abs(found.astype(int) - expected).max() <= step + 1
    assert expected.std() > 10


# Windows of a photo at another size


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((640, 480), 240, (320, 240)), ((480, 640), 240, (240, 320)), ((100, 80), 240, (100, 80)),
     ((100, 80), 80, (100, 80)), ((101, 81), 80, (100, 80)), ((3000, 40), 32, (2400, 32)),
     ((1, 1), 32, (1, 1)), ((1, 3000), 32, (1, 3000))],
)  # fmt: skip
def test_limited_sizes(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    width, height = limited((np.array([size[0]]), np.array([size[1]])), side)
    assert (int(width[0]), int(height[0])) == expected
    assert width.dtype == height.dtype == np.int64


edges = st.integers(1, 4000)


@settings(deadline=None)
@given(width=edges, height=edges, side=st.integers(32, 800))
def test_limited_photos_keep_their_shape_and_never_grow(width: int, height: int, side: int) -> None:
    found = limited((np.array([width]), np.array([height])), side)
    new_width, new_height = int(found[0][0]), int(found[1][0])
    assert 1 <= new_width <= width
    assert 1 <= new_height <= height
    assert min(new_width, new_height) == min(width, height, side)
    scale = min(1, side / min(width, height))
    assert abs(new_width - width * scale) <= 0.5
    assert abs(new_height - height * scale) <= 0.5


@settings(deadline=None)
@given(
    size=st.tuples(edges, edges),
    other=st.tuples(edges, edges),
    seed=st.integers(0, 99),
    smallest=st.sampled_from([0.08, 1e-6]),  # the latter makes windows of less than a pixel of the new photo
)
@example(size=(4000, 3000), other=(1, 1), seed=0, smallest=0.08)
@example(size=(500, 375), other=(500, 375), seed=0, smallest=0.08)
def test_moved_windows_stay_inside_and_cover_the_same_share(
    size: tuple[int, int], other: tuple[int, int], seed: int, smallest: float
) -> None:
    old, new = (tuple(np.array([edge]) for edge in pair) for pair in (size, other))
    drawn = Augment(crop_scale=(smallest, min(1.0, 8 * smallest)))
    plan = make_plan(seed, 0, np.zeros(1, np.int64), old, drawn, 64)
    scaled = plan.at(new)
    assert_inside(scaled)
    assert (scaled.photo_width[0], scaled.photo_height[0]) == other
    for start, length, before, after, whole, now in (
        (scaled.left, scaled.width, plan.left, plan.width, size[0], other[0]),
        (scaled.top, scaled.height, plan.top, plan.height, size[1], other[1]),
    ):
        assert start.dtype == length.dtype == np.int64
        ratio = now / whole
        # Edges move by half a pixel; a window of less than a pixel is widened to one.
        tolerance = (0.5 if after[0] * ratio >= 1 else 1.5) + 1e-9
        assert abs(start[0] - before[0] * ratio) <= tolerance
        assert abs(start[0] + length[0] - (before[0] + after[0]) * ratio) <= tolerance
        if now == whole:
            assert (start, length) == (before, after)


def test_a_moved_window_keeps_a_pixel_at_every_place() -> None:
    start = np.arange(1000)
    first, length = moved(start, np.ones(1000, np.int64), np.full(1000, 1000), np.full(1000, 7))
    assert (length == 1).all()
    assert first.min() == 0
    assert first.max() == 6
    assert (np.diff(first) >= 0).all()

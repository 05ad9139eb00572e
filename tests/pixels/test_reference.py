"""The reference executor, and the compiled one: pixels of the plain torchvision/PIL chain."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torchvision.transforms as T
import torchvision.transforms.functional as F
from PIL import Image, ImageEnhance, ImageOps

from flowerfast.augment import Augment
from flowerfast.photos.photos import Photos
from flowerfast.pixels import reference as module
from flowerfast.pixels.compiled import CompiledExecutor
from flowerfast.pixels.executor import Executor
from flowerfast.pixels.reference import PlainExecutor, augment, resize
from flowerfast.pixels.source import Files
from flowerfast.plans.plan import Plan, make_eval_plan, make_plan, still_plan

Execute = Callable[[Executor, Plan], tuple[np.ndarray, dict[int, str]]]
# Mean, 99th percentile and largest difference in levels of 255. Measured on the zoo with 32 to 224 px: means
# up to 0.016, 99th percentile 1, largest 3 (a level of the grey mean, through the contrast); resize alone: 1.
MEAN_BOUND, P99_BOUND, MAX_BOUND = 0.1, 1, 4
pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")


@pytest.fixture(params=[CompiledExecutor, PlainExecutor])
def pixels_of(request: pytest.FixtureRequest, zoo: Path, execute: Execute) -> Callable[[Plan], np.ndarray]:
    """Function (plan) → pixels of the zoo's photos, none of which may fail."""
    photos = Photos(zoo)
    executor = request.param(photos, Files(photos, compiled=True))

    def run(plan: Plan) -> np.ndarray:
        rows, failed = execute(executor, plan)
        assert not failed
        return rows

    return run


def reference(image: Image.Image, plan: Plan, row: int) -> np.ndarray:
    """The paper's transforms as torchvision does them on a PIL image, with the parameters of a plan."""
    window = (int(a[row]) for a in (plan.top, plan.left, plan.height, plan.width))
    return after_resize(F.resized_crop(image, *window, [plan.size] * 2, antialias=True), plan, row)


def after_resize(image: Image.Image, plan: Plan, row: int) -> np.ndarray:
    if plan.flip[row]:
        image = F.hflip(image)
    image = F.rotate(image, float(plan.angle[row]))
    brightness, contrast = float(plan.brightness[row]), float(plan.contrast[row])
    if plan.contrast_first[row]:
        image = F.adjust_brightness(F.adjust_contrast(image, contrast), brightness)
    else:
        image = F.adjust_contrast(F.adjust_brightness(image, brightness), contrast)
    shift = [int(plan.shift_x[row]), int(plan.shift_y[row])]
    return np.asarray(F.affine(image, angle=0.0, translate=shift, scale=1.0, shear=[0.0, 0.0]))


def open_photo(photos: Photos, index: int) -> Image.Image:
    with Image.open(photos.root / photos.path(index)) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def plan_all(photos: Photos, epoch: int, size: int, **settings: float) -> Plan:
    sizes = photos.sizes(photos.indices)
    return make_plan(5, epoch, photos.indices, sizes, Augment(**settings), size)


def apart(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    assert found.shape == expected.shape
    return np.abs(found.astype(np.int16) - expected)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_random_plans_give_the_reference_pixels(
    zoo: Path, pixels_of: Callable[[Plan], np.ndarray], size: int
) -> None:
    photos, differences = Photos(zoo), []
    for epoch in range(4):
        plan = plan_all(photos, epoch, size)
        found = pixels_of(plan)
        for row in range(len(photos)):
            expected = reference(open_photo(photos, row), plan, row)
            differences.append(apart(found[row], expected))
            assert differences[-1].mean() <= 0.5, photos.path(row)
    assert np.mean(differences) <= MEAN_BOUND
    assert np.percentile(differences, 99) <= P99_BOUND
    assert np.max(differences) <= MAX_BOUND


def test_windows_that_need_no_resize_give_exactly_the_reference_pixels(
    zoo: Path, pixels_of: Callable[[Plan], np.ndarray]
) -> None:
    photos, size, rng = Photos(zoo), 40, np.random.default_rng(1)
    width, height = photos.sizes(photos.indices)
    big = np.flatnonzero((width >= size) & (height >= size))
    assert len(big) > 25
    for epoch in range(4):
        plan = replace(
            make_plan(5, epoch, big, photos.sizes(big), Augment(rotate=180), size),
            top=rng.integers(0, height[big] - size + 1),
            left=rng.integers(0, width[big] - size + 1),
            height=np.full(len(big), size),
            width=np.full(len(big), size),
        )
        found = pixels_of(plan)
        for row, index in enumerate(big.tolist()):
            expected = reference(open_photo(photos, index), plan, row)
            assert np.array_equal(found[row], expected), photos.path(index)


def test_what_differs_is_the_resize_alone(zoo: Path) -> None:
    """The reference chain with our resize in place of Pillow's is exact; the resizes differ by one level."""
    photos, size = Photos(zoo), 48
    plan = plan_all(photos, 0, size)
    for row in range(len(photos)):
        photo = open_photo(photos, row)
        top, left = int(plan.top[row]), int(plan.left[row])
        window = photo.crop((left, top, left + int(plan.width[row]), top + int(plan.height[row])))
        resized = resize(np.array(window), size, size)
        assert apart(resized, np.asarray(F.resize(window, [size, size]))).max() <= 1, photos.path(row)
        found = np.empty((size, size, 3), np.uint8)
        augment(np.array(photo), plan, row, found)
        assert np.array_equal(found, after_resize(Image.fromarray(resized), plan, row)), photos.path(row)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, -15.0, 15.0])
@pytest.mark.parametrize(("brightness", "contrast"), [(1.0, 1.0), (0.0, 1.3), (2.0, 0.0), (0.8, 1.0)])
@pytest.mark.parametrize("shift", [(0, 0), (3, -4), (-31, 31), (32, 0), (0, -32)])
def test_extreme_parameters_give_the_reference_pixels(
    angle: float, brightness: float, contrast: float, shift: tuple[int, int]
) -> None:
    photo = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    photo[8:20, 4:30] = (250, 10, 130)
    for flip, contrast_first in product((False, True), repeat=2):
        plan = replace(
            still_plan(np.zeros(1), (np.array([32]), np.array([32])), 32),
            flip=np.array([flip]),
            angle=np.array([angle], np.float32),
            brightness=np.array([brightness], np.float32),
            contrast=np.array([contrast], np.float32),
            contrast_first=np.array([contrast_first]),
            shift_x=np.array([shift[0]]),
            shift_y=np.array([shift[1]]),
            augmented=True,
        )
        found = np.full((32, 32, 3), 99, np.uint8)
        augment(photo, plan, 0, found)
        assert np.array_equal(found, reference(Image.fromarray(photo), plan, 0))


@pytest.mark.parametrize(("size", "crop_pct"), [(32, 0.875), (64, 0.95), (33, 1.0)])
def test_evaluation_plan_gives_the_pixels_of_resize_and_centre_crop(
    zoo: Path, pixels_of: Callable[[Plan], np.ndarray], size: int, crop_pct: float
) -> None:
    photos = Photos(zoo)
    found = pixels_of(make_eval_plan(photos.indices, photos.sizes(photos.indices), size, crop_pct))
    transform = T.Compose([T.Resize(round(size / crop_pct)), T.CenterCrop(size)])
    differences = [
        apart(found[row], np.asarray(transform(open_photo(photos, row)))) for row in range(len(photos))
    ]
    assert np.mean(differences) <= MEAN_BOUND
    assert np.max(differences) <= 1


def test_evaluation_without_resize_is_exact() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (64, 81, 3), dtype=np.uint8)
    plan = make_eval_plan(np.zeros(1), (np.array([81]), np.array([64])), 56, 0.875)
    found = np.empty((56, 56, 3), np.uint8)
    augment(photo, plan, 0, found)
    assert np.array_equal(found, np.asarray(T.CenterCrop(56)(Image.fromarray(photo))))


def test_blend_table_is_pillows_blend() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    factors = np.concatenate(
        [np.linspace(0, 2, 41), np.random.default_rng(0).uniform(0.7, 1.3, 20), [0.1, 5]]
    )
    for factor in factors.astype(np.float32).tolist():
        darker = ImageEnhance.Brightness(ramp).enhance(factor)
        assert module._blend_table(factor, 0) == np.asarray(darker)[0].tolist()
        for level in range(0, 256, 5):
            expected = Image.blend(Image.new("L", ramp.size, level), ramp, factor)  # what Contrast does
            assert module._blend_table(factor, level) == np.asarray(expected)[0].tolist()


def test_grey_mean_and_blend_table_are_pillows_contrast() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        low, high = sorted(rng.integers(0, 257, 2).tolist())
        size = rng.integers(1, 20, 2).tolist()
        image = Image.fromarray(rng.integers(low, max(high, low + 1), (*size, 3)).astype(np.uint8))
        factor = float(np.float32(rng.uniform(0, 2)))
        table = module._blend_table(factor, module._grey_mean(image))
        expected = ImageEnhance.Contrast(image).enhance(factor)
        assert np.array_equal(np.asarray(image.point(table * 3)), np.asarray(expected))

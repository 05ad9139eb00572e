"""The reference of what is done to finished squares is torchvision's; loops and tensors give its pixels."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from flowerfast.augment import Augment
from flowerfast.kernels import End
from flowerfast.kernels.operations import Operation
from flowerfast.photos.photos import Photos
from flowerfast.pixels.compiled import CompiledExecutor
from flowerfast.pixels.finish import blur_taps, finish_rows
from flowerfast.pixels.finish_batch import finish_batch, finish_images
from flowerfast.pixels.finish_reference import finish_square
from flowerfast.pixels.reference import PlainExecutor
from flowerfast.pixels.source import Files
from flowerfast.plans.finish import Finish, make_finish
from flowerfast.plans.plan import make_plan

NAMES = list(v2.RandAugment._AUGMENTATION_SPACE)
TRIVIAL = v2.TrivialAugmentWide._AUGMENTATION_SPACE
SIDES = (32, 57, 64)
Way = Callable[[np.ndarray, Finish], np.ndarray]


def by_reference(images: np.ndarray, finish: Finish) -> np.ndarray:
    out = images.copy()
    for row in range(len(out)):
        finish_square(out[row], finish, row)
    return out


def by_loops(images: np.ndarray, finish: Finish) -> np.ndarray:
    out = images.copy()
    finish_rows(out, finish, np.arange(len(out)))
    return out


def by_torch(images: np.ndarray, finish: Finish) -> np.ndarray:
    out = torch.from_numpy(images.copy())
    finish_batch(out, finish)
    return out.numpy()


WAYS = {"reference": by_reference, "loops": by_loops, "torch": by_torch}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def pictures(side: int) -> np.ndarray:
    """Noise, slopes, few levels, one colour, one level but for a pixel, dark and bright ones."""
    rng = np.random.default_rng(side)
    noise = rng.integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    slopes = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    flat = np.full((side, side, 3), (12, 200, 31), np.uint8)
    dot = np.full((side, side, 3), 77, np.uint8)
    dot[side // 2, 3] = (255, 0, 78)
    ramp = np.broadcast_to(np.linspace(0, 255, side).astype(np.uint8)[:, None, None], (side, side, 3))
    grey_stripes = np.broadcast_to((noise[0, :, :1] // 64 * 64), (side, side, 3))
    more = [slopes, flat, dot, ramp, grey_stripes, noise[0] // 8, 255 - noise[1] // 9, flat * 0]
    return np.stack([*noise, *more])


def neutral(n: int, operations: int = 0) -> Finish:
    no, none, one = np.zeros(n, bool), np.zeros(n, np.int64), np.ones(n, np.float32)
    empty = np.zeros((n, operations), np.int64)
    return Finish(no, one, one * 0, no, empty, empty.astype(np.float32), one * 0, none, none, none, none)


def with_all(images: np.ndarray, way: Way, theirs: Callable[[Image.Image], Image.Image], **columns: object):
    """What differs between a way with these columns and torchvision's operation on Pillow's images."""
    n = len(images)
    base = neutral(n)
    changes = {name: np.full(n, value).astype(getattr(base, name).dtype) for name, value in columns.items()}
    found = way(images, replace(base, **changes))
    expected = np.stack([np.asarray(theirs(Image.fromarray(image))) for image in images])
    assert found.shape == expected.shape
    return np.abs(found.astype(np.int16) - expected)


@pytest.mark.parametrize("side", SIDES)
def test_vertical_flip(way: Way, side: int) -> None:
    assert not with_all(pictures(side), way, F.vertical_flip, vflip=True).any()


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.9, 1.0, 1.37, 2.0])
def test_saturation(way: Way, factor: float) -> None:
    theirs = partial(F.adjust_saturation, saturation_factor=float(np.float32(factor)))
    assert not with_all(pictures(57), way, theirs, saturation=factor).any()


@pytest.mark.parametrize("hue", [-0.5, -0.1, -0.001, 0.001, 0.03, 0.2, 0.5])
def test_hue(way: Way, hue: float) -> None:
    theirs = partial(F.adjust_hue, hue_factor=float(np.float32(hue)))
    assert not with_all(pictures(57), way, theirs, hue=hue).any()


def test_hue_of_all_colours_there_are(way: Way) -> None:
    """A sixteenth of them: some red, all blue and green."""
    level = np.arange(256, dtype=np.uint8)
    colours = np.stack(np.meshgrid(level[5::16], level, level, indexing="ij"), axis=-1)
    images = colours.reshape(-1, 256, 256, 3)
    assert not with_all(images, way, lambda image: F.adjust_hue(image, 0.25), hue=0.25).any()


def test_grey(way: Way) -> None:
    theirs = partial(F.rgb_to_grayscale, num_output_channels=3)
    assert not with_all(pictures(57), way, theirs, grey=True).any()


@pytest.mark.parametrize(("side", "sigma"), [(32, 0.1), (57, 0.5), (64, 2.0), (224, 0.9), (224, 2.0)])
def test_blur_is_torchvisions_but_for_a_level(way: Way, side: int, sigma: float) -> None:
    images, size = pictures(side), 2 * (side // 20) + 1
    apart = with_all(images, way, lambda image: F.gaussian_blur(image, size, sigma), sigma=sigma)
    assert apart.max() <= 1
    assert apart.mean() <= 0.02


def test_taps_are_a_bell_of_whole_numbers() -> None:
    taps = blur_taps(np.array([0, 0.1, 2.0], np.float32), 224)
    assert taps.shape == (3, 23)
    assert taps.sum(axis=1).tolist() == [0, 1 << 14, 1 << 14]
    assert taps[1, 11] == 1 << 14
    assert np.array_equal(taps, taps[:, ::-1])
    assert (np.diff(taps[2, :12]) >= 0).all()


def test_erasing(way: Way) -> None:
    box = {"erase_top": 3, "erase_left": 40, "erase_height": 20, "erase_width": 17}
    images = pictures(57)
    expected = images.copy()
    expected[:, 3:23, 40:57] = 0
    theirs = iter(expected)
    assert not with_all(images, way, lambda _: Image.fromarray(next(theirs)), **box).any()


def magnitudes(name: str, side: int) -> list[float]:
    """All of TrivialAugmentWide's, both ways; the largest are beyond RandAugment's."""
    values, signed = TRIVIAL[name]
    bins = values(31, side, side)
    if bins is None:
        return [0.0]
    found = [float(np.float32(float(value))) for value in bins]
    return found + [-value for value in found] if signed else found


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_operations_of_the_policies(way: Way, name: str, side: int) -> None:
    """At every strength and either way; each on another picture."""
    strengths = magnitudes(name, side)
    drawn = pictures(side)
    images = np.stack([drawn[i % len(drawn)] for i in range(max(len(strengths), len(drawn)))])
    given = np.resize(np.array(strengths), len(images))
    finish = replace(
        neutral(len(images)),
        operation=np.full((len(images), 1), NAMES.index(name)),
        magnitude=given.astype(np.float32)[:, None],
    )
    apply = v2.RandAugment()._apply_image_or_video_transform
    nearest = InterpolationMode.NEAREST
    expected = np.stack([
        np.asarray(apply(Image.fromarray(image), name, float(value), nearest, {}))
        for image, value in zip(images, given, strict=True)
    ])  # fmt: skip
    found = way(images, finish)
    wrong = (found != expected).reshape(len(images), -1).any(axis=1)
    assert not wrong.any(), given[wrong]


def test_names_are_torchvisions_in_order() -> None:
    ours = [operation.name.replace("_", "").replace("colour", "color") for operation in Operation]
    assert ours == [name.lower() for name in NAMES]


EVERYTHING = {
    "vflip": 0.5, "saturation": 0.5, "hue": 0.2, "grey": 0.2, "policy": "rand", "policy_ops": 3,
    "policy_magnitude": 25, "blur": 0.5, "erase": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    "settings", [EVERYTHING, {"policy": "trivial", "erase": 0.25}], ids=["all", "strong"]
)
@pytest.mark.parametrize("side", SIDES)
def test_loops_and_tensors_give_the_references_pixels(side: int, settings: dict[str, object]) -> None:
    images = np.concatenate([pictures(side)] * 6)
    finish = make_finish(3, 1, np.arange(len(images)), Augment(**settings), side)
    assert finish is not None
    expected = by_reference(images, finish)
    for way in (by_loops, by_torch):
        found = way(images, finish)
        wrong = np.flatnonzero((found != expected).reshape(len(images), -1).any(axis=1))
        assert not wrong.size, (way, finish.select(wrong[:1]))


def test_the_order_of_the_steps() -> None:
    """Erasing comes last, a policy before the blur, colours before the policy."""
    image = pictures(57)[3:4]
    finish = replace(
        neutral(1, 1),
        saturation=np.array([0.5], np.float32),
        grey=np.array([True]),
        operation=np.array([[int(Operation.solarize)]]),
        magnitude=np.array([[0.4]], np.float32),
        sigma=np.array([1.5], np.float32),
        erase_height=np.array([9]),
        erase_width=np.array([9]),
    )
    expected = image
    for name in ("saturation", "grey", "operation", "sigma", "erase_height"):
        step = {name: getattr(finish, name)}
        if name == "operation":
            step["magnitude"] = finish.magnitude
        if name == "erase_height":
            step["erase_width"] = finish.erase_width
        expected = by_reference(expected, replace(neutral(1, int(name == "operation")), **step))
    assert np.array_equal(by_reference(image, finish), expected)


def test_only_the_rows_named_are_finished() -> None:
    images, finish = pictures(32), replace(neutral(11), vflip=np.ones(11, bool))
    out = images.copy()
    finish_rows(out, finish, np.array([7, 2]))
    changed = (out != images).reshape(11, -1).any(axis=1)
    assert set(np.flatnonzero(changed)) <= {2, 7}
    assert np.array_equal(out[2], images[2, ::-1])
    finish_rows(out, finish, np.zeros(0, np.int64))


def test_batches_of_none_and_without_a_finish_are_left_alone() -> None:
    images = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    assert finish_images(images, None) is images
    none = images[:0]
    assert finish_images(none, neutral(0)) is none


def test_executors_finish_what_they_have_made(zoo: Path, execute: Callable[..., object]) -> None:
    photos = Photos(zoo)
    sizes = photos.sizes(photos.indices)
    plain, more = (make_plan(9, 0, photos.indices, sizes, Augment(**given), 57) for given in ({}, EVERYTHING))
    assert more.finish is not None
    made = [
        execute(kind(photos, Files(photos, compiled)), plan)
        for kind, compiled in ((CompiledExecutor, True), (PlainExecutor, False))
        for plan in (plain, more)
    ]
    (base, _), (loops, _), (base_too, _), (plainly, _) = made
    assert np.array_equal(base, base_too)
    assert np.array_equal(loops, plainly)
    assert np.array_equal(plainly, by_reference(base, more.finish))
    earlier, _ = execute(CompiledExecutor(photos, Files(photos, True)), more, End.jitter)
    assert (earlier == 77).all()


@pytest.mark.real_data
def test_real_photos(real_photos: Path, execute: Callable[..., object]) -> None:
    photos = Photos(real_photos)
    photos = photos.subset(photos.indices[:: max(len(photos) // 120, 1)])
    sizes = photos.sizes(photos.indices)
    for settings in (EVERYTHING, {"policy": "trivial", "erase": 0.25}):
        plan = make_plan(9, 0, photos.indices, sizes, Augment(**settings), 224)
        assert plan.finish is not None
        base, _ = execute(CompiledExecutor(photos, Files(photos, True)), replace(plan, finish=None))
        expected = by_reference(base, plan.finish)
        assert np.array_equal(by_loops(base, plan.finish), expected)
        assert np.array_equal(by_torch(base, plan.finish), expected)


def test_shear_is_that_of_a_tangent() -> None:
    """torchvision goes by way of the angle and back: the matrix is the same."""
    for value in (0.03, -0.3, 0.99):
        assert math.tan(math.radians(math.degrees(math.atan(value)))) == pytest.approx(value, abs=1e-15)

"""The GPU's kernels give the reference's pixels, bit by bit. Without a GPU Triton's interpreter runs them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flowerfast.augment import Augment
from flowerfast.kernels.gpu import COLUMNS
from flowerfast.photos.orientation import turn
from flowerfast.pixels import gpu
from flowerfast.pixels.gpu import (
    Windows,
    kernel_problem,
    plan_columns,
    run_plan,
    stored_windows,
    windows_of,
)
from flowerfast.pixels.reference import augment
from flowerfast.plans.plan import Plan, make_eval_plan, make_plan, still_plan

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu
SIDE = 32
Sizes = list[tuple[int, int]]
"""(height, width) of photos."""


@pytest.fixture(autouse=True)
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes as long for many pixels at a time as for few."""
    if not torch.cuda.is_available():
        monkeypatch.setattr(gpu, "_BLOCK", 4096)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def planned(sizes: Sizes, side: int = SIDE, **columns: Any) -> Plan:
    """Plan of whole photos; of a column with one value that is the value of all."""
    height, width = np.array(sizes).T
    plan = still_plan(np.arange(len(sizes)), (width, height), side)
    same = {name: getattr(plan, name) for name in columns}
    full = {name: np.full(len(plan), value).astype(same[name].dtype) for name, value in columns.items()}
    return replace(plan, **full, augmented=True)


def assert_same(plan: Plan, device: torch.device) -> np.ndarray:
    """Pixels of a plan of random photos, which lie in one flat store as in a cache, are the reference's."""
    rng, sizes = np.random.default_rng(0), zip(plan.photo_height, plan.photo_width, strict=True)
    photos = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in sizes]
    expected = np.empty((len(plan), plan.size, plan.size, 3), np.uint8)
    for row, photo in enumerate(photos):
        augment(photo, plan, row, expected[row])
    gap = np.zeros(7, np.uint8)  # so that photos begin at any address
    flat = np.concatenate([part for photo in photos for part in (gap, photo.reshape(-1))])
    ends = np.cumsum([len(gap) + photo.size for photo in photos])
    store = torch.from_numpy(flat).to(device)
    starts = store.data_ptr() + ends - [photo.size for photo in photos]
    found = run_plan(plan, windows_of(plan, starts), device)
    assert (found.dtype, found.device.type) == (torch.uint8, device.type)
    differ = (found.cpu().numpy() != expected).reshape(len(plan), -1).mean(axis=1)
    assert not differ.any(), f"shares of bytes that differ: {differ}"
    return expected


@pytest.mark.parametrize(
    ("sizes", "columns"),
    [
        ([(40, 50)], {"top": 3, "left": 5, "height": 20, "width": 30}),
        ([(1, 1)], {}),
        ([(3, 3000)], {}),
        ([(400, 1)], {}),
        ([(40, 50)], {"top": 39, "left": 49, "height": 1, "width": 1}),
        ([(40, 50)], {"top": 39, "height": 1}),
        ([(5, 4)], {}),
        ([(200, 150)], {}),
        ([(32, 32)], {}),
        ([(32, 47), (47, 32)], {"flip": [True, False]}),
    ],
    ids=["window", "one_pixel", "3x3000", "400x1", "window_of_one_pixel", "window_of_one_row", "enlarged",
         "strongly_shrunk", "as_it_is", "one_axis_as_it_is"],
)  # fmt: skip
def test_windows_are_resized(sizes: Sizes, columns: dict[str, Any], device: torch.device) -> None:
    assert_same(planned(sizes, **columns), device)


@pytest.mark.parametrize(
    "columns",
    [
        {"flip": True},
        {"angle": [14.5, -14.5, 0]},
        {"angle": [90, 180, -90]},
        {"angle": [123.456, -0.01, 180], "flip": [True, False, True]},
        {"brightness": [1.2, 0.8, 1], "contrast": [0.85, 1.15, 1]},
        {"brightness": [1.2, 0.8, 1], "contrast": [0.85, 1.15, 1], "contrast_first": True},
        {"brightness": [0, 2, 1], "contrast": [2, 0, 0], "contrast_first": [True, False, True]},
        {"shift_x": [3, -3, 0], "shift_y": [0, 2, -5]},
        {"shift_x": [SIDE, 0, -40], "shift_y": [0, -SIDE, 50], "contrast": 0.9},
        {"flip": True, "angle": [-9, 9, 170], "brightness": [1.1, 0.9, 1.3], "contrast": [1.2, 0.7, 1],
         "contrast_first": [True, False, True], "shift_x": [2, -1, 0], "shift_y": [-3, 1, 31]},
    ],
    ids=["flip", "turn", "quarter_turns", "turn_of_flipped", "brightness_first", "contrast_first", "extremes",
         "shift", "shift_out_of_the_frame", "all"],
)  # fmt: skip
def test_points_are_those_of_the_reference(columns: dict[str, Any], device: torch.device) -> None:
    count = max(np.size(value) for value in columns.values())
    assert_same(planned([(24, 20), (32, 32), (20, 33)][:count], **columns), device)


@pytest.mark.parametrize("side", [33, 40])
def test_random_plans_of_photos_of_many_sizes(side: int, device: torch.device) -> None:
    sizes = np.array([37, 90, 41, 1]), np.array([53, 20, 29, 44])
    seen = [assert_same(make_plan(side, 0, np.arange(4), sizes, Augment(rotate=40), side), device)]
    assert len({image.tobytes() for image in seen[0]}) == 4


def test_evaluation_plans_are_cut_from_their_centre(device: torch.device) -> None:
    """Also of photos so long that most is cut away, and with a margin beyond the resized photo."""
    sizes = np.array([45, 20, 300]), np.array([40, 61, 7])
    plan = make_eval_plan(np.arange(3), sizes, SIDE, 0.875)
    assert_same(plan, device)
    beyond = replace(plan, from_row=np.array([-2, 0, 0]), from_column=np.array([0, plan.out_width[1] - 9, 3]))
    assert_same(beyond, device)


def test_windows_that_are_stored_turned_are_seen_upright(device: torch.device) -> None:
    orientation = np.arange(1, 9)
    plan = planned([(21, 34)] * 8)
    rng = np.random.default_rng(0)
    stored = [rng.integers(0, 256, (34, 21) if o > 4 else (21, 34), dtype=np.uint8) for o in orientation]
    stored = [np.stack([grey, grey + 1, grey + 2], axis=2) for grey in stored]
    expected = np.empty((8, SIDE, SIDE, 3), np.uint8)
    for row, photo in enumerate(stored):
        augment(turn(photo, int(orientation[row])), plan, row, expected[row])
    there = [torch.from_numpy(photo).to(device) for photo in stored]
    address = np.array([photo.data_ptr() for photo in there])
    found = run_plan(plan, stored_windows(plan, address, orientation), device)
    assert np.array_equal(found.cpu().numpy(), expected)


def test_a_batch_without_samples_is_empty(device: torch.device) -> None:
    none = np.zeros(0, np.int64)
    found = run_plan(planned([(5, 5)]).select(none), Windows(none, none, none), device)
    assert (found.shape, found.dtype) == ((0, SIDE, SIDE, 3), torch.uint8)


def test_turns_are_pillows_at_any_angle() -> None:
    """The arithmetic on the host; which pixel that means, in the kernels' whole numbers."""
    for side in (32, 57, 224):
        angles = np.concatenate([np.random.default_rng(side).uniform(-360, 360, 60), [-180, -90, 0, 90]])
        plan = planned([(side, side)] * len(angles), side, angle=angles)
        columns = plan_columns(plan, windows_of(plan, np.zeros(len(plan), np.int64)))
        image = Image.fromarray(np.arange(1, side * side + 1, dtype=np.int32).reshape(side, side))
        down, across = np.mgrid[0:side, 0:side]
        for angle, row in zip(plan.angle.tolist(), columns, strict=True):
            at = {name: int(value) for name, value in zip(COLUMNS, row, strict=True)}
            x = (at["turn_x"] + at["right_x"] * across + at["down_x"] * down) >> 16
            y = (at["turn_y"] + at["right_y"] * across + at["down_y"] * down) >> 16
            inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
            found = np.where(inside, y * side + x + 1, 0)
            assert np.array_equal(found, image.rotate(angle, Image.Resampling.NEAREST)), (side, angle)


# ------------------------------------------------------------------------------------ where they can be used


@pytest.fixture
def fresh() -> Iterator[None]:
    """No trial is remembered, before or after."""
    kernel_problem.cache_clear()
    yield
    kernel_problem.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_a_trial_goes_well_where_the_kernels_run(device: torch.device) -> None:
    assert kernel_problem(device, SIDE) is None


@pytest.mark.usefixtures("fresh")
def test_a_trial_that_fails_or_gives_other_pixels_is_a_problem(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gpu._most_taps
    monkeypatch.setattr(gpu, "_most_taps", lambda *sizes: np.minimum(real(*sizes), 2))
    problem = kernel_problem(device, SIDE)
    assert problem is not None
    assert "bytes were not the reference's" in problem

    def fail(*_: object) -> int:
        raise RuntimeError("no C compiler\nand more")

    monkeypatch.setattr(gpu, "_trial", fail)
    kernel_problem.cache_clear()
    assert kernel_problem(device, SIDE) == "Triton's kernels do not run here (RuntimeError: no C compiler)"
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    kernel_problem.cache_clear()
    assert kernel_problem(device, SIDE) == "Triton is not installed"


def test_triton_is_imported_only_when_a_kernel_is_wanted() -> None:
    code = "import sys, flowerfast.loaders.cached, flowerfast.loaders.loader; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


COMPILE = """
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from flowerfast.pixels import gpu
KINDS = {torch.uint8: "*u8", torch.int32: "*i32", torch.int64: "*i64"}
def compile_only(kernel, grid, *arguments, **constants):
    kinds = [KINDS[one.dtype] if isinstance(one, torch.Tensor) else "i32" for one in arguments]
    signature = dict(zip(kernel.arg_names, kinds)) | dict.fromkeys(constants, "constexpr")
    source, target = ASTSource(kernel, signature, constants), GPUTarget("cuda", 80, 32)
    made = triton.compile(source, target=target, options=gpu._OPTIONS)
    print(kernel.__name__, len(made.asm["cubin"]) > 0, "fma.rn" in made.asm["ptx"])
gpu._launch = compile_only
gpu._trial(torch.device("cpu"), 224)
"""


def test_the_kernels_compile_for_a_gpu_without_one(tmp_path: Path) -> None:
    """As they are launched, down to machine code; nowhere are a product and a sum rounded only once."""
    changes = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=os.environ | changes | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = [f"{name} True False" for name in ("make_taps", "resize", "add_grey", "finish")]
    assert done.stdout.splitlines() == expected, done.stderr

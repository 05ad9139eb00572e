"""Vector instructions give what plain numbers do, on processors with AVX2 and on those without."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from benchmarks.torture import jpeg_coverage
from flowerfast.kernels import resize_lines, transform_lines, vectors

AVX2 = "+avx2" if vectors.has_avx2() else ""


def plain_pixels(source: np.ndarray, offsets: np.ndarray, stride: int, shares: np.ndarray) -> np.ndarray:
    """What `mix_eight_pixels` does, with 14 bits; `shares` are int16 (8, neighbours)."""
    channels = [c % stride for c in range(4)]
    taken = [[source[at + k * stride :][channels] for k in range(shares.shape[1])] for at in offsets]
    sums = (np.array(taken, np.int64) * shares[:, :, None]).sum(1)
    return np.minimum((sums + (1 << 13)) >> 14, 255).astype(np.uint8)


@njit
def mixed_pixels(row: int, offsets: int, stride: int, weights: int, quads: int, out: int) -> None:
    if stride == 4:
        resize_lines.mix_eight_pixels(row, offsets, 4, weights, quads, np.int32(14), out)
    else:
        resize_lines.mix_eight_pixels(row, offsets, 3, weights, quads, np.int32(14), out)


@njit
def mixed_rows(rows: int, pitch: int, weights: int, pairs: int, out: int) -> None:
    resize_lines.mix_rows(rows, pitch, weights, pairs, np.int32(14), out)


@njit
def slanted(image: int, side: int, x: int, y: int, step_x: int, step_y: int, out: int) -> None:
    vectors.copy_slanted(image, side, np.int32(x), np.int32(y), np.int32(step_x), np.int32(step_y), out)


@njit
def doubled(near: int, far: int, down: int, out: int) -> None:
    if down == 2:
        vectors.double_sixteen(near, far, 2, out)
    else:
        vectors.double_sixteen(near, far, 1, out)


@njit
def coloured(luma: int, blue: int, red: int, out: int) -> None:
    vectors.colour_sixteen(luma, blue, red, out)


@njit
def transformed(work: int, out: int, pitch: int) -> int:
    return transform_lines.transform_eight(work, out, pitch)


@njit
def found(source: int) -> int:
    return vectors.find_ones(source)


@njit
def copied(source: int, target: int) -> int:
    return vectors.copy_and_find_ones(source, target)


def check_pixels(rng: np.random.Generator) -> None:
    for stride in (3, 4):
        for quads in (1, 2, 5):
            source, out = rng.integers(0, 256, 200, np.uint8), np.zeros(32, np.uint8)
            offsets = rng.integers(0, 100, 8)
            shares = rng.multinomial(1 << 14, [1 / (4 * quads)] * (4 * quads), 8).astype(np.int16)
            # By pixels i and i + 4, quad, half and pair, to by quad, i, half, which, channel and pair.
            wide = shares.reshape(2, 4, quads, 2, 2).transpose(2, 1, 3, 0, 4)
            wide = np.ascontiguousarray(np.repeat(wide[:, :, :, :, None], 4, axis=4))
            mixed_pixels(*map(place, (source, offsets)), stride, place(wide), quads, place(out))
            assert np.array_equal(out.reshape(8, 4), plain_pixels(source, offsets, stride, shares))


def check_rows(rng: np.random.Generator) -> None:
    for pairs in (1, 2, 5):
        rows, out = rng.integers(0, 256, (2 * pairs, 50), np.uint8), np.zeros(32, np.uint8)
        shares = rng.multinomial(1 << 14, [1 / (2 * pairs)] * (2 * pairs)).astype(np.int16)
        mixed_rows(place(rows), 50, place(shares), pairs, place(out))
        sums = (rows[:, :32].astype(np.int64) * shares[:, None]).sum(0)
        assert np.array_equal(out, np.minimum((sums + (1 << 13)) >> 14, 255))


def check_slants(rng: np.random.Generator) -> None:
    for side in (32, 2048):
        image, out = rng.integers(0, 1 << 32, (side, side), np.uint32), np.zeros(8, np.uint32)
        for _ in range(20):
            (x, y), (far_x, far_y) = rng.integers(0, side << 16, (2, 2)).tolist()
            step_x, step_y = (far_x - x) // 8, (far_y - y) // 8
            slanted(place(image), side, x, y, step_x, step_y, place(out))
            expected = [image[(y + i * step_y) >> 16, (x + i * step_x) >> 16] for i in range(8)]
            assert out.tolist() == [int(pixel) for pixel in expected]


def check_stand_ins(rng: np.random.Generator) -> None:
    """Those that the trials put in the place of instructions are like them."""

    def same(ours: Callable[..., Any], theirs: Callable[..., Any], size: int, given: Sequence[Any]) -> Any:
        """What both return; they write into the place that `given` leaves open as None."""
        outs = [np.zeros(size, np.uint8) for _ in range(2)]
        results = []
        for function, out in zip((ours, theirs), outs, strict=True):
            filled = [out if each is None else each for each in given]
            results.append(
                function(*(place(each) if isinstance(each, np.ndarray) else each for each in filled))
            )
        assert results[0] == results[1]
        if results[0] != 0:
            assert np.array_equal(*outs)
        return results[0]

    for _ in range(20):
        near, far, red = (rng.integers(0, 256, 18, np.uint8)[1:] for _ in range(3))
        for down in (1, 2):
            same(doubled, jpeg_coverage._double_sixteen, 32, (near, far, down, None))
        same(coloured, jpeg_coverage._colour_sixteen, 64, (near, far, red, None))
        bytes_ = rng.choice([0, 254, 255], 32).astype(np.uint8)
        same(found, jpeg_coverage._find_ones, 0, (bytes_,))
        same(copied, jpeg_coverage._copy_and_find_ones, 32, (bytes_, None))
        for size, fits in ((10, 1), (300, 1), (9000, 0)):
            work = rng.normal(0, size, (8, 4, 8, 2)).clip(-16383, 16383).astype(np.int16)
            work[:] *= rng.random(work.shape) < 0.2
            assert same(transformed, jpeg_coverage._transform_eight, 8 * 70, (work, None, 70)) == fits


def place(array: np.ndarray) -> int:
    return int(array.ctypes.data)


CHECKS = (check_pixels, check_rows, check_slants, check_stand_ins)


@pytest.mark.parametrize("check", CHECKS)
def test_instructions_are_like_plain_numbers(check: Callable[[np.random.Generator], None]) -> None:
    check(np.random.default_rng(0))


def test_processors_without_avx2_give_the_same() -> None:
    root = Path(__file__).parents[2]
    env = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": str(root)}
    lines = "from tests.kernels.test_vectors import *; assert not AVX2"
    calls = "; ".join(f"{check.__name__}(np.random.default_rng(1))" for check in CHECKS)
    subprocess.run([sys.executable, "-c", f"{lines}; {calls}"], env=env, check=True)

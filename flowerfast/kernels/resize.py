"""Bilinear resize with antialias: torch's `interpolate` on uint8, level by level, as compiled loops.

Both round the weights to 16 bits with one precision per axis, resize along rows first and round to whole
levels in between, so the results are equal (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
"""

import math

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.vectors import mix_four_pixels


@kernel
def most_taps(size, out_size):
    """Neighbours that one output pixel is mixed from, at most."""
    support = max(size / out_size, 1.0)
    return min(math.ceil(support) * 2 + 1, size)


@kernel
def _reach(i, size, scale):
    """(first neighbour, how many, distance of the first from the centre) of output pixel i."""
    support = max(scale, 1.0)
    centre = scale * (i + 0.5)
    low = max(int(centre - support + 0.5), 0)
    count = min(int(centre + support + 0.5), size) - low
    return low, count, low - centre


@kernel
def _height(j, offset, inverse):
    """Triangle filter at the j-th neighbour."""
    distance = abs((j + offset + 0.5) * inverse)
    return 1.0 - distance if distance < 1.0 else 0.0


@kernel
def _total_and_peak(count, offset, inverse):
    total = peak = 0.0
    for j in range(count):
        height = _height(j, offset, inverse)
        total += height
        peak = max(peak, height)
    return total, peak


@kernel
def make_taps(size, out_size, first, starts, weights):
    """Neighbours and weights of the output pixels first, first + 1, ... along one axis.

    Args:
        size, out_size: of the axis, in pixels.
        starts: int64 (n,), becomes the first neighbour of each output pixel.
        weights: int32 (n * taps,) or longer, becomes their weights; all `taps` neighbours lie within the
            axis.

    Returns (taps, bits by which sums are to be shifted).
    """
    scale = size / out_size
    inverse = 1.0 / scale if scale >= 1.0 else 1.0
    taps = most_taps(size, out_size)
    largest = 0.0
    for i in range(out_size):  # all, not only those wanted: the precision is one for the axis
        _, count, offset = _reach(i, size, scale)
        total, peak = _total_and_peak(count, offset, inverse)
        largest = max(largest, peak / total)
    bits = 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    for n in range(len(starts)):
        low, count, offset = _reach(first + n, size, scale)
        total, _ = _total_and_peak(count, offset, inverse)
        starts[n] = min(low, size - taps)
        row = weights[n * taps : (n + 1) * taps]
        row[:] = 0
        for j in range(count):
            share = _height(j, offset, inverse) / total
            row[low - starts[n] + j] = np.int32(0.5 + share * (1 << bits))
    return taps, bits


@kernel
def widen(taps, stride, flip, starts, weights, offsets, wide):
    """The taps of a row in the form that `resize_row` takes, mirrored if `flip`.

    Args:
        stride: bytes per pixel of the row to come.
        starts, weights: as `make_taps` made them for n output pixels.
        offsets: int64 (n rounded up to 4,), becomes where each output pixel's neighbours start, in bytes.
        wide: int32 (n rounded up to 4) * taps * 4, becomes each weight four times, four pixels side by side.
    """
    side = len(starts)
    for x in range(len(offsets)):
        source = min(x, side - 1)
        if flip:
            source = side - 1 - source
        offsets[x] = starts[source] * stride
        for k in range(taps):
            at = ((x // 4) * taps + k) * 16 + (x % 4) * 4
            wide[at : at + 4] = weights[source * taps + k]


@kernel
def resize_row(row, stride, taps, bits, offsets, wide, out):
    """One row, at address `row` with `stride` bytes per pixel, into pixels of four bytes at address `out`.

    Reads a byte beyond the row's last pixel when `stride` is 3.
    """
    for block in range(len(offsets) // 4):
        mix_four_pixels(
            row,
            offsets.ctypes.data + block * 32,
            stride,
            wide.ctypes.data + block * taps * 64,
            taps,
            np.int32(bits),
            out + block * 16,
        )


@kernel
def resize_columns(rows, taps, bits, starts, weights, sums, out):
    """Columns of pixels of four bytes: uint8 (h, width) rows into uint8 (n, width).

    `sums` is scratch, int32 (width,); `starts` and `weights` as `make_taps` made them for n output rows.
    """
    half, shift = np.int32(1 << (bits - 1)), np.int32(bits)
    for y in range(len(starts)):
        sums[:] = half
        for k in range(taps):
            weight = weights[y * taps + k]
            if weight != 0:
                source = rows[starts[y] + k]
                for x in range(len(sums)):
                    sums[x] += np.int32(source[x]) * weight
        target = out[y]
        for x in range(len(sums)):
            target[x] = np.uint8(min(sums[x] >> shift, np.int32(255)))

"""Bilinear resize with antialias: torch's `interpolate` on uint8, level by level, as compiled loops.

Both round the weights to 16 bits with one precision per axis, resize along rows first and round to whole
levels in between, so the results are equal (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
"""

import math

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.vectors import address_of, mix_four_pixels, mix_rows

OVER = 5
"""Bytes that may be read behind the last pixel of a row: a pixel where taps are odd, and two more bytes."""


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
        weights: int16 (n * taps rounded up to 2,) or longer, becomes their weights, 0 for what is rounded up;
            all `taps` neighbours lie within the axis.

    Returns (taps, bits by which sums are to be shifted).
    """
    scale = size / out_size
    inverse = 1.0 / scale if scale >= 1.0 else 1.0
    largest, taps = 0.0, 0
    for i in range(out_size):  # all, not only those wanted: the precision is one for the axis
        _, count, offset = _reach(i, size, scale)
        total, peak = _total_and_peak(count, offset, inverse)
        largest = max(largest, peak / total)
        taps = max(taps, count)
    bits = 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    even = (taps + 1) // 2 * 2
    for n in range(len(starts)):
        low, count, offset = _reach(first + n, size, scale)
        total, _ = _total_and_peak(count, offset, inverse)
        starts[n] = min(low, size - taps)
        row = weights[n * even : (n + 1) * even]
        row[:] = 0
        for j in range(count):
            share = _height(j, offset, inverse) / total
            row[low - starts[n] + j] = np.int16(0.5 + share * (1 << bits))
    return taps, bits


@kernel
def widen(taps, stride, flip, starts, weights, offsets, wide):
    """The taps of a row in the form that `resize_row` takes, mirrored if `flip`.

    Args:
        stride: bytes per pixel of the row to come.
        starts, weights: as `make_taps` made them for n output pixels.
        offsets: int64 (n rounded up to 4,), becomes where each output pixel's neighbours start, in bytes.
        wide: int16 (n rounded up to 4, taps rounded up to 2, 4), becomes each pair of weights four times,
            four pixels side by side.
    """
    side, pairs = len(starts), (taps + 1) // 2
    for x in range(len(offsets)):
        source = min(x, side - 1)
        if flip:
            source = side - 1 - source
        offsets[x] = starts[source] * stride
        for k in range(pairs):
            at = ((x // 4) * pairs + k) * 32 + (x % 4) * 8
            first, second = weights[2 * (source * pairs + k)], weights[2 * (source * pairs + k) + 1]
            for channel in range(4):
                wide[at + 2 * channel], wide[at + 2 * channel + 1] = first, second


@kernel
def resize_row(row, stride, taps, bits, offsets, wide, out):
    """One row, at address `row` with `stride` bytes per pixel, 3 or 4, into pixels of four bytes at `out`.

    Reads up to `OVER` bytes behind the row's last pixel.
    """
    pairs, shift = (taps + 1) // 2, np.int32(bits)
    start, weights = address_of(offsets), address_of(wide)
    for block in range(len(offsets) // 4):
        at, mixed, target = start + block * 32, weights + block * pairs * 64, out + block * 16
        if stride == 4:
            mix_four_pixels(row, at, 4, mixed, pairs, shift, target)
        else:
            mix_four_pixels(row, at, 3, mixed, pairs, shift, target)


@kernel
def resize_columns(rows, taps, bits, starts, weights, out):
    """Columns of bytes: uint8 (h, width) rows into uint8 (n, width); `width` is a multiple of 16.

    `starts` and `weights` as `make_taps` made them for n output rows. One row behind the last is read.
    """
    pairs, shift, pitch = (taps + 1) // 2, np.int32(bits), rows.shape[1]
    source, mixed, target = address_of(rows), address_of(weights), address_of(out)
    for y in range(len(starts)):
        upper, share, line = source + starts[y] * pitch, mixed + y * pairs * 4, target + y * out.shape[1]
        for x in range(0, pitch, 16):
            mix_rows(upper + x, pitch, share, pairs, shift, line + x)

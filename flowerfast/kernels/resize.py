"""Bilinear resize with antialias: torch's `interpolate` on uint8, level by level, as compiled loops.

Both round the weights to 16 bits with one precision per axis, resize along rows first and round to whole
levels in between, so the results are equal (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
"""

import math

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.resize_lines import QUAD, mix_eight_pixels, mix_rows
from flowerfast.kernels.vectors import address_of

OVER = 13
"""Bytes that may be read behind the last pixel of a row: sixteen are read of a last pixel of three."""
BLOCK = 8
"""Pixels of a row that are made at once."""


def room_for(side, taps):
    """(pixels of a resized row, with those that rows are filled up with; length of `wide`), see `widen`."""
    across = max(-(-side // 4) * 4, BLOCK)
    return across, -(-across // BLOCK) * BLOCK * -(-taps // QUAD) * 2 * QUAD


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
        offsets: int64 (n rounded up to BLOCK or more,), becomes where each output pixel's neighbours start,
            in bytes; those filled up repeat the last.
        wide: int32, see `room_for`; becomes pairs of weights, in the order of `mix_eight_pixels`.
    """
    side, even, quads = len(starts), (taps + 1) // 2 * 2, -(-taps // QUAD)
    for x in range(len(offsets)):
        source = min(x, side - 1)
        if flip:
            source = side - 1 - source
        offsets[x] = starts[source] * stride
        place = (x // BLOCK * quads * 8 + x % 4 * 2) * 8 + x % BLOCK // 4 * 4
        for k in range(0, QUAD * quads, 2):
            pair = 0
            if k < even:
                pair = weights[source * even + k] | weights[source * even + k + 1] << 16
            at = place + k // QUAD * 64 + k % QUAD // 2 * 8
            for channel in range(4):
                wide[at + channel] = pair


@kernel
def resize_row(row, stride, taps, bits, offsets, wide, out):
    """One row, at address `row` with `stride` bytes per pixel, 3 or 4, into pixels of four bytes at `out`.

    Reads up to `OVER` bytes behind the row's last pixel, and writes whole BLOCKs.
    """
    quads, shift = -(-taps // QUAD), np.int32(bits)
    start, weights = address_of(offsets), address_of(wide)
    for block in range(len(offsets) // BLOCK):
        at, mixed, target = start + block * 64, weights + block * quads * 256, out + block * 32
        if stride == 4:
            mix_eight_pixels(row, at, 4, mixed, quads, shift, target)
        else:
            mix_eight_pixels(row, at, 3, mixed, quads, shift, target)


@kernel
def resize_columns(rows, taps, bits, starts, weights, out):
    """Columns of bytes: uint8 (h, width) rows into uint8 (n, width); `width` is 32 or more.

    `starts` and `weights` as `make_taps` made them for n output rows. One row behind the last is read.
    """
    pairs, shift, pitch = (taps + 1) // 2, np.int32(bits), rows.shape[1]
    source, mixed, target = address_of(rows), address_of(weights), address_of(out)
    for y in range(len(starts)):
        upper, share, line = source + starts[y] * pitch, mixed + y * pairs * 4, target + y * out.shape[1]
        for x in range(0, pitch, 32):
            at = min(x, pitch - 32)  # the last ones once more, rather than those behind
            mix_rows(upper + at, pitch, share, pairs, shift, line + at)

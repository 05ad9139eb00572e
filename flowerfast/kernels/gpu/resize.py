"""Bilinear resize with antialias on the GPU: the arithmetic of `kernels.resize`, and so its pixels.

One kernel makes the taps of both axes, another mixes the pixels from them. No row of the photo is resized in
between: each pixel of the result asks for its own neighbours. When shrinking, a source pixel is asked for
about four times, mostly by one program: all but the first find it in the multiprocessor's cache.

Sums, quotients and products must be rounded one by one, as on the CPU: launch with enable_fp_fusion=False.
"""

import triton
import triton.language as tl

from flowerfast.kernels.gpu import COLUMNS

AT = {name: tl.constexpr(place) for place, name in enumerate(COLUMNS)}
"""Where the kernels find a column."""
WIDE = tl.constexpr(len(COLUMNS))
PITCH, STEP, FLIP = AT["pitch"], AT["step"], AT["flip"]
# Of each of these the next column has the same along the other axis.
HEIGHT, OUT_HEIGHT, FROM_ROW, TAPS_DOWN = AT["height"], AT["out_height"], AT["from_row"], AT["taps_down"]
OUT_WIDTH, FROM_COLUMN, TAPS_ACROSS = AT["out_width"], AT["from_column"], AT["taps_across"]
MOST_BITS = tl.constexpr(22)


@triton.jit
def _reach(i, size, scale):
    """(first neighbour, how many, distance of the first from the centre) of output pixels i."""
    support = tl.maximum(scale, 1.0)
    centre = scale * (i.to(tl.float64) + 0.5)
    low = tl.maximum((centre - support + 0.5).to(tl.int32), 0)
    count = tl.minimum((centre + support + 0.5).to(tl.int32), size) - low
    return low, count, low.to(tl.float64) - centre


@triton.jit
def _total_and_peak(count, offset, inverse, taps):
    """Sum and largest of the triangle filter at the neighbours."""
    total = tl.zeros_like(offset)
    peak = tl.zeros_like(offset)
    for j in range(taps):
        distance = tl.abs((j + offset + 0.5) * inverse)
        height = tl.where((j < count) & (distance < 1.0), 1.0 - distance, 0.0)
        total += height
        peak = tl.maximum(peak, height)
    return tl.where(total > 0.0, total, 1.0), peak  # 0 where there is no such output pixel


@triton.jit(do_not_specialize=["most"])
def make_taps(plan, starts, weights, bits, most, SIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Neighbours and weights of the output pixels of both axes; grid (n, 2, SIDE / BLOCK rounded up).

    Args:
        plan: int32 (n, COLUMNS).
        starts: int32 (n, 2, SIDE), becomes the first neighbour of each output pixel, down and across.
        weights: int32 (n, 2, most, SIDE), the first taps of which become their weights.
        bits: int32 (n, 2), becomes the bits by which sums are to be shifted.
        most: the most taps that any sample has.
    """
    axis, lanes = tl.program_id(1), tl.arange(0, BLOCK)
    mine = plan + tl.program_id(0) * WIDE + axis
    size, out, taps = tl.load(mine + HEIGHT), tl.load(mine + OUT_HEIGHT), tl.load(mine + TAPS_DOWN)
    scale = size.to(tl.float64) / out.to(tl.float64)
    inverse = 1.0 / tl.maximum(scale, 1.0)
    largest = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, out, BLOCK):  # all, not only those wanted: the precision is one for the axis
        _, count, offset = _reach(first + lanes, size, scale)
        total, peak = _total_and_peak(count, offset, inverse, taps)
        largest = tl.maximum(largest, tl.where(first + lanes < out, peak / total, 0.0))
    powers = tl.arange(0, 32)
    doubled = (2 << tl.minimum(powers, MOST_BITS - 1)).to(tl.float64)
    fits = ((0.5 + tl.max(largest) * doubled).to(tl.int32) < 32768) & (powers < MOST_BITS)
    shift = tl.sum(fits.to(tl.int32))
    one = (1 << shift).to(tl.float64)
    place = tl.program_id(0).to(tl.int64) * 2 + axis
    tl.store(bits + place, shift)
    i = tl.program_id(2) * BLOCK + lanes
    position = tl.minimum(tl.maximum(i + tl.load(mine + FROM_ROW), 0), out - 1)
    low, count, offset = _reach(position, size, scale)
    total, _ = _total_and_peak(count, offset, inverse, taps)
    start = tl.minimum(low, size - taps)
    tl.store(starts + place * SIDE + i, start, mask=i < SIDE)
    for k in range(taps):
        j = start + k - low
        distance = tl.abs((j + offset + 0.5) * inverse)
        height = tl.where((j >= 0) & (j < count) & (distance < 1.0), 1.0 - distance, 0.0)
        weight = (0.5 + height / total * one).to(tl.int32)
        tl.store(weights + (place * most + k) * SIDE + i, weight, mask=i < SIDE)


@triton.jit(do_not_specialize=["most"])
def resize(photos, plan, starts, weights, bits, most, images, SIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Windows into squares, flipped where the plan says so; grid (n, 3 * SIDE * SIDE / BLOCK rounded up).

    Args:
        photos: int64 (n,), address of the first pixel of each window, three bytes of RGB.
        plan, starts, weights, bits, most: as `make_taps` had and made them.
        images: uint8 (n, SIDE, SIDE, 3), becomes the part of the resized window at (from_row, from_column),
            black beyond its edge.
    """
    n, mine = tl.program_id(0).to(tl.int64), plan + tl.program_id(0) * WIDE
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    channel, x, y = at % 3, at // 3 % SIDE, at // (3 * SIDE)
    x = tl.where(tl.load(mine + FLIP) != 0, SIDE - 1 - x, x)
    row, column = y + tl.load(mine + FROM_ROW), x + tl.load(mine + FROM_COLUMN)
    inside = (row >= 0) & (row < tl.load(mine + OUT_HEIGHT)) & (y < SIDE)
    inside &= (column >= 0) & (column < tl.load(mine + OUT_WIDTH))
    down, across = n * 2, n * 2 + 1
    pitch, step = tl.load(mine + PITCH).to(tl.int64), tl.load(mine + STEP).to(tl.int64)
    window = tl.load(photos + n).to(tl.pointer_type(tl.uint8)) + channel
    window += tl.load(starts + down * SIDE + y, mask=inside, other=0) * pitch
    window += tl.load(starts + across * SIDE + x, mask=inside, other=0) * step
    weights_down = weights + down * most * SIDE + y
    shift_down, shift_across = tl.load(bits + down), tl.load(bits + across)
    taps_down, taps_across = tl.load(mine + TAPS_DOWN), tl.load(mine + TAPS_ACROSS)
    total = tl.zeros((BLOCK,), tl.int32) + (1 << (shift_down - 1))
    for _ in range(taps_down):
        line = tl.zeros((BLOCK,), tl.int32) + (1 << (shift_across - 1))
        source, weights_across = window, weights + across * most * SIDE + x
        for _ in range(taps_across):
            level = tl.load(source, mask=inside, other=0).to(tl.int32)
            line += level * tl.load(weights_across, mask=inside, other=0)
            source += step
            weights_across += SIDE
        # Rounded to a whole level in between, as there.
        total += tl.minimum(line >> shift_across, 255) * tl.load(weights_down, mask=inside, other=0)
        window += pitch
        weights_down += SIDE
    level = tl.where(inside, tl.minimum(total >> shift_down, 255), 0)
    tl.store(images + n * (3 * SIDE * SIDE) + at, level.to(tl.uint8), mask=y < SIDE)

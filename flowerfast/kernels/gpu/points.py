"""Rotation, brightness, contrast and shift of square images on the GPU, as Pillow does them.

The contrast needs the mean grey level of the whole turned image, so two kernels share the work: one adds up
grey levels, the other makes the pixels. Neither writes the turned image down: both look their pixels up in
the image before the turn. Levels are added as whole numbers, part by part: the order in which the GPU goes
about it makes no difference.

Products and sums must be rounded one by one, as on the CPU: launch with enable_fp_fusion=False.
"""

import triton
import triton.language as tl

from flowerfast.kernels.gpu.resize import AT, WIDE

BEFORE, CONTRAST, AFTER = AT["before"], AT["contrast"], AT["after"]
TURN_X, RIGHT_X, DOWN_X = AT["turn_x"], AT["right_x"], AT["down_x"]
TURN_Y, RIGHT_Y, DOWN_Y = AT["turn_y"], AT["right_y"], AT["down_y"]
SHIFT_X, SHIFT_Y = AT["shift_x"], AT["shift_y"]


@triton.jit
def _blend(level, factor, centre):
    """clamp(centre + factor * (level - centre)), truncated to int32: Pillow's blend, in float32 as there."""
    blended = centre + factor * (level.to(tl.float32) - centre)
    return tl.minimum(tl.maximum(blended, 0.0), 255.0).to(tl.int32)


@triton.jit
def _turned(mine, x, y, SIDE: tl.constexpr):
    """(which pixel of the image, whether there is one) the pixels (x, y) of the turned image show.

    Nearest neighbour, positions in 16.16 fixed-point numbers as in Pillow's `rotate` (Geometry.c).
    """
    across = tl.load(mine + TURN_X) + tl.load(mine + RIGHT_X) * x + tl.load(mine + DOWN_X) * y
    down = tl.load(mine + TURN_Y) + tl.load(mine + RIGHT_Y) * x + tl.load(mine + DOWN_Y) * y
    inside = (across >= 0) & (across < SIDE << 16) & (down >= 0) & (down < SIDE << 16)
    return (down >> 16) * SIDE + (across >> 16), inside


@triton.jit
def add_grey(plan, images, sums, SIDE: tl.constexpr, BLOCK: tl.constexpr):
    """Grey levels of the turned images, after the brightness if that is first, added up in parts.

    Args:
        plan: int32 (n, COLUMNS).
        images: uint8 (n, SIDE, SIDE, 3).
        sums: int32 (n, parts), where parts = SIDE * SIDE / BLOCK rounded up, and (n, parts) is the grid.
    """
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    mine = plan + tl.program_id(0) * WIDE
    at = part * BLOCK + tl.arange(0, BLOCK)
    pixel, inside = _turned(mine, at % SIDE, at // SIDE, SIDE)
    inside &= at < SIDE * SIDE
    source = images + n * (3 * SIDE * SIDE) + pixel * 3
    factor = tl.load(mine + BEFORE).to(tl.float32, bitcast=True)
    red = _blend(tl.load(source, mask=inside, other=0), factor, 0.0)
    green = _blend(tl.load(source + 1, mask=inside, other=0), factor, 0.0)
    blue = _blend(tl.load(source + 2, mask=inside, other=0), factor, 0.0)
    grey = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16  # 0 where there is no pixel
    tl.store(sums + n * tl.num_programs(1) + part, tl.sum(grey))


@triton.jit
def finish(
    plan, images, sums, out, SIDE: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, ROOM: tl.constexpr
):
    """Turned, jittered and shifted images; grid (n, 3 * SIDE * SIDE / BLOCK rounded up).

    Args:
        plan, images: as `add_grey` had them.
        sums: int32 (n, PARTS), as it made them. ROOM is the least power of 2 that is no less than PARTS.
        out: uint8 (n, SIDE, SIDE, 3), becomes the pixels; black where the shift leaves nothing.
    """
    n, mine = tl.program_id(0).to(tl.int64), plan + tl.program_id(0) * WIDE
    parts = tl.arange(0, ROOM)
    total = tl.sum(tl.load(sums + n * PARTS + parts, mask=parts < PARTS, other=0))
    # Rounded to a whole level as Pillow has it. Up to a SIDE of 2,048 all of this stays below 2**31.
    centre = ((2 * total + SIDE * SIDE) // (2 * SIDE * SIDE)).to(tl.float32)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x, y = at // 3 % SIDE - tl.load(mine + SHIFT_X), at // (3 * SIDE) - tl.load(mine + SHIFT_Y)
    there = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
    pixel, inside = _turned(mine, x, y, SIDE)
    first = n * (3 * SIDE * SIDE)
    level = tl.load(images + first + pixel * 3 + at % 3, mask=there & inside, other=0)
    level = _blend(level, tl.load(mine + BEFORE).to(tl.float32, bitcast=True), 0.0)
    level = _blend(level, tl.load(mine + CONTRAST).to(tl.float32, bitcast=True), centre)
    level = _blend(level, tl.load(mine + AFTER).to(tl.float32, bitcast=True), 0.0)
    tl.store(out + first + at, tl.where(there, level, 0).to(tl.uint8), mask=at < 3 * SIDE * SIDE)

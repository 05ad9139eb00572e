"""Which blocks of a photo are wanted, how their coefficients lie in memory, and their samples."""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.jpeg_transform import LANES, inverse_transform, shrinking_transform


class Region(NamedTuple):
    """MCUs from (top, left) up to, not including, (bottom, right), and how their samples lie in memory.

    Attributes:
        luma, chroma: samples along an edge of a block, after the transform: 8, or less to shrink the photo.
        across, down: luma samples per chroma sample, after the transform: 1 or 2.
        width, height: of the whole photo, after the transform, in pixels.
        luma_groups, chroma_groups: of LANES blocks, along a row of blocks; no chroma groups in a grey photo.
        blue, red, size: where the planes of chroma begin, and where they end, in bytes; luma begins at 0.
    """

    top: int
    left: int
    bottom: int
    right: int
    luma: int
    chroma: int
    across: int
    down: int
    width: int
    height: int
    luma_groups: int
    chroma_groups: int
    blue: int
    red: int
    size: int


@kernel
def region_of(frame, shrink, top, left, height, width):
    """The MCUs that a window of a photo needs, with those its chroma is smoothed with.

    The window is in pixels of the photo decoded to 1 / `shrink` of its size, 1, 2, 4 or 8, rounded up.
    """
    luma = 8 // shrink
    # Where chroma has half the samples both ways it is shrunk by half as much, and needs no smoothing.
    twice = shrink > 1 and frame.across == 2 and frame.down == 2
    chroma, across, down = (2 * luma, 1, 1) if twice else (luma, frame.across, frame.down)
    tall, wide = luma * frame.down, luma * frame.across
    photo_height, photo_width = -(-frame.height // shrink), -(-frame.width // shrink)
    first, start = max(top - 2, 0) // tall, max(left - 2, 0) // wide
    last = -(-min(top + height + 2, photo_height) // tall)
    end = -(-min(left + width + 2, photo_width) // wide)
    luma_groups = -(-(end - start) * frame.across // LANES)
    chroma_groups = -(-(end - start) // LANES) if frame.components == 3 else 0
    blue = luma_groups * LANES * luma * (last - first) * tall
    plane = chroma_groups * LANES * chroma * (last - first) * chroma
    return Region(
        first,
        start,
        last,
        end,
        luma,
        chroma,
        across,
        down,
        photo_width,
        photo_height,
        luma_groups,
        chroma_groups,
        blue,
        blue + plane,
        blue + 2 * plane,
    )


@kernel
def layout_of(frame, region):
    """Blocks of an MCU in the order of the file, int64 (blocks, 4), and the coefficients of a row of MCUs.

    Of each block: its component, where the row of blocks that it belongs to begins among the coefficients,
    how many blocks of that row an MCU has, and which of them it is.
    """
    luma = frame.across * frame.down
    blocks = np.empty((luma + 2 if frame.components == 3 else luma, 4), np.int64)
    wide = region.luma_groups * 64 * LANES
    for n in range(luma):
        line = n // frame.across
        blocks[n, 0], blocks[n, 1] = 0, line * wide
        blocks[n, 2], blocks[n, 3] = frame.across, n - line * frame.across
    count = wide * frame.down
    for n in range(luma, len(blocks)):
        blocks[n, 0], blocks[n, 1], blocks[n, 2], blocks[n, 3] = n - luma + 1, count, 1, 0
        count += region.chroma_groups * 64 * LANES
    return blocks, count


@part
def start_of(blocks, n, mcu):
    """Where the first coefficient of an MCU's n-th block lies in its row; `blocks` are of `layout_of`."""
    place = mcu * blocks[n, 2] + blocks[n, 3]
    return blocks[n, 1] + place // LANES * (64 * LANES) + 2 * (place % LANES)


@kernel
def coefficient_count(frame, region):
    """Length of the scratch that `read_planes` needs."""
    return (region.luma_groups * frame.down + 2 * region.chroma_groups) * 64 * LANES


@kernel
def transform_band(coefficients, scratch, planes, region, where):
    """Samples of one row of MCUs: `where` is its number in the region, and its rows of luma blocks.

    `scratch` is int32 (64 * LANES,). False when libjpeg's, reckoned in 16 bits, may be others.
    """
    number, down = where
    at, good = 0, True
    for line in range(down + 2):
        luma = line < down
        groups, size = (region.luma_groups, region.luma) if luma else (region.chroma_groups, region.chroma)
        pitch = groups * LANES * size
        origin = 0 if luma else (region.blue if line == down else region.red)
        row = origin + (number * down + line if luma else number) * size * pitch
        for group in range(groups):
            work = coefficients[at : at + 64 * LANES]
            out = planes[row + group * LANES * size :]
            if size == 8:
                good = inverse_transform(work, out, pitch) and good
            else:
                good = shrinking_transform(work, scratch, size, out, pitch) and good
            at += 64 * LANES
    return good

"""Entropy-coded data to planes of samples, for the part of a photo that is wanted.

Huffman codes follow one another without marks, so all of them down to the last wanted row are read; but only
wanted blocks are kept and transformed, and below is only looked for markers. A file that is not in perfect
order is refused, not repaired: what a damaged photo shall look like is for the reference decoder to say.
"""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_markers import END, data_end, has_marker
from flowerfast.kernels.jpeg_tables import END_OF_BLOCK, LOOK, ZIGZAG, describe, extend
from flowerfast.kernels.jpeg_transform import LANES, inverse_transform, shrinking_transform
from flowerfast.kernels.vectors import load_big_endian

_DROP = np.uint64(64 - LOOK)
_PLACE = (ZIGZAG * LANES).astype(np.uint64)


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
def _refill(data, end, state):
    """At least 56 bits in the buffer: state is (bits, how many, next byte, how many of them are made up)."""
    buffer, count, at, made_up = state
    if at + 8 <= end:
        word = load_big_endian(data.ctypes.data + at)
        if not has_marker(word):
            taken = (64 - count) >> 3
            return buffer | (word >> np.uint64(count)), count + 8 * taken, at + taken, made_up
    while count <= 56:
        byte = np.uint64(0)
        if at < end and data[at] != 0xFF:
            byte = np.uint64(data[at])
            at += 1
        elif at + 1 < end and data[at] == 0xFF and data[at + 1] == 0:
            byte = np.uint64(0xFF)
            at += 2
        else:  # a marker, or the end of the file
            made_up += 8
        buffer |= byte << np.uint64(56 - count)
        count += 8
    return buffer, count, at, made_up


@kernel
def _long_code(tables, row, buffer):
    """Entry for a code of more than LOOK bits, or 0 when there is none such."""
    for length in range(LOOK + 1, 17):
        code = np.int64(buffer >> np.uint64(64 - length)) - np.int64(tables.first[row, length])
        if 0 <= code < tables.counts[row, length]:
            symbol = np.int64(tables.symbols[row, tables.at[row, length] + code])
            return describe(symbol, length, row >= 4, tables.most[row])
    return 0


@kernel
def _restart(data, end, state, expected):
    """State behind a restart marker; `made_up` is -1 when the marker is not where it should be."""
    _, count, at, made_up = state
    good = made_up <= count < made_up + 8 and at + 2 <= end and data[at] == 0xFF and data[at + 1] == expected
    return np.uint64(0), 0, at + 2, 0 if good else -1


@kernel
def _layout(frame, region):
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


@kernel
def read_planes(data, tables, region, coefficients, planes):
    """Samples of the region: True when the data were in order, False to take another decoder.

    Args:
        data: uint8 (bytes,), a file of which `read_header` has read the header.
        region: what is wanted.
        coefficients: int32 scratch, at least `coefficient_count(frame, region)` long.
        planes: uint8, at least region.size long; samples of luma, then of both chroma planes, go there.
    """
    frame = tables.frame[0]
    end = len(data)
    mcus = -(-frame.width // (8 * frame.across))
    blocks, band = _layout(frame, region)
    square = np.empty(64 * LANES, np.uint8)
    interval, left, right = frame.interval, region.left, region.right
    buffer, count, at, made_up = np.uint64(0), np.int64(0), np.int64(frame.scan), np.int64(0)
    previous = np.zeros(3, np.int64)
    until_restart, marker = interval, 0
    for mcu_row in range(region.bottom):
        wanted_row = mcu_row >= region.top
        if wanted_row:
            coefficients[:band] = 0
        for mcu in range(mcus):
            if interval:
                if until_restart == 0:
                    buffer, count, at, made_up = _restart(
                        data, end, (buffer, count, at, made_up), 0xD0 + marker
                    )
                    if made_up < 0:
                        return False
                    previous[:] = 0
                    until_restart, marker = interval, (marker + 1) & 7
                until_restart -= 1
            wanted = wanted_row and left <= mcu < right
            for block in blocks:
                component = np.uint64(block[0])
                if count < 32:
                    buffer, count, at, made_up = _refill(data, end, (buffer, count, at, made_up))
                row = np.uint64(frame.dc[component])
                entry = np.int64(tables.fast[row, buffer >> _DROP])
                if entry == 0:
                    entry = _long_code(tables, row, buffer)
                    if entry == 0:
                        return False
                buffer <<= np.uint64(entry & 63)
                count -= entry & 63
                size, value = (entry >> 10) & 15, entry >> 16
                if size:
                    value = extend(np.int64(buffer >> np.uint64(64 - size)), size)
                    buffer <<= np.uint64(size)
                    count -= size
                previous[component] += value
                place = (mcu - left) * block[2] + block[3]
                base = np.uint64(block[1] + (place >> 3) * (64 * LANES) + (place & 7))
                quant = tables.quant[np.uint64(frame.quant[component])]
                if wanted:
                    level = previous[component] * quant[0]
                    if level != np.int16(level):
                        return False  # libjpeg reckons in 16 bits
                    coefficients[base] = np.int32(level)
                row = np.uint64(frame.ac[component])
                fast = tables.fast[row]
                k = np.uint64(1)
                while k < np.uint64(64):
                    if count < 32:
                        buffer, count, at, made_up = _refill(data, end, (buffer, count, at, made_up))
                    entry = np.int64(fast[buffer >> _DROP])
                    if entry == 0:
                        entry = _long_code(tables, row, buffer)
                        if entry == 0:
                            return False
                    buffer <<= np.uint64(entry & 63)
                    count -= entry & 63
                    if entry & END_OF_BLOCK:
                        break
                    size, value = (entry >> 10) & 15, entry >> 16
                    if size:
                        value = extend(np.int64(buffer >> np.uint64(64 - size)), size)
                        buffer <<= np.uint64(size)
                        count -= size
                    k += np.uint64((entry >> 6) & 15)
                    if k > np.uint64(63):
                        return False
                    if wanted:
                        coefficients[base + _PLACE[k]] = np.int32(value * quant[k])
                    k += np.uint64(1)
                if count < made_up:
                    return False  # ran past the end of the data
        if wanted_row:
            where = mcu_row - region.top, frame.down
            if not _transform_band(coefficients, square, planes, region, where):
                return False
    # What lies below changes no pixel here. But of a marker that has no place there libjpeg makes an error,
    # of wrong codes alone never.
    at = data_end(data, at, interval, marker)
    return at >= 0 and data[at + 1] == END


@kernel
def coefficient_count(frame, region):
    """Length of the scratch that `read_planes` needs."""
    return (region.luma_groups * frame.down + 2 * region.chroma_groups) * 64 * LANES


@kernel
def _transform_band(coefficients, square, planes, region, where):
    """Samples of one row of MCUs: `where` is its number in the region, and its rows of luma blocks.

    False when libjpeg's, reckoned in 16 bits, may be others.
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
                good = inverse_transform(work, square, out, pitch) and good
            else:
                good = shrinking_transform(work, size, out, pitch) and good
            at += 64 * LANES
    return good

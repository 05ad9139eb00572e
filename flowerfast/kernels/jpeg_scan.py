"""Baseline JPEGs: entropy-coded data to planes of samples, for the part of a photo that is wanted.

Huffman codes follow one another without marks, so all of them down to the last wanted row are read; but only
wanted blocks are kept and transformed, and below is only looked for markers. Where there are restart markers,
codes between two of them are read only if a wanted block is among them. A file that is not in perfect
order is refused, not repaired: what a damaged photo shall look like is for the reference decoder to say.
"""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_blocks import layout_of, start_of, transform_band
from flowerfast.kernels.jpeg_codes import (
    codes_of,
    next_difference,
    pass_block,
    plain_bytes,
    position,
    read_block,
)
from flowerfast.kernels.jpeg_markers import END, data_end, pass_restarts
from flowerfast.kernels.jpeg_tables import MOST
from flowerfast.kernels.jpeg_transform import LANES
from flowerfast.kernels.vectors import address_of


@kernel
def read_baseline(data, tables, region, coefficients, planes, stream):
    """Samples of the region of a baseline file, see `jpeg_planes`."""
    keeping = len(planes) == 0
    frame = tables.frame[0]
    mcus = -(-frame.width // (8 * frame.across))
    blocks, band = layout_of(frame, region)
    scratch = np.empty(64 * LANES, np.int32)
    interval = frame.interval
    dc, ac, quant = frame.dc.copy(), frame.ac.copy(), frame.quant.copy()
    previous = np.zeros(3, np.int64)
    length, at = plain_bytes(data, frame.scan, stream)
    begin, begin_c, steps, codes = (
        address_of(stream),
        address_of(coefficients),
        address_of(tables.quant),
        codes_of(tables),
    )
    bits, end = (np.uint64(0), np.uint64(0), begin), 8 * (begin + length)
    # `next_mcu` is the number of the next one in the file; a restart marker follows `left_over` MCUs later.
    next_mcu, left_over, marker = 0, interval, 0
    for mcu_row in range(region.top, region.bottom):
        first, last = mcu_row * mcus + region.left, mcu_row * mcus + region.right
        row = mcu_row - region.top
        kept = row * band if keeping else 0
        coefficients[kept : kept + band] = 0
        while next_mcu < last:
            ahead = first - next_mcu - left_over
            if interval and (left_over == 0 or ahead >= 0):
                if left_over == 0 and not 0 <= end - position(bits) < 8:
                    return False
                passed = max(ahead, 0) // interval
                at = pass_restarts(data, at, marker, passed + 1) if at >= 0 else at
                if at < 0:
                    return False
                next_mcu += left_over + passed * interval
                left_over, marker = interval, (marker + passed + 1) & 7
                length, at = plain_bytes(data, at, stream)
                bits, end = (np.uint64(0), np.uint64(0), begin), 8 * (begin + length)
                previous[:] = 0
            wanted = next_mcu >= first
            for n in range(len(blocks)):
                component = np.uint64(blocks[n, 0])
                bits, difference, good = next_difference(codes, dc[component], bits)
                if not good:
                    return False
                previous[component] += difference
                if wanted:
                    base = kept + start_of(blocks, n, next_mcu - first)
                    table = quant[component]
                    level = previous[component] * tables.quant[table, 0]
                    if abs(level) > MOST:
                        return False  # libjpeg reckons in 16 bits
                    coefficients[base] = np.int16(level)
                    bits, good = read_block(
                        codes, ac[component], steps + 256 * table, bits, begin_c + 2 * base
                    )
                else:
                    bits, good = pass_block(codes, ac[component], bits)
                if not good or position(bits) > end:
                    return False  # no code, or past the end of the data
            next_mcu += 1
            left_over -= 1
        if not keeping and not transform_band(coefficients, scratch, planes, region, (row, frame.down)):
            return False
    # What lies below changes no pixel here. But of a marker that has no place there libjpeg makes an error,
    # of wrong codes alone never.
    at = data_end(data, at, interval, marker) if at >= 0 else at
    return at >= 0 and data[at + 1] == END

"""Progressive JPEGs (ITU-T T.81, annex G): coefficients of all scans, for the part of a photo that is wanted.

Each scan brings some bits of some coefficients of all blocks. Which coefficients of a block are not 0 must be
known of all of them, for it decides where codes end; values are kept of wanted blocks alone. Files that leave
bits out, which libjpeg makes up for by smoothing, and all that is not in perfect order are refused.
"""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.jpeg_blocks import layout_of, start_of, transform_band
from flowerfast.kernels.jpeg_codes import dropped, filled, plain_bytes, position
from flowerfast.kernels.jpeg_header import find_tables
from flowerfast.kernels.jpeg_markers import END, data_end, two
from flowerfast.kernels.jpeg_tables import LOOK, MOST, extend, most_bits, read_symbols
from flowerfast.kernels.jpeg_transform import LANES, PLACE
from flowerfast.kernels.vectors import (
    address_of,
    count_trailing_zeros,
    load_int16,
    load_int32,
    load_uint16,
    store_int16,
)

_u8 = np.uint64
_DROP, _ONE = _u8(64 - LOOK), _u8(1)
_MOST_SCANS = 100
_MOST_SHIFT = 13  # bits that a first scan leaves out at most (T.81, G.1.1.1.2)
_DC_BITS = 11
_REFUSED = -1


class _Scan(NamedTuple):
    """One scan of one component, or of all (a DC scan).

    Attributes:
        component: -1 for all.
        first, last: coefficients, from 0 to 63.
        high, low: bits left out before this scan (0: it is the first) and after it.
    """

    component: int
    first: int
    last: int
    high: int
    low: int


@kernel
def mask_count(frame, region):
    """Blocks of which `read_progressive` notes which coefficients are not 0."""
    wide, mcus = -(-frame.width // (8 * frame.across)), frame.across * frame.down + 2
    return wide * mcus * region.bottom


@kernel
def read_progressive(data, tables, region, coefficients, planes, stream, masks):
    """Samples of the region of a progressive file, see `jpeg_planes`.

    `masks` is scratch, uint64: which coefficients of a block are not 0, bit k for the k-th, of all blocks
    down to the region's last row.
    """
    frame = tables.frame[0]
    blocks, band = layout_of(frame, region)
    rows = region.bottom - region.top
    coefficients[: band * rows] = 0
    masks[: mask_count(frame, region)] = 0
    known = np.full((3, 64), -1, np.int64)  # bits of each coefficient that are still left out; -1: all are
    at, end, scans = frame.first, len(data), 0
    built = np.zeros(8, np.int64)
    while True:
        if at < 0 or at + 2 > end or data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == END:
            break
        if at + 4 > end:
            return False
        body, stop = at + 4, at + 2 + two(data, at + 2)
        if stop < body or stop > end:
            return False
        at = stop
        if marker == 0xC4:
            if not find_tables(data, body, stop, True, frame):
                return False
        elif marker == 0xDD:
            if stop - body != 2:
                return False
            frame.interval = two(data, body)
        elif marker == 0xDA:
            scans += 1
            scan = _read_scan(data, body, stop, frame, known)
            if scan.low == _REFUSED or scans > _MOST_SCANS or not _build(data, tables, scan, built):
                return False
            frame.scan = stop
            if scan.first == 0:
                at = _dc_scan(data, tables, scan, region, blocks, band, coefficients, stream)
            else:
                at = _ac_scan(data, tables, scan, region, blocks, band, coefficients, stream, masks)
        elif not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            return False
    for c in range(frame.components):
        for k in range(64):
            if known[c, k] != 0:
                return False  # libjpeg smooths what it does not know
    scratch = np.empty(64 * LANES, np.int32)
    for row in range(rows if len(planes) else 0):
        work = coefficients[row * band : (row + 1) * band]
        if not transform_band(work, scratch, planes, region, (row, frame.down)):
            return False
    return True


@kernel
def _read_scan(data, body, stop, frame, known):
    """What a scan brings (T.81, G.1.1.1); its `low` is _REFUSED where that is out of order."""
    refused = _Scan(0, 0, 0, 0, _REFUSED)
    if stop - body < 6:
        return refused
    count = np.int64(data[body])
    if stop - body != 4 + 2 * count or (count != 1 and count != frame.components):
        return refused
    component = -1
    for n in range(count):
        at = body + 1 + 2 * n
        found = -1
        for c in range(frame.components):
            if data[at] == frame.identity[c]:
                found = c
        if found < 0 or (count > 1 and found != n):
            return refused
        frame.dc[found], frame.ac[found] = data[at + 1] >> 4, 4 + (data[at + 1] & 15)
        component = found
    if count > 1:
        component = -1
    first, last = np.int64(data[stop - 3]), np.int64(data[stop - 2])
    high, low = np.int64(data[stop - 1] >> 4), np.int64(data[stop - 1] & 15)
    good = first <= last <= 63 and low <= _MOST_SHIFT and (high == 0 or high == low + 1)
    good = good and (last == 0 if first == 0 else component >= 0)
    if not good:
        return refused
    for c in range(frame.components):
        if component < 0 or c == component:
            if first > 0 and known[c, 0] < 0:
                return refused
            for k in range(first, last + 1):
                if known[c, k] != (high if high else -1):
                    return refused
                known[c, k] = low
    return _Scan(component, first, last, high, low)


@kernel
def _build(data, tables, scan, built):
    """Codes that a scan needs, of the file's last tables of their number. False: there are none."""
    frame = tables.frame[0]
    if scan.first == 0 and scan.high:
        return True  # bits without codes
    for c in range(frame.components):
        if scan.component < 0 or c == scan.component:
            row = frame.dc[c] if scan.first == 0 else frame.ac[c]
            if row > (3 if scan.first == 0 else 7):
                return False
            at = frame.tables[row]
            if at == 0:
                return False
            if built[row] != at:
                if not _is_regular(tables, row, read_symbols(data, at, row, tables)):
                    return False
                built[row] = at
    return True


@kernel
def _is_regular(tables, row, count):
    """Whether there are no more codes than there can be, none of ones alone, and no level of over 15 bits."""
    code, good = 0, True
    for length in range(1, 17):
        code = 2 * code + tables.counts[row, length]
        good = good and (code < 1 << length or code == 0)
    for n in range(count if row < 4 else 0):
        good = good and tables.symbols[row, n] <= 15
    return good


@kernel
def _long_symbol(tables, row, buffer):
    """A symbol whose code has more than LOOK bits, as in `Tables.plain`; 0: no code."""
    for length in range(LOOK + 1, 17):
        code = np.int64(buffer >> _u8(64 - length)) - np.int64(tables.first[row, length])
        if 0 <= code < tables.counts[row, length]:
            return (np.int64(tables.symbols[row, tables.at[row, length] + code]) << 5) | length
    return 0


@part
def _taken(bits, count):
    """A number of `count` bits, 1 to 16: (bits behind it, number)."""
    return dropped(bits, _u8(count)), np.int64(bits[0] >> _u8(64 - count))


@kernel
def _following(data, at, interval, marker):
    """The marker behind a scan of which enough has been read."""
    return data_end(data, at, interval, marker) if at >= 0 else at


@kernel
def _dc_scan(data, tables, scan, region, blocks, band, coefficients, stream):
    """DC levels, or one more bit of them: where the next marker stands; -1: not in order."""
    frame = tables.frame[0]
    begin = address_of(stream)
    length, at = plain_bytes(data, frame.scan, stream)
    bits, end = (_u8(0), _u8(0), begin), 8 * (begin + length)
    until_restart, marker, previous = frame.interval, 0, np.zeros(3, np.int64)
    lone = scan.component
    # A scan of one component has no blocks beyond the photo.
    wide, high = _blocks_of(frame, max(lone, 0)) if lone >= 0 else (0, 0)
    tall = frame.down if lone == 0 else 1
    lines = min(region.bottom * tall, high) if lone >= 0 else region.bottom
    across = wide if lone >= 0 else -(-frame.width // (8 * frame.across))
    plain = address_of(tables.plain)
    for line in range(lines):
        for column in range(across):
            if frame.interval:
                if until_restart == 0:
                    left_over = end - position(bits)
                    if not 0 <= left_over < 8 or at < 0 or data[at + 1] != 0xD0 + marker:
                        return -1
                    length, at = plain_bytes(data, at + 2, stream)
                    bits, end = (_u8(0), _u8(0), begin), 8 * (begin + length)
                    previous[:] = 0
                    until_restart, marker = frame.interval, (marker + 1) & 7
                until_restart -= 1
            for n in range(1 if lone >= 0 else len(blocks)):
                c = lone if lone >= 0 else blocks[n, 0]
                bits = filled(bits)
                value = np.int64(0)
                if scan.high:
                    bits, value = _taken(bits, 1)
                else:
                    row = frame.dc[c]
                    entry = np.int64(
                        load_uint16(plain + (row << (LOOK + 1)) + np.int64(bits[0] >> _DROP << _ONE))
                    )
                    if entry == 0:
                        entry = _long_symbol(tables, row, bits[0])
                    size = entry >> 5
                    if entry == 0 or size > _DC_BITS:
                        return -1
                    bits = dropped(bits, _u8(entry & 31))
                    if size:
                        bits, raw = _taken(bits, size)
                        value = extend(raw, size)
                    previous[c] += value
                    value = previous[c]
                if position(bits) > end:
                    return -1
                if lone >= 0:
                    mcu_row, mcu = line // tall, column // (frame.across if lone == 0 else 1)
                    inner = column % frame.across if lone == 0 else 0
                    which = (
                        (line % tall) * frame.across + inner
                        if lone == 0
                        else frame.across * frame.down + c - 1
                    )
                else:
                    mcu_row, mcu, which = line, column, n
                if mcu_row >= region.top and region.left <= mcu < region.right:
                    step = np.int64(tables.quant[frame.quant[c], 0])
                    if (abs(value) + 1 << scan.low) * step > MOST:
                        return -1  # libjpeg reckons in 16 bits
                    base = (mcu_row - region.top) * band + start_of(blocks, which, mcu - region.left)
                    coefficients[base] += np.int16((value << scan.low) * step)
    return _following(data, at, frame.interval, marker)


@kernel
def _blocks_of(frame, c):
    """Blocks of a component, across and down, as a scan of it alone has them."""
    across, down = (1, 1) if c == 0 else (frame.across, frame.down)
    return (frame.width + 8 * across - 1) // (8 * across), (frame.height + 8 * down - 1) // (8 * down)


@kernel
def _ac_scan(data, tables, scan, region, blocks, band, coefficients, stream, masks):
    """AC coefficients of one component, or one more bit of them: where the next marker stands, or -1."""
    frame = tables.frame[0]
    c = scan.component
    begin = address_of(stream)
    length, at = plain_bytes(data, frame.scan, stream)
    bits, end = (_u8(0), _u8(0), begin), 8 * (begin + length)
    until_restart, marker, run = frame.interval, 0, np.int64(0)
    wide, high = _blocks_of(frame, c)
    across, down = (frame.across, frame.down) if c == 0 else (1, 1)
    lines = min(region.bottom * down, high)
    mcus = -(-frame.width // (8 * frame.across))
    stride = mcus * across
    origin = 0 if c == 0 else mcus * region.bottom * (frame.across * frame.down + c - 1)
    row = frame.ac[c]
    plain = address_of(tables.plain) + (row << (LOOK + 1))
    steps = address_of(tables.quant) + 256 * frame.quant[c]
    most = most_bits(tables.quant[frame.quant[c], scan.first : scan.last + 1])
    first, last, low = scan.first, scan.last, scan.low
    begin_c = address_of(coefficients)
    within = (_u8(2) << _u8(last)) - _ONE
    if low >= most:
        return -1
    for line in range(lines):
        wanted_row = line // down >= region.top
        for column in range(wide):
            if frame.interval:
                if until_restart == 0:
                    left_over = end - position(bits)
                    if not 0 <= left_over < 8 or at < 0 or data[at + 1] != 0xD0 + marker:
                        return -1
                    length, at = plain_bytes(data, at + 2, stream)
                    bits, end = (_u8(0), _u8(0), begin), 8 * (begin + length)
                    run = 0
                    until_restart, marker = frame.interval, (marker + 1) & 7
                until_restart -= 1
            if run > 0 and scan.high == 0:
                run -= 1
                continue
            mcu = column // across
            wanted = wanted_row and region.left <= mcu < region.right
            block = np.int64(0)
            if wanted:
                which = (
                    (line % down) * across + column % across if c == 0 else frame.across * frame.down + c - 1
                )
                block = (line // down - region.top) * band + start_of(blocks, which, mcu - region.left)
                block = begin_c + 2 * block
            mask = masks[origin + line * stride + column]
            k = first
            if scan.high == 0:
                while k <= last:
                    bits = filled(bits)
                    entry = np.int64(load_uint16(plain + np.int64(bits[0] >> _DROP << _ONE)))
                    if entry == 0:
                        entry = _long_symbol(tables, row, bits[0])
                        if entry == 0:
                            return -1
                    bits = dropped(bits, _u8(entry & 31))
                    size, zeros = (entry >> 5) & 15, entry >> 9
                    if size:
                        k += zeros
                        if k > last or size + low > most:
                            return -1
                        bits, raw = _taken(bits, size)
                        mask |= _ONE << _u8(k)
                        if wanted:
                            value = (extend(raw, size) << low) * load_int32(steps + 4 * k)
                            store_int16(np.int16(value), block + 2 * PLACE[k])
                        k += 1
                    elif zeros == 15:
                        k += 16
                    else:
                        if zeros:
                            bits, run = _taken(bits, zeros)
                        run += (1 << zeros) - 1
                        break
            else:
                if run == 0:
                    while k <= last:
                        bits = filled(bits)
                        entry = np.int64(load_uint16(plain + np.int64(bits[0] >> _DROP << _ONE)))
                        if entry == 0:
                            entry = _long_symbol(tables, row, bits[0])
                            if entry == 0:
                                return -1
                        bits = dropped(bits, _u8(entry & 31))
                        size, zeros = (entry >> 5) & 15, entry >> 9
                        positive = np.int64(0)
                        if size == 1:
                            bits, positive = _taken(bits, 1)
                        elif size:
                            return -1
                        elif zeros != 15:
                            run = 1 << zeros
                            if zeros:
                                bits, more = _taken(bits, zeros)
                                run += more
                            break
                        bits, k = _corrected(bits, mask & within, k, zeros, block, steps, low)
                        if size:
                            if k > last:
                                return -1
                            mask |= _ONE << _u8(k)
                            if wanted:
                                step = load_int32(steps + 4 * k) << low
                                store_int16(np.int16(step if positive else -step), block + 2 * PLACE[k])
                        k += 1
                if run > 0:
                    bits, k = _corrected(bits, mask & within, k, 64, block, steps, low)
                    run -= 1
            masks[origin + line * stride + column] = mask
            if position(bits) > end:
                return -1
    return _following(data, at, frame.interval, marker)


@part
def _corrected(bits, mask, k, zeros, block, steps, low):
    """One more bit of each coefficient from k on that is not 0, up to the one behind so many that are.

    `mask` has those that are not 0 and no others than those of the scan; `block` is 0 where values do not
    matter. Returns (bits, where the next coefficient is that was 0).
    """
    ahead = mask >> _u8(k)
    while ahead:
        gap = np.int64(count_trailing_zeros(ahead))
        if gap > zeros:
            break
        zeros -= gap
        k += gap
        bits = filled(bits)
        bits, more = _taken(bits, 1)
        if more and block:
            had, step = load_int16(block + 2 * PLACE[k]), load_int32(steps + 4 * k) << low
            store_int16(np.int16(had + step if had > 0 else had - step), block + 2 * PLACE[k])
        k += 1
        ahead = ahead >> _u8(gap) >> _ONE
    return bits, k + zeros

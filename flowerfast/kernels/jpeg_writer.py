"""Coefficients of a photo to the entropy-coded data of a baseline JPEG, with the shortest codes for it.

Source: ITU-T T.81, F.1.2 (how coefficients become symbols) and K.2 (codes from how often each comes).
"""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_blocks import layout_of, start_of
from flowerfast.kernels.jpeg_transform import PLACE

RESTART = np.uint32(1 << 31)
"""Among symbols: a restart marker."""
_LONGEST = 16  # bits of a code
_LARGEST = (2047, 1023)  # difference of two DC levels; any other level


@kernel
def read_symbols_of(frame, region, coefficients, interval, symbols, counts):
    """Symbols of all blocks in the order of a baseline file with restart markers every `interval` MCUs.

    Args:
        coefficients: of a whole photo, as `jpeg_planes` keeps them, each divided by its step.
        symbols: uint32, 65 of each block at most: the symbol (bits 0-7), the table that it is of (8-9), and
            the value behind it (16-30), or RESTART.
        counts: int64 (4, 256), how often each comes in the tables: DC and AC of luma, DC and AC of chroma.

    Returns how many there are; -1 when a level is larger than any of 8 bits can be.
    """
    blocks, band = layout_of(frame, region)
    previous, found, left_over = np.zeros(3, np.int64), 0, interval
    for row in range(region.bottom):
        for mcu in range(region.right):
            if left_over == 0:
                symbols[found] = RESTART
                found += 1
                previous[:] = 0
                left_over = interval
            left_over -= 1
            for n in range(len(blocks)):
                component = blocks[n, 0]
                table = 2 if component else 0
                base = row * band + start_of(blocks, n, mcu)
                level = np.int64(coefficients[base])
                difference = level - previous[component]
                if np.abs(difference) > _LARGEST[0]:
                    return -1
                found = _put(difference, 0, table, symbols, counts, found)
                previous[component] = level
                zeros = 0
                for k in range(1, 64):
                    value = np.int64(coefficients[base + PLACE[k]])
                    if value == 0:
                        zeros += 1
                        continue
                    if np.abs(value) > _LARGEST[1]:
                        return -1
                    while zeros > 15:
                        found = _put(0, 15, table + 1, symbols, counts, found)
                        zeros -= 16
                    found = _put(value, zeros, table + 1, symbols, counts, found)
                    zeros = 0
                if zeros:
                    found = _put(0, 0, table + 1, symbols, counts, found)
    return found


@kernel
def _put(value, zeros, table, symbols, counts, found):
    """One symbol, for a value behind so many zeros. Returns how many there are now."""
    size = 0
    while np.abs(value) >> size:
        size += 1
    symbol = zeros << 4 | size
    counts[table, symbol] += 1
    behind = value if value >= 0 else value + (1 << size) - 1
    symbols[found] = np.uint32(symbol | table << 8 | behind << 16)
    return found + 1


@kernel
def code_lengths(counts):
    """Bits of the shortest codes, at most 16 and none of ones alone, int64 (256,): 0 for what never comes.

    `counts` is int64 (256,); something must come.
    """
    often = np.empty(257, np.int64)
    often[:256] = counts
    often[256] = 1  # stands for the code of ones alone, and gets the longest of all
    lengths, following = np.zeros(257, np.int64), np.full(257, -1, np.int64)
    while True:
        one, other = _rarest(often, -1), -1
        other = _rarest(often, one)
        if other < 0:
            break
        often[one] += often[other]
        often[other] = 0
        last = one
        lengths[one] += 1
        while following[last] >= 0:
            last = following[last]
            lengths[last] += 1
        following[last] = other
        while other >= 0:
            lengths[other] += 1
            other = following[other]
    _shorten(lengths, counts)
    return lengths[:256]


@kernel
def _rarest(often, but):
    """The symbol that comes least often; of several the last. -1: none is left."""
    found, least = -1, np.int64(1 << 62)
    for symbol in range(257):
        if 0 < often[symbol] <= least and symbol != but:
            found, least = symbol, often[symbol]
    return found


@kernel
def _shorten(lengths, counts):
    """Bring codes down to 16 bits, and take the longest away from the symbol that there is not."""
    of = np.zeros(258, np.int64)
    for length in lengths:
        of[length] += length > 0
    for length in range(257, _LONGEST, -1):
        while of[length] > 0:
            shorter = length - 2
            while of[shorter] == 0:
                shorter -= 1
            of[length] -= 2
            of[length - 1] += 1
            of[shorter + 1] += 2
            of[shorter] -= 1
    longest = _LONGEST
    while of[longest] == 0:
        longest -= 1
    of[longest] -= 1
    order = np.argsort(-counts, kind="mergesort")  # the more often, the shorter
    at = 0
    for length in range(1, _LONGEST + 1):
        for _ in range(of[length]):
            lengths[order[at]] = length
            at += 1


@kernel
def write_symbols(symbols, lengths, out):
    """Entropy-coded data of symbols into `out`, uint8: how many bytes.

    `lengths`, int64 (4, 256), are of the tables' codes, which are given out in the order of their lengths and
    symbols.
    """
    codes = np.zeros((4, 256), np.uint64)
    for table in range(4):
        code = np.uint64(0)
        for length in range(1, _LONGEST + 1):
            code <<= np.uint64(1)
            for symbol in range(256):
                if lengths[table, symbol] == length:
                    codes[table, symbol] = code
                    code += np.uint64(1)
    buffer, held, at, marker = np.uint64(0), 0, 0, 0
    for entry in symbols:
        if entry == RESTART:
            at = _flush(buffer, held, out, at)
            buffer, held = np.uint64(0), 0
            out[at], out[at + 1] = 0xFF, 0xD0 + marker
            at, marker = at + 2, (marker + 1) & 7
            continue
        symbol, table = np.int64(entry & 255), np.int64(entry >> 8) & 3
        size, length = symbol & 15, lengths[table, symbol]
        more = codes[table, symbol] << np.uint64(size) | np.uint64(entry >> 16)
        buffer, held = buffer << np.uint64(length + size) | more, held + length + size
        while held >= 8:
            held -= 8
            byte = np.uint8(buffer >> np.uint64(held))
            out[at] = byte
            at += 1
            if byte == 0xFF:
                out[at] = 0
                at += 1
    return _flush(buffer, held, out, at)


@kernel
def _flush(buffer, held, out, at):
    """The last bits, fewer than eight, and ones behind them."""
    if held:
        spare = 8 - held
        out[at] = np.uint8(buffer << np.uint64(spare) | np.uint64((1 << spare) - 1))
        at += 1
        if out[at - 1] == 0xFF:
            out[at] = 0
            at += 1
    return at

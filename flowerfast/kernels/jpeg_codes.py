"""Huffman codes of a JPEG's blocks (ITU-T T.81, F.2.2), several at a time where they are short.

Bits to come are (buffer, count, next byte): a uint64 of which the `count` highest bits are the next ones, and
the address of the byte behind them. They come from `plain_bytes`, so that no byte needs a look of its own.
Behind those are zeros: `position` tells whether they have been read.
"""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.jpeg_tables import (
    END_OF_BLOCK,
    LOOK,
    PAIR_ENDS,
    PASS,
    PASS_ENDS,
    describe,
    extend,
)
from flowerfast.kernels.jpeg_transform import PLACE
from flowerfast.kernels.vectors import (
    address_of,
    copy_and_find_ones,
    count_trailing_zeros,
    load_big_endian,
    load_int32,
    load_int64,
    load_uint8,
    load_uint16,
    store_int16,
)

_u8 = np.uint64  # with an int64 beside it numba would go on in floats
_LONGEST = 64 * (16 + 15) // 8 + 16
"""Bytes of the longest block, and of those that are looked at in advance."""
_DROP, _DROP_PASSED = _u8(64 - LOOK), _u8(64 - PASS)


@kernel
def stream_size(size):
    """Bytes of scratch that `plain_bytes` needs for a file of `size` bytes."""
    return size + _LONGEST


@kernel
def plain_bytes(data, at, out):
    """Entropy-coded bytes from `at` up to the next marker, without the zeros after FF, and zeros behind them.

    Returns (how many, where the marker stands or -1: there is none).
    """
    end, count, marker = len(data), 0, -1
    source, target = address_of(data), address_of(out)
    while at + 32 < end:
        ones = copy_and_find_ones(source + at, target + count)
        before = np.int64(count_trailing_zeros(ones)) if ones else 32
        at += before
        count += before
        if ones:
            if data[at + 1] != 0:
                marker = at
                break
            at += 2
            count += 1
    while marker < 0 and at < end:
        out[count] = data[at]
        if data[at] == 0xFF:
            if at + 2 > end:
                break
            if data[at + 1] != 0:
                marker = at
                break
            at += 1
        at += 1
        count += 1
    out[count : count + _LONGEST] = 0
    return count, marker


@part
def position(bits):
    """Address in bits of the next bit."""
    return 8 * bits[2] - np.int64(bits[1])


@part
def filled(bits):
    """At least 56 bits in the buffer."""
    buffer, count, at = bits
    buffer |= load_big_endian(at) >> count
    return buffer, count | _u8(56), at + np.int64((_u8(63) - count) >> _u8(3))


@part
def dropped(bits, count):
    return bits[0] << count, bits[1] - count, bits[2]


class Codes(NamedTuple):
    """Addresses of arrays of `Tables`, see there: numbers can be handed on in an inner loop, arrays not."""

    fast: int
    pairs: int
    passes: int
    counts: int
    first: int
    at: int
    symbols: int
    most: int


@part
def codes_of(tables):
    """Where the tables lie."""
    return Codes(
        address_of(tables.fast),
        address_of(tables.pairs),
        address_of(tables.passes),
        address_of(tables.counts),
        address_of(tables.first),
        address_of(tables.at),
        address_of(tables.symbols),
        address_of(tables.most),
    )


@kernel
def _long_code(codes, row, buffer):
    """Entry for a code of more than LOOK bits, or 0 when there is none such."""
    for length in range(LOOK + 1, 17):
        place = 4 * (17 * row + length)
        code = np.int64(buffer >> _u8(64 - length)) - load_int32(codes.first + place)
        if 0 <= code < load_int32(codes.counts + place):
            symbol = load_uint8(codes.symbols + 256 * row + load_int32(codes.at + place) + code)
            return describe(np.int64(symbol), length, row >= 4, np.int64(load_int32(codes.most + 4 * row)))
    return 0


@part
def _next_symbol(codes, row, bits):
    """One symbol: (bits, entry as in `Tables.fast`, or 0 for no code; value)."""
    entry = np.int64(load_int32(codes.fast + (row << (LOOK + 2)) + np.int64(bits[0] >> _DROP << _u8(2))))
    if entry == 0:
        entry = _long_code(codes, row, bits[0])
    bits = dropped(bits, _u8(entry & 63))
    size, value = (entry >> 10) & 15, entry >> 16
    if size:
        value = extend(np.int64(bits[0] >> _u8(64 - size)), size)
        bits = dropped(bits, _u8(size))
    return bits, entry, value


@part
def next_difference(codes, row, bits):
    """Difference of a DC level: (bits, difference, whether there was a code)."""
    bits, entry, value = _next_symbol(codes, row, filled(bits))
    return bits, value, entry != 0


@part
def read_block(codes, row, steps, bits, block):
    """AC coefficients of a block, times their steps, int16 at the address `block` and behind: (bits, good).

    `row` is that of the AC table, `steps` the address of the quantisation steps.
    """
    k, pairs = 1, codes.pairs + ((row - 4) << (LOOK + 3))
    good = True
    while k < 64:
        bits = filled(bits)
        pair = load_int64(pairs + np.int64(bits[0] >> _DROP << _u8(3)))
        following = k + ((pair >> 6) & 63)
        if pair != 0 and following <= 64:
            bits = dropped(bits, _u8(pair & 63))
            first, second = k + ((pair >> 16) & 31), k + ((pair >> 24) & 31)
            level, other = np.int32(np.int16(pair >> 32)), np.int32(pair >> 48)
            store_int16(np.int16(level * load_int32(steps + 4 * first)), block + 2 * PLACE[first])
            store_int16(np.int16(other * load_int32(steps + 4 * second)), block + 2 * PLACE[second])
            k = following
            if pair & PAIR_ENDS:
                break
            continue
        bits, entry, value = _next_symbol(codes, row, bits)
        if entry & END_OF_BLOCK:
            break
        k += (entry >> 6) & 15
        if entry == 0 or k > 63:
            good = False
            break
        store_int16(np.int16(value * load_int32(steps + 4 * k)), block + 2 * PLACE[k])
        k += 1
    return bits, good


@part
def pass_block(codes, row, bits):
    """To the end of a block whose coefficients nobody wants: (bits, good)."""
    k, passes = 1, codes.passes + ((row - 4) << (PASS + 1))
    good = True
    while k < 64:
        bits = filled(bits)
        entry = np.int64(load_uint16(passes + np.int64(bits[0] >> _DROP_PASSED << _u8(1))))
        following = k + (entry >> 6)
        if entry != 0 and following <= 64:
            bits = dropped(bits, _u8(entry & 31))
            k = following
            if entry & PASS_ENDS:
                break
            continue
        bits, entry, _ = _next_symbol(codes, row, bits)
        if entry & END_OF_BLOCK:
            break
        k += ((entry >> 6) & 15) + 1
        if entry == 0 or k > 64:
            good = False
            break
    return bits, good

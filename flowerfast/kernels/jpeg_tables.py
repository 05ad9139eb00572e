"""What the header of a JPEG says, and its Huffman tables, in the form in which codes are looked up."""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel

LOOK = 10
"""Bits of a Huffman code that are looked up at once; the rare longer codes are found bit by bit."""
END_OF_BLOCK = 1 << 14
MOST = (1 << 14) - 1
"""Absolute value of a dequantised coefficient: sums of two fit into 16 bits. No photo comes near."""
PASS = 11
"""Bits that are looked up at once where values do not matter."""
PAIR_ENDS, PASS_ENDS = 1 << 12, 1 << 5

FRAME = np.dtype(
    [
        ("width", np.int64),  # of the photo, in pixels
        ("height", np.int64),
        ("components", np.int64),  # 1 (grey) or 3 (YCbCr)
        ("across", np.int64),  # luma samples per chroma sample along a row: 1 or 2
        ("down", np.int64),  # the same along a column
        ("interval", np.int64),  # MCUs between restart markers; 0: no markers
        ("scan", np.int64),  # where the entropy-coded data begin, in bytes
        ("identity", np.int64, (3,)),  # of the components, as numbered in the file
        ("quant", np.int64, (3,)),  # tables of the components
        ("dc", np.int64, (3,)),
        ("ac", np.int64, (3,)),
        ("tables", np.int64, (12,)),  # where those of Huffman (0-7) and quantisation (8-11) lie; 0: nowhere
        ("first", np.int64),  # where the marker of the first scan stands
        ("progressive", np.bool_),
        ("simple", np.bool_),  # baseline, with one scan: of a kind that the compiled decoder knows
        ("usual", np.bool_),  # with nothing that decoders might take in different ways
    ]
)
"""What the header of a file says."""

_ROW_MAJOR = """
 0  1  8 16  9  2  3 10 17 24 32 25 18 11  4  5
12 19 26 33 40 48 41 34 27 20 13  6  7 14 21 28
35 42 49 56 57 50 43 36 29 22 15 23 30 37 44 51
58 59 52 45 38 31 39 46 53 60 61 54 47 55 62 63
"""
ZIGZAG = np.array(_ROW_MAJOR.split(), np.int64)
"""Row-major place in its block of the k-th coefficient of a file."""


class Tables(NamedTuple):
    """Header and tables of one file; rows 0-3 are the DC Huffman tables, 4-7 the AC ones.

    Attributes:
        frame: FRAME (1,).
        quant: int32 (4, 64), quantisation steps in the file's (zigzag) order.
        fast: int32 (8, 2**LOOK), by the next LOOK bits: 0 for a longer code, else the bits to drop (0-5), the
            zeros to skip (6-9), the size of the value if it is yet to be read (10-13), END_OF_BLOCK, and the
            value if not (16-31).
        pairs: int64 (4, 2**LOOK), of AC tables, by the next LOOK bits the one or two symbols that are whole
            in them: 0 for none, else the bits to drop (0-5), places to go on (6-11), PAIR_ENDS if the last
            ends the block, for which a place must be left, of both values how many places on they belong
            (16-20, 24-28), and both values (32-47, 48-63). Of one symbol both are the same.
        passes: uint16 (4, 2**PASS), of AC tables, by the next PASS bits all symbols that are whole in them: 0
            for none, else the bits to drop (0-4), PASS_ENDS as in `pairs`, and places to go on (6-15). All 0
            where few blocks are passed: codes are then looked up one by one.
        plain: uint16 (8, 2**LOOK), of progressive files, by the next LOOK bits: 0 for a longer code, else its
            bits (0-4) and its symbol (5-12).
        seen: uint8 (8, 274), of which file's bytes, and `most`, a row was made, and whether to pass blocks.
        counts, first, at: int32 (8, 17), by length of code: how many there are, the smallest, and the place
            of its symbol.
        symbols: uint8 (8, 256), in order of their codes.
        most: int32 (8,), bits that a value may have; a code for more is none. No photo has them, and with
            them libjpeg's arithmetic in 16 bits may run over.
    """

    frame: np.ndarray
    quant: np.ndarray
    fast: np.ndarray
    pairs: np.ndarray
    passes: np.ndarray
    plain: np.ndarray
    seen: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    at: np.ndarray
    symbols: np.ndarray
    most: np.ndarray


def make_tables() -> Tables:
    """Room for the tables of one file after the other."""
    return Tables(
        np.zeros(1, FRAME),
        np.zeros((4, 64), np.int32),
        np.zeros((8, 1 << LOOK), np.int32),
        np.zeros((4, 1 << LOOK), np.int64),
        np.zeros((4, 1 << PASS), np.uint16),
        np.zeros((8, 1 << LOOK), np.uint16),
        np.zeros((8, 274), np.uint8),
        np.zeros((8, 17), np.int32),
        np.zeros((8, 17), np.int32),
        np.zeros((8, 17), np.int32),
        np.zeros((8, 256), np.uint8),
        np.zeros(8, np.int32),
    )


@kernel
def most_bits(steps):
    """Bits of a value that times the largest of the quantisation steps is at most MOST."""
    largest, bits = np.int64(1), 0
    for step in steps:
        largest = max(largest, np.int64(step))
    while bits < 15 and ((2 << bits) - 1) * largest <= MOST:
        bits += 1
    return bits


@kernel
def read_codes(data, at, row, tables):
    """Codes in order of their length, and of their symbols in the file (T.81, C.2). Returns how many."""
    code = place = 0
    for length in range(1, 17):
        count = np.int64(data[at + length])
        tables.counts[row, length], tables.first[row, length] = count, code
        tables.at[row, length] = place
        code, place = 2 * (code + count), place + count
    for n in range(place):
        tables.symbols[row, n] = data[at + 17 + n]
    return place


@kernel
def read_symbols(data, at, row, tables):
    """Codes, and `Tables.plain` of them. Returns how many."""
    count = read_codes(data, at, row, tables)
    plain = tables.plain[row]
    plain[:] = 0
    for length in range(1, LOOK + 1):
        spare = LOOK - length
        for n in range(tables.counts[row, length]):
            symbol = np.int64(tables.symbols[row, tables.at[row, length] + n])
            start = (np.int64(tables.first[row, length]) + n) << spare
            plain[start : start + (1 << spare)] = np.uint16((symbol << 5) | length)
    return count


@kernel
def read_huffman(data, at, row, tables, passing):
    """Codes, and `Tables.fast`, `pairs` and, if many blocks are to be passed, `passes` of them."""
    place = read_codes(data, at, row, tables)
    if _is_known(data[at : at + 17 + place], row, tables, passing):
        return
    _fill_fast(tables, row, row >= 4)
    if row >= 4:
        _fill_pairs(tables.fast[row], tables.pairs[row - 4])
        tables.passes[row - 4] = 0
        if passing:
            _fill_passes(tables.fast[row], tables.passes[row - 4])


@kernel
def _is_known(segment, row, tables, passing):
    """Whether the tables to look up codes by are those of the file before: many files share theirs."""
    seen, made = tables.seen[row], 1 + tables.most[row] + (16 if passing else 0)
    known = seen[273] == made
    for n in range(1, len(segment)):
        known = known and seen[n] == segment[n]
        seen[n] = segment[n]
    seen[273] = made
    return known


@kernel
def _fill_fast(tables, row, is_ac):
    fast = tables.fast[row]
    fast[:] = 0
    for length in range(1, LOOK + 1):
        spare = LOOK - length
        for n in range(tables.counts[row, length]):
            symbol = np.int64(tables.symbols[row, tables.at[row, length] + n])
            start = (np.int64(tables.first[row, length]) + n) << spare
            entry = describe(symbol, length, is_ac, tables.most[row])
            size = (entry >> 10) & 15
            if size == 0 or size > spare:
                fast[start : start + (1 << spare)] = entry
                continue
            entry, span = (entry & 0x3C0) | (length + size), 1 << (spare - size)
            for raw in range(1 << size):
                first = start + raw * span
                fast[first : first + span] = (extend(raw, size) << 16) | entry


@kernel
def _whole(fast, bits, count):
    """Entry for the symbol that `count` bits, at most PASS, begin with; 0 if it is not whole in them."""
    entry = np.int64(fast[bits >> (count - LOOK) if count > LOOK else bits << (LOOK - count)])
    return 0 if (entry >> 10) & 15 or entry & 63 > count else entry


@kernel
def _fill_pairs(fast, pairs):
    for bits in range(1 << LOOK):
        entry = _whole(fast, bits, LOOK)
        used, ends, steps = entry & 63, entry & END_OF_BLOCK, 0
        offset = other = (entry >> 6) & 15
        value = second = entry >> 16
        if entry and not ends:
            steps = offset + 1
            rest = LOOK - used
            entry = _whole(fast, bits & ((1 << rest) - 1), rest)
            used, ends = used + (entry & 63), entry & END_OF_BLOCK
            if entry and not ends:
                other, second = steps + ((entry >> 6) & 15), entry >> 16
                steps = other + 1
        places = (steps + (ends != 0)) << 6
        pairs[bits] = used | places | (ends >> 2) | (offset << 16) | (other << 24)
        pairs[bits] |= ((value & 0xFFFF) << 32) | (second << 48)


@kernel
def _fill_passes(fast, passes):
    for bits in range(1 << PASS):
        used = steps = ends = 0
        while not ends:
            rest = PASS - used
            entry = _whole(fast, bits & ((1 << rest) - 1), rest)
            if entry == 0:
                break
            used, ends = used + (entry & 63), entry & END_OF_BLOCK
            steps += 1 if ends else ((entry >> 6) & 15) + 1
        passes[bits] = used | (ends >> 9) | (steps << 6)


@kernel
def describe(symbol, length, is_ac, most):
    """Entry of `Tables.fast` for a symbol whose code has `length` bits, its value yet to be read.

    0 for a value of over `most` bits, as for what is no code.
    """
    run, size = (symbol >> 4, symbol & 15) if is_ac else (0, symbol & 15)
    if is_ac and size == 0 and run != 15:
        return END_OF_BLOCK | length
    if size > most:
        return 0
    return (size << 10) | (run << 6) | length


@kernel
def extend(raw, size):
    """Signed value of `size` bits as JPEG codes it (T.81, F.2.2.1)."""
    return raw if raw >= 1 << (size - 1) else raw - (1 << size) + 1

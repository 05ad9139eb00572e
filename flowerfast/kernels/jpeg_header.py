"""Headers and tables of the JPEGs that the compiled decoder knows: baseline, 8 bits, one scan, grey or YCbCr.

That is nearly every photo. To anything else `read_header` says no, and the caller takes another decoder.
Source: ITU-T T.81 (JPEG), annexes B, C and F; what the components mean is in JFIF 1.02 and Adobe's TN 5116.
"""

from typing import NamedTuple

import numpy as np

from flowerfast.kernels.compiling import kernel, part

LOOK = 10
"""Bits of a Huffman code that are looked up at once; the rare longer codes are found bit by bit."""
END_OF_BLOCK = 1 << 14

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
        counts, first, at: int32 (8, 17), by length of code: how many there are, the smallest, and the place
            of its symbol.
        symbols: uint8 (8, 256), in order of their codes.
        defined: bool (12,), which Huffman (0-7) and quantisation (8-11) tables the file has brought.
    """

    frame: np.ndarray
    quant: np.ndarray
    fast: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    at: np.ndarray
    symbols: np.ndarray
    defined: np.ndarray


def make_tables() -> Tables:
    """Room for the tables of one file after the other."""
    return Tables(
        np.zeros(1, FRAME),
        np.zeros((4, 64), np.int32),
        np.zeros((8, 1 << LOOK), np.int32),
        np.zeros((8, 17), np.int32),
        np.zeros((8, 17), np.int32),
        np.zeros((8, 17), np.int32),
        np.zeros((8, 256), np.uint8),
        np.zeros(12, np.bool_),
    )


@kernel
def read_header(data, tables):
    """Read markers up to the scan of a file, uint8 (bytes,). False: not for the compiled decoder."""
    frame = tables.frame[0]
    frame.components, frame.interval = 0, 0
    tables.defined[:] = False
    end = len(data)
    jfif, transform = False, -1
    if end < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return False
    at = 2
    while at + 4 <= end:
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        length = _two(data, at + 2)
        body, stop = at + 4, at + 2 + length
        if length < 2 or stop > end:
            return False
        if marker == 0xC0 or marker == 0xC1:
            if frame.components or not _read_frame(data, body, stop, frame):
                return False
        elif marker == 0xC4:
            if not _read_huffman(data, body, stop, tables):
                return False
        elif marker == 0xDB:
            if not _read_quant(data, body, stop, tables):
                return False
        elif marker == 0xDD:
            frame.interval = _two(data, body) if stop - body >= 2 else 0
        elif marker == 0xDA:
            frame.scan = stop
            return (
                frame.components > 0
                and _is_ycc(frame, jfif, transform)
                and _read_scan(data, body, stop, tables)
            )
        elif marker == 0xE0:
            jfif = jfif or _is_jfif(data, body, stop)
        elif marker == 0xEE:
            transform = _transform(data, body, stop, transform)
        elif not _is_comment(marker):
            return False  # progressive, lossless, arithmetic coding, or no marker that has a place here
        at = stop
    return False


@kernel
def is_plain(data, width, height):
    """Whether a file, uint8 (bytes,), is a JPEG of this size that every decoder takes for the same picture.

    Baseline or progressive, 8 bits, grey or surely YCbCr, with an end marker at its end. That the rest of it
    is sound is not said.
    """
    frame = np.zeros(1, FRAME)[0]
    jfif, transform, end = False, -1, len(data)
    if end < 4 or data[0] != 0xFF or data[1] != 0xD8 or data[end - 2] != 0xFF or data[end - 1] != 0xD9:
        return False
    at = 2
    while at + 4 <= end:
        marker, length = data[at + 1], _two(data, at + 2)
        body, stop = at + 4, at + 2 + length
        if data[at] != 0xFF or length < 2 or stop > end:
            return False
        if 0xC0 <= marker <= 0xC2:
            if frame.components or stop - body < 6 or data[body] != 8:
                return False
            frame.height, frame.width = _two(data, body + 1), _two(data, body + 3)
            frame.components = data[body + 5]
            if (frame.components != 1 and frame.components != 3) or stop - body != 6 + 3 * frame.components:
                return False
            for c in range(frame.components):
                frame.identity[c], factors = data[body + 6 + 3 * c], data[body + 7 + 3 * c]
                if not (factors == 0x11 or (c == 0 and frame.components == 3 and _is_usual(factors))):
                    return False
        elif marker == 0xC4:
            if not _huffman_holds(data, body, stop):
                return False
        elif marker == 0xDB:
            if not _quant_holds(data, body, stop):
                return False
        elif marker == 0xDA:
            if frame.components == 0 or frame.width != width or frame.height != height:
                return False
            return _is_ycc(frame, jfif, transform) and _scan_holds(data, body, stop, frame)
        elif marker == 0xE0:
            if _is_jfif(data, body, stop):
                jfif = True
                if data[body + 5] != 1:  # of a revision to come
                    return False
        elif marker == 0xEE:
            transform = _transform(data, body, stop, transform)
        elif not (_is_comment(marker) or (marker == 0xDD and length == 4)):
            return False
        at = stop
    return False


@part
def _is_usual(factors):
    """Luma samples per chroma sample, across (high half) and down, of 4:2:2, 4:2:0 and 4:4:0."""
    return factors == 0x21 or factors == 0x22 or factors == 0x12


@kernel
def _huffman_holds(data, at, stop):
    """Whether a segment is made of Huffman tables that libjpeg accepts."""
    while at + 17 <= stop and data[at] >> 4 <= 1 and data[at] & 15 <= 3:
        total = 0
        for length in range(1, 17):
            total += np.int64(data[at + length])
        if total > 256:
            return False
        at += 17 + total
    return at == stop


@kernel
def _quant_holds(data, at, stop):
    """Whether a segment is made of whole quantisation tables."""
    while at < stop and data[at] >> 4 <= 1 and data[at] & 15 <= 3:
        at += 129 if data[at] >> 4 else 65
    return at == stop


@kernel
def _scan_holds(data, body, stop, frame):
    """Whether a scan's header is whole and names all components of the frame in order, or one of them."""
    count = np.int64(data[body])
    if stop - body != 4 + 2 * count or (count != 1 and count != frame.components):
        return False
    first = data[body + 1]
    if count == 1:
        return first == frame.identity[0] or (
            frame.components == 3 and (first == frame.identity[1] or first == frame.identity[2])
        )
    two, three = frame.identity[1], frame.identity[2]
    return (
        first == frame.identity[0]
        and data[body + 3] == two
        and data[body + 5] == three
        and first != two
        and first != three
        and two != three
    )


@part
def _is_comment(marker):
    """Whether a marker's segment means nothing to a decoder: APP1-13, APP15, COM."""
    return 0xE1 <= marker <= 0xED or marker == 0xEF or marker == 0xFE


@part
def _is_jfif(data, body, stop):
    return stop - body >= 14 and _begins(data, body, (0x4A, 0x46, 0x49, 0x46, 0))


@part
def _transform(data, body, stop, before):
    """What Adobe's marker says of the colours; `before` when the segment is another's."""
    adobe = stop - body >= 12 and _begins(data, body, (0x41, 0x64, 0x6F, 0x62, 0x65))
    return np.int64(data[body + 11]) if adobe else before


@part
def _begins(data, at, name):
    return (
        data[at] == name[0]
        and data[at + 1] == name[1]
        and data[at + 2] == name[2]
        and data[at + 3] == name[3]
        and data[at + 4] == name[4]
    )


@kernel
def _two(data, at):
    return (np.int64(data[at]) << 8) | np.int64(data[at + 1])


@kernel
def _is_ycc(frame, jfif, transform):
    """Whether three components are YCbCr, by libjpeg's rules; where they guess, no."""
    if frame.components == 1 or jfif:
        return True
    if transform >= 0:
        return transform == 1
    return frame.identity[0] == 1 and frame.identity[1] == 2 and frame.identity[2] == 3


@kernel
def _read_frame(data, body, stop, frame):
    if stop - body < 6 or data[body] != 8:
        return False
    count = np.int64(data[body + 5])
    if (count != 1 and count != 3) or stop - body < 6 + 3 * count:
        return False
    frame.height, frame.width, frame.components = _two(data, body + 1), _two(data, body + 3), count
    frame.across, frame.down = 1, 1
    if frame.height == 0 or frame.width == 0:
        return False
    for c in range(count):
        at = body + 6 + 3 * c
        across, down = np.int64(data[at + 1] >> 4), np.int64(data[at + 1] & 15)
        frame.identity[c], frame.quant[c] = data[at], data[at + 2]
        if data[at + 2] > 3:
            return False
        if c == 0 and count == 3:
            frame.across, frame.down = across, down
            if not (1 <= across <= 2 and 1 <= down <= 2):
                return False
        elif c and (across != 1 or down != 1):
            return False
        # The factors of a lone component mean nothing: its scan is not interleaved.
    # libjpeg's chroma is smooth only where it is wider than two samples.
    return frame.across == 1 or (frame.width + 1) // 2 > 2


@kernel
def _read_quant(data, at, stop, tables):
    while at < stop:
        wide, number = data[at] >> 4, data[at] & 15
        size = 128 if wide else 64
        if number > 3 or wide > 1 or at + 1 + size > stop:
            return False
        for k in range(64):
            tables.quant[number, k] = _two(data, at + 1 + 2 * k) if wide else data[at + 1 + k]
        tables.defined[8 + number] = True
        at += 1 + size
    return True


@kernel
def _read_huffman(data, at, stop, tables):
    while at < stop:
        if at + 17 > stop:
            return False
        kind, number = data[at] >> 4, data[at] & 15
        total = 0
        for length in range(1, 17):
            total += np.int64(data[at + length])
        if kind > 1 or number > 3 or total > 256 or at + 17 + total > stop:
            return False
        row = kind * 4 + number
        for n in range(total):
            tables.symbols[row, n] = data[at + 17 + n]
        code = place = 0
        for length in range(1, 17):
            count = np.int64(data[at + length])
            tables.counts[row, length], tables.first[row, length] = count, code
            tables.at[row, length] = place
            code, place = code + count, place + count
            if code > 1 << length:
                return False
            code <<= 1
        _fill_fast(tables, row, kind == 1)
        tables.defined[row] = True
        at += 17 + total
    return True


@kernel
def _fill_fast(tables, row, is_ac):
    fast = tables.fast[row]
    fast[:] = 0
    for length in range(1, LOOK + 1):
        spare = LOOK - length
        for n in range(tables.counts[row, length]):
            symbol = np.int64(tables.symbols[row, tables.at[row, length] + n])
            start = (np.int64(tables.first[row, length]) + n) << spare
            for suffix in range(1 << spare):
                entry = describe(symbol, length, is_ac)
                size = (entry >> 10) & 15
                if 0 < size <= spare:
                    value = extend(suffix >> (spare - size), size)
                    entry = (value << 16) | (entry & 0x3C0) | (length + size)
                fast[start + suffix] = entry


@kernel
def describe(symbol, length, is_ac):
    """Entry of `Tables.fast` for a symbol whose code has `length` bits, its value yet to be read."""
    run, size = (symbol >> 4, symbol & 15) if is_ac else (0, symbol & 15)
    if is_ac and size == 0 and run != 15:
        return END_OF_BLOCK | length
    return (size << 10) | (run << 6) | length


@kernel
def extend(raw, size):
    """Signed value of `size` bits as JPEG codes it (T.81, F.2.2.1)."""
    return raw if raw >= 1 << (size - 1) else raw - (1 << size) + 1


@kernel
def _read_scan(data, body, stop, tables):
    frame = tables.frame[0]
    count = frame.components
    if stop - body != 4 + 2 * count or data[body] != count:
        return False
    for c in range(count):
        at = body + 1 + 2 * c
        dc, ac = np.int64(data[at + 1] >> 4), np.int64(data[at + 1] & 15)
        if data[at] != frame.identity[c] or dc > 3 or ac > 3:
            return False
        frame.dc[c], frame.ac[c] = dc, 4 + ac
        if not (tables.defined[dc] and tables.defined[4 + ac] and tables.defined[8 + frame.quant[c]]):
            return False
    low = body + 1 + 2 * count
    return data[low] == 0 and data[low + 1] == 63 and data[low + 2] == 0

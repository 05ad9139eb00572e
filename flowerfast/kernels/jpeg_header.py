"""Headers and tables of the JPEGs that the compiled decoder knows: baseline, 8 bits, one scan, grey or YCbCr.

That is nearly every photo. To anything else `read_header` says no, and the caller takes another decoder. The
same markers tell `is_plain` which files every decoder takes for the same picture, progressive ones included.
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
        ("tables", np.int64, (12,)),  # where those of Huffman (0-7) and quantisation (8-11) lie; 0: nowhere
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
        counts, first, at: int32 (8, 17), by length of code: how many there are, the smallest, and the place
            of its symbol.
        symbols: uint8 (8, 256), in order of their codes.
    """

    frame: np.ndarray
    quant: np.ndarray
    fast: np.ndarray
    counts: np.ndarray
    first: np.ndarray
    at: np.ndarray
    symbols: np.ndarray


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
    )


@kernel
def read_header(data, tables):
    """Read markers up to the scan of a file, uint8 (bytes,). False: not for the compiled decoder."""
    frame = tables.frame[0]
    if not (_read_markers(data, frame) and frame.simple and frame.width > 0 and frame.height > 0):
        return False
    if frame.across == 2 and (frame.width + 1) // 2 <= 2:
        return False  # libjpeg's chroma is smooth only where it is wider than two samples
    place = frame.tables
    for c in range(frame.components):
        dc, ac, quant = frame.dc[c], frame.ac[c], frame.quant[c]
        if dc > 3 or ac > 7 or quant > 3 or place[dc] == 0 or place[ac] == 0 or place[8 + quant] == 0:
            return False
    for row in range(8):
        if place[row]:
            _read_huffman(data, place[row], row, tables)
    for number in range(4):
        at = place[8 + number]
        if at:
            wide = data[at] >> 4
            for k in range(64):
                tables.quant[number, k] = _two(data, at + 1 + 2 * k) if wide else data[at + 1 + k]
    return True


@kernel
def is_plain(data, width, height):
    """Whether a file, uint8 (bytes,), is a JPEG of this size that every decoder takes for the same picture.

    Baseline or progressive, 8 bits, grey or surely YCbCr, with an end marker at its end. That the rest of it
    is sound is not said.
    """
    frame, end = np.zeros(1, FRAME)[0], len(data)
    if end < 4 or data[end - 2] != 0xFF or data[end - 1] != 0xD9 or not _read_markers(data, frame):
        return False
    return frame.usual and frame.width == width and frame.height == height


@kernel
def _read_markers(data, frame):
    """Read what lies before the entropy-coded data into `frame`: of the tables, where they are (T.81, B.2).

    False: the file is for neither caller. What only one of them minds does not stop this, it clears
    `frame.simple` or `frame.usual`.
    """
    frame.components, frame.interval, frame.simple, frame.usual = 0, 0, True, True
    for n in range(len(frame.tables)):
        frame.tables[n] = 0
    jfif, transform, end = False, -1, len(data)
    if end < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return False
    at = 2
    while at + 4 <= end:
        if data[at] != 0xFF:
            return False
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            frame.usual = False
            at += 1
            continue
        length = _two(data, at + 2)
        body, stop = at + 4, at + 2 + length
        if length < 2 or stop > end:
            return False
        if 0xC0 <= marker <= 0xC2:
            if frame.components or not _read_frame(data, body, stop, frame):
                return False
            if marker == 0xC2:  # progressive
                frame.simple = False
        elif marker == 0xC4 or marker == 0xDB:
            if not _find_tables(data, body, stop, marker == 0xC4, frame):
                return False
        elif marker == 0xDD:
            frame.interval = _two(data, body) if length >= 4 else 0
            if length != 4:
                frame.usual = False
        elif marker == 0xDA:
            return (
                frame.components > 0
                and _is_ycc(frame, jfif, transform)
                and _read_scan(data, body, stop, frame)
            )
        elif marker == 0xE0:
            if length >= 16 and _begins(data, body, (0x4A, 0x46, 0x49, 0x46, 0)):  # JFIF
                jfif = True
                if data[body + 5] != 1:  # of a revision to come
                    frame.usual = False
        elif marker == 0xEE:
            if length >= 14 and _begins(data, body, (0x41, 0x64, 0x6F, 0x62, 0x65)):  # Adobe
                transform = np.int64(data[body + 11])
        elif not (0xE1 <= marker <= 0xEF or marker == 0xFE):  # APP and COM mean nothing to a decoder
            return False  # lossless, arithmetic coding, or no marker that has a place here
        at = stop
    return False


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
    """Size and components (T.81, B.2.2): 8 bits, one component or three, 4:4:4, 4:2:2, 4:2:0 or 4:4:0."""
    if stop - body < 6 or data[body] != 8:
        return False
    count = np.int64(data[body + 5])
    if (count != 1 and count != 3) or stop - body < 6 + 3 * count:
        return False
    frame.height, frame.width, frame.components = _two(data, body + 1), _two(data, body + 3), count
    for c in range(count):
        frame.identity[c], frame.quant[c] = data[body + 6 + 3 * c], data[body + 8 + 3 * c]
    factors = data[body + 7]
    frame.across, frame.down = (factors >> 4, factors & 15) if count == 3 else (1, 1)
    # The factors of a lone component mean nothing, as its scan is not interleaved; but not all may know.
    if stop - body > 6 + 3 * count or (count == 1 and factors != 0x11):
        frame.usual = False
    luma = 1 <= frame.across <= 2 and 1 <= frame.down <= 2
    return count == 1 or (luma and data[body + 10] == 0x11 and data[body + 13] == 0x11)


@kernel
def _find_tables(data, at, stop, is_huffman, frame):
    """Note where a segment's Huffman tables (T.81, B.2.4.2) or quantisation tables (B.2.4.1) begin."""
    while at + 17 <= stop and data[at] >> 4 <= 1 and data[at] & 15 <= 3:
        kind, number = np.int64(data[at] >> 4), np.int64(data[at] & 15)
        if is_huffman:
            row, size, code = 4 * kind + number, 17, 0
            for length in range(1, 17):
                size, code = size + np.int64(data[at + length]), 2 * code + np.int64(data[at + length])
                if code >= 1 << length and code > 0:  # there are no more, and none may be all ones
                    frame.simple = False
            if size > 17 + 256:
                return False
            for symbol in range(at + 17, min(at + size, stop)):
                if kind == 0 and data[symbol] > 15:  # no number of bits that a DC difference can have
                    frame.simple = False
        else:
            row, size = 8 + number, 1 + 64 * (1 + kind)
        frame.tables[row] = at
        at += size
    return at == stop


@kernel
def _read_scan(data, body, stop, frame):
    """Whether a scan's header (T.81, B.2.3) is whole and names all components in order, or one of them."""
    count = (stop - body) // 2 - 2
    if (count != 1 and count != frame.components) or stop - body != 4 + 2 * count or data[body] != count:
        return False
    named = 0
    for c in range(frame.components):
        at = body + 1 if count == 1 else body + 1 + 2 * c
        named += data[at] == frame.identity[c]
        frame.dc[c], frame.ac[c] = data[at + 1] >> 4, 4 + (data[at + 1] & 15)
    if count != frame.components or data[stop - 3] != 0 or data[stop - 2] != 63 or data[stop - 1] != 0:
        frame.simple = False  # more scans will follow
    one, two, three = frame.identity[0], frame.identity[1], frame.identity[2]
    if count == 3 and (one == two or three in (one, two)):
        frame.usual = False
    frame.scan = stop
    return named >= count


@kernel
def _read_huffman(data, at, row, tables):
    """Codes in order of their length, and of their symbols in the file (T.81, C.2)."""
    code = place = 0
    for length in range(1, 17):
        count = np.int64(data[at + length])
        tables.counts[row, length], tables.first[row, length] = count, code
        tables.at[row, length] = place
        code, place = 2 * (code + count), place + count
    for n in range(place):
        tables.symbols[row, n] = data[at + 17 + n]
    _fill_fast(tables, row, row >= 4)


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

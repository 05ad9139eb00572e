"""Headers and tables of the JPEGs that the compiled decoder knows: 8 bits, grey or YCbCr, baseline or
progressive.

That is nearly every photo. To anything else `read_header` says no, and the caller takes another decoder. The
same markers tell `is_plain` which files every decoder takes for the same picture, progressive ones included.
Source: ITU-T T.81 (JPEG), annexes B, C and F; what the components mean is in JFIF 1.02 and Adobe's TN 5116.
"""

import numpy as np

from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.jpeg_markers import END, data_end, two
from flowerfast.kernels.jpeg_tables import FRAME, most_bits, read_huffman

_MOST_PIXELS_A_SIDE = 65500  # of libjpeg
_DC_BITS = 11  # of a difference, with samples of 8 bits


@kernel
def read_header(data, tables):
    """Read markers up to the first scan of a file, uint8 (bytes,). False: not for the compiled decoder."""
    frame = tables.frame[0]
    if not (_read_markers(data, frame) and (frame.simple or frame.progressive) and _read_steps(data, tables)):
        return False
    return frame.progressive or _read_codes(data, tables)


@kernel
def _read_codes(data, tables):
    """Read the Huffman tables of a baseline file. False: some are missing."""
    frame = tables.frame[0]
    place = frame.tables
    for c in range(frame.components):
        dc, ac = frame.dc[c], frame.ac[c]
        if dc > 3 or ac > 7 or place[dc] == 0 or place[ac] == 0:
            return False
    tables.most[:] = _DC_BITS
    for c in range(frame.components):
        row = frame.ac[c]
        tables.most[row] = min(tables.most[row], most_bits(tables.quant[frame.quant[c], 1:]))
    passing = frame.interval == 0 or frame.interval * 8 * frame.across >= frame.width
    for row in range(8):
        if place[row]:
            read_huffman(data, place[row], row, tables, passing)
    return True


@kernel
def _read_steps(data, tables):
    """Read the quantisation steps. False: some are missing, or the photo's size is not for these decoders."""
    frame = tables.frame[0]
    if frame.width == 0 or frame.height == 0:
        return False
    if frame.across == 2 and (frame.width + 1) // 2 <= 2:
        return False  # libjpeg's chroma is smooth only where it is wider than two samples
    for c in range(frame.components):
        if frame.quant[c] > 3 or frame.tables[8 + frame.quant[c]] == 0:
            return False
    for number in range(4):
        at = frame.tables[8 + number]
        if at:
            wide = data[at] >> 4
            for k in range(64):
                tables.quant[number, k] = two(data, at + 1 + 2 * k) if wide else data[at + 1 + k]
    return True


@kernel
def is_plain(data, width, height):
    """Whether a file, uint8 (bytes,), is a JPEG of this size that every decoder takes for the same picture.

    Baseline or progressive, 8 bits, grey or surely YCbCr, with an end marker at its end, and with no marker
    between that has no place there: by these some decoders are stopped and others are not. That the rest of
    it is sound is not said; no decoder minds.
    """
    frame, end = np.zeros(1, FRAME)[0], len(data)
    if end < 4 or data[end - 2] != 0xFF or data[end - 1] != END or not _read_markers(data, frame):
        return False
    if not (frame.usual and frame.width == width and frame.height == height):
        return False
    at = data_end(data, frame.scan, frame.interval, 0)
    while at >= 0 and at + 4 <= end and data[at + 1] in (0xC4, 0xDA, 0xFE) and not frame.simple:
        is_scan = data[at + 1] == 0xDA
        at += 2 + two(data, at + 2)
        if is_scan:
            at = data_end(data, at, frame.interval, 0)
        elif at + 2 > end or data[at] != 0xFF:
            return False
    return at >= 0 and data[at + 1] == END


@kernel
def _read_markers(data, frame):
    """Read what lies before the entropy-coded data into `frame`: of the tables, where they are (T.81, B.2).

    False: the file is for neither caller. What only one of them minds does not stop this, it clears
    `frame.simple` or `frame.usual`.
    """
    frame.components, frame.interval, frame.simple, frame.usual, frame.progressive = 0, 0, True, True, False
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
        length = two(data, at + 2)
        body, stop = at + 4, at + 2 + length
        if length < 2 or stop > end:
            return False
        if 0xC0 <= marker <= 0xC2:
            if frame.components or not _read_frame(data, body, stop, frame):
                return False
            if marker == 0xC2:
                frame.progressive, frame.simple = True, False
        elif marker == 0xC4 or marker == 0xDB:
            if not find_tables(data, body, stop, marker == 0xC4, frame):
                return False
        elif marker == 0xDD:
            if length != 4:
                return False
            frame.interval = two(data, body)
        elif marker == 0xDA:
            frame.first = at
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
    if (count != 1 and count != 3) or stop - body != 6 + 3 * count:
        return False
    frame.height, frame.width, frame.components = two(data, body + 1), two(data, body + 3), count
    for c in range(count):
        frame.identity[c], frame.quant[c] = data[body + 6 + 3 * c], data[body + 8 + 3 * c]
    if max(frame.height, frame.width) > _MOST_PIXELS_A_SIDE:
        return False
    factors = np.int64(data[body + 7])
    frame.across, frame.down = factors >> 4, factors & 15
    if count == 1:
        # The factors of a lone component mean nothing, as its scan is not interleaved; but not all may know.
        frame.usual = factors == 0x11 and frame.usual
        good = 1 <= frame.across <= 4 and 1 <= frame.down <= 4
        frame.across, frame.down = 1, 1
        return good
    luma = 1 <= frame.across <= 2 and 1 <= frame.down <= 2
    return luma and data[body + 10] == 0x11 and data[body + 13] == 0x11


@kernel
def find_tables(data, at, stop, is_huffman, frame):
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

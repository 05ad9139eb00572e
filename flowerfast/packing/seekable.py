"""JPEGs written anew, without loss, so that a decoder can begin in their middle.

The coefficients stay, and with them every decoder's pixels: only their codes change. Restart markers stand
every few MCUs, and codes as short as they can be pay for them. A progressive photo becomes a baseline one.
"""

import numpy as np

from flowerfast.kernels.jpeg_blocks import coefficient_count, region_of
from flowerfast.kernels.jpeg_codes import stream_size
from flowerfast.kernels.jpeg_header import is_plain, read_header
from flowerfast.kernels.jpeg_planes import Room, read_planes
from flowerfast.kernels.jpeg_progressive import mask_count
from flowerfast.kernels.jpeg_tables import make_tables
from flowerfast.kernels.jpeg_writer import code_lengths, read_symbols_of, write_symbols

_LEAST_BYTES = 64
"""Of codes between two restart markers, on average: a marker takes some four."""
_LEAST_PIXELS = 128 * 128
"""Of a photo in which it pays to begin in the middle."""
_MOST_PIXELS = 1 << 26
"""Of a photo whose coefficients, some six bytes a pixel, are all in memory for this."""
_MOST_GROWTH = 1.1
"""Times the bytes of the original; a progressive photo may come close to it."""
_PARTS = b"MPF\0"
"""Begins a segment that says where in the file further pictures lie."""


def seekable(encoded: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """A JPEG file, uint8 (bytes,), with the same pixels in every decoder, that can be read in parts.

    None: it stays as it is. It is no JPEG of 8 bits that is in perfect order, it is small, or it would grow.
    `width` and `height` are in pixels, as stored.
    """
    if not _LEAST_PIXELS <= width * height <= _MOST_PIXELS or not is_plain(encoded, width, height):
        return None
    tables = make_tables()
    if not read_header(encoded, tables):
        return None
    frame = tables.frame[0].copy()
    segments = _segments(encoded.tobytes())
    if segments is None:
        return None
    tables.quant[:] = 1  # so that levels come as they were written
    region = region_of(frame, 1, 0, 0, height, width)
    levels = np.empty(coefficient_count(frame, region) * region.bottom, np.int16)
    masks = np.empty(mask_count(frame, region) if frame["progressive"] else 0, np.uint64)
    room = Room(levels, np.empty(0, np.uint8), np.empty(stream_size(len(encoded)), np.uint8), masks)
    if not read_planes(encoded, tables, region, room):
        return None
    mcus = region.bottom * region.right
    interval = min(-(-_LEAST_BYTES * mcus // len(encoded)), region.right)
    blocks = mcus * int(frame["across"] * frame["down"] + 2)
    symbols, counts = np.empty(65 * blocks + mcus // interval, np.uint32), np.zeros((4, 256), np.int64)
    found = read_symbols_of(frame, region, levels, interval, symbols, counts)
    if found < 0:
        return None
    grey = frame["components"] == 1
    lengths = np.zeros((4, 256), np.int64)
    for table in range(2 if grey else 4):
        lengths[table] = code_lengths(counts[table])
    bits = int((counts * (lengths + (np.arange(256) & 15))).sum())
    data = np.empty(bits // 4 + 4 * (mcus // interval) + 16, np.uint8)  # every byte might need a second
    size = write_symbols(symbols[:found], lengths, data)
    head = [*segments, *(_codes(table, lengths[table]) for table in range(2 if grey else 4))]
    head += [_segment(0xDD, interval.to_bytes(2, "big")), _scan(frame["identity"][: 1 if grey else 3])]
    whole = b"".join([b"\xff\xd8", *head, data[:size].tobytes(), b"\xff\xd9"])
    return np.frombuffer(whole, np.uint8) if len(whole) <= _MOST_GROWTH * len(encoded) else None


def _segments(file: bytes) -> list[bytes] | None:
    """What of a file's segments stays: all but what is of its codes. None: the file has other pictures too,
    or anything else behind its end.

    They are those in front of the first scan and between scans, in their order.
    """
    kept, wide, at = [], False, 2
    while file[at + 1] != 0xD9:
        marker, stop = file[at + 1], at + 2 + int.from_bytes(file[at + 2 : at + 4], "big")
        segment = file[at:stop]
        if marker == 0xE2 and segment[4:8] == _PARTS:
            return None
        wide = wide or (marker == 0xDB and segment[4] >> 4 == 1)
        if marker == 0xC2:  # steps of 16 bits are not for what is called baseline
            segment = bytes((0xFF, 0xC1 if wide else 0xC0)) + segment[2:]
        if marker not in (0xC4, 0xDD, 0xDA):
            kept.append(segment)
        at = stop
        if marker == 0xDA:
            at = _marker(file, at)
    return kept if at + 2 == len(file) else None


def _marker(file: bytes, at: int) -> int:
    """Where the next marker stands that is none of a restart."""
    while file[at] != 0xFF or file[at + 1] == 0 or 0xD0 <= file[at + 1] <= 0xD7:
        at = file.index(b"\xff", at + 1)
    return at


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _codes(table: int, lengths: np.ndarray) -> bytes:
    """Segment of one Huffman table: DC or AC (every other), of luma or chroma."""
    counts = np.bincount(lengths, minlength=17)[1:17]
    symbols = [symbol for length in range(1, 17) for symbol in np.flatnonzero(lengths == length).tolist()]
    return _segment(0xC4, bytes((table % 2 << 4 | table // 2, *counts.tolist(), *symbols)))


def _scan(identity: np.ndarray) -> bytes:
    """Header of the one scan, of components as they are numbered."""
    tables = b"\0\x11\x11"
    named = b"".join(bytes((int(number), tables[c])) for c, number in enumerate(identity))
    return _segment(0xDA, bytes((len(identity),)) + named + b"\0\x3f\0")

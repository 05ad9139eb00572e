"""PNG, BMP and PNM files of forms that Pillow does not write."""

import struct
import zlib
from itertools import pairwise

import numpy as np

_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps, of the seven passes of Adam7."""
_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(pixels: np.ndarray, interlaced: bool = False, more: bytes = b"") -> bytes:
    """A PNG of uint8 or uint16 (h, w, channels); `more` chunks stand in front of the pixels.

    Source: PNG specification, third edition, 8.1 (passes) and 9.2 (of filters none is used).
    """
    height, width, channels = pixels.shape
    big = pixels.astype(">u2" if pixels.dtype == np.uint16 else "u1")
    passes = [big[y::down, x::across] for y, x, down, across in _PASSES] if interlaced else [big]
    lines = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    header = struct.pack(">IIBBBBB", width, height, 8 * big.itemsize, _COLOURS[channels], 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    )


def bmp_565(pixels: np.ndarray) -> bytes:
    """A BMP of 16 bits a pixel from uint8 (h, w, 3): 5 red, 6 green, 5 blue."""
    red, green, blue = (pixels[::-1, :, c].astype(np.uint16) for c in range(3))
    words = (red >> 3 << 11 | green >> 2 << 5 | blue >> 3).astype("<u2")
    words = np.pad(words, [(0, 0), (0, words.shape[1] % 2)])
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return _bmp(pixels.shape[:2], 16, 3, masks, words.tobytes())


def bmp_rle8(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """A BMP of runs from uint8 (h, w) and colours, uint8 (n, 3)."""
    lines = []
    for row in indices[::-1]:
        edges = np.flatnonzero(np.diff(row, prepend=-1, append=-1))
        for start, end in pairwise(edges):
            lines += [bytes((min(end - at, 255), row[at])) for at in range(start, end, 255)]
        lines.append(b"\0\0")
    lines[-1] = b"\0\1"
    colours = np.pad(palette[:, ::-1], [(0, 0), (0, 1)]).tobytes()
    return _bmp(indices.shape, 8, 1, colours, b"".join(lines), len(palette))


def bmp_from_the_top(pixels: np.ndarray) -> bytes:
    """A BMP of 24 bits a pixel whose first row is the upper one, from uint8 (h, w, 3)."""
    wide = -(-3 * pixels.shape[1] // 4) * 4
    rows = [row[:, ::-1].tobytes().ljust(wide, b"\0") for row in pixels]
    return _bmp((-pixels.shape[0], pixels.shape[1]), 24, 0, b"", b"".join(rows))


def _bmp(
    shape: tuple[int, int], bits: int, coding: int, table: bytes, pixels: bytes, colours: int = 0
) -> bytes:
    begin = 14 + 40 + len(table)
    info = struct.pack(
        "<IiiHHIIiiII", 40, shape[1], shape[0], 1, bits, coding, len(pixels), 2835, 2835, colours, 0
    )
    return b"BM" + struct.pack("<IHHI", begin + len(pixels), 0, 0, begin) + info + table + pixels


def pnm_text(pixels: np.ndarray) -> bytes:
    """A PPM in numbers that people can read, with a comment, from uint8 (h, w, 3)."""
    height, width, _ = pixels.shape
    return f"P3\n# in numbers\n{width} {height}\n255\n{' '.join(map(str, pixels.ravel()))}\n".encode()


def pnm_deep(pixels: np.ndarray) -> bytes:
    """A PPM of 16 bits from uint16 (h, w, 3)."""
    height, width, _ = pixels.shape
    return b"P6 %d %d 65535\n" % (width, height) + pixels.astype(">u2").tobytes()

"""Sizes and orientations of many JPEG files, from the few bytes in front that say so.

Of a file that is in any way unusual nothing is said, and Pillow is asked: what is said is what Pillow says.
Source: ITU-T T.81 (JPEG), annex B; Exif 2.32, 4.6; Pillow's JpegImagePlugin.
"""

import numpy as np
from numba import types

from flowerfast.files import READ_FLAGS
from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.files import close_file, open_file, put_name, read_at, room_for_names
from flowerfast.kernels.jpeg_markers import two

_BYTES = 4096
"""Of a file that are read at a time."""
_LOOKED_AT = 1024
"""Of a segment, so many bytes at most are needed."""
_ORIENTATION = 0x112
_MOST_PIXELS = 80_000_000
"""Of a photo that Pillow opens without a word."""


@kernel
def read_heads(folder, path_bytes, path_ends, rows, sizes):
    """What JPEG files say of themselves.

    Args:
        folder: uint8, bytes that stand before each path.
        path_bytes, path_ends: of all files, as in `photos.Table`.
        rows: int64 (n,), the files to look at.
        sizes: int64 (n,), bytes of these.

    Returns int32 (n, 3): width, height, orientation (1 to 8); zeros where another must look.
    """
    name = room_for_names(folder, path_ends, rows)
    found, buffer = np.zeros((len(rows), 3), np.int32), np.empty(_BYTES, np.uint8)
    for i in range(len(rows)):
        put_name(name, len(folder), path_bytes, path_ends, rows[i])
        file = open_file(types.uintp(name.ctypes.data), types.intc(READ_FLAGS))
        if file >= 0:
            _read_head(np.int64(file), sizes[i], buffer, found[i])
            close_file(file)
    return found


@kernel
def _read_head(file, size, buffer, found):
    """Write width, height and orientation of one file, if it is usual up to its first scan."""
    width, height, orientation = 0, 0, 0
    with_exif, with_xmp = False, False
    begin, have = 0, read_at(file, buffer.ctypes.data, _BYTES, _BYTES, 0)
    if have < 4 or buffer[0] != 0xFF or buffer[1] != 0xD8 or buffer[2] != 0xFF:
        return
    at = 2
    while at + 4 <= size:
        if at + _LOOKED_AT > begin + have and begin + have < size:
            begin, have = at, read_at(file, buffer.ctypes.data, _BYTES, _BYTES, at)
        place = at - begin
        if have - place < 4 or buffer[place] != 0xFF:
            return
        marker, length = buffer[place + 1], two(buffer, place + 2)
        body, stop = place + 4, at + 2 + length
        if length < 2 or stop > size:
            return
        known = min(have - body, length - 2)
        if marker == 0xDA:
            if 0 < width * height <= _MOST_PIXELS and (orientation > 0 or not with_xmp):
                found[0], found[1], found[2] = width, height, max(orientation, 1)
            return
        if 0xC0 <= marker <= 0xC2:
            if width > 0 or known < 6 or buffer[body] != 8 or length != 8 + 3 * buffer[body + 5]:
                return
            if buffer[body + 5] != 1 and buffer[body + 5] != 3 and buffer[body + 5] != 4:
                return
            height, width = two(buffer, body + 1), two(buffer, body + 3)
            if width == 0:
                return
        elif marker == 0xDB:
            if known < length - 2 or not _are_tables(buffer, body, known):
                return
        elif marker == 0xE1:
            if known >= 6 and _begins(buffer, body, (0x45, 0x78, 0x69, 0x66)):  # Exif
                if with_exif or buffer[body + 4] != 0 or buffer[body + 5] != 0:
                    return
                orientation, with_exif = _orientation(buffer, body + 6, known - 6, length - 8), True
                if orientation < 0:
                    return
            with_xmp = with_xmp or (known >= 4 and _begins(buffer, body, (0x68, 0x74, 0x74, 0x70)))  # http
        elif marker == 0xE0 or marker == 0xEE or marker == 0xE2 or marker == 0xED:
            # Too short for what they may be; several pictures in one file; and Photoshop's own records.
            if length < 18 and not (marker == 0xE0 or marker == 0xEE):
                return
            if length < 9 or _begins(buffer, body, (0x4D, 0x50, 0x46, 0)):
                return
            if _begins(buffer, body, (0x50, 0x68, 0x6F, 0x74)):
                return
        elif not (marker == 0xC4 or marker == 0xDD or marker == 0xFE or 0xE3 <= marker <= 0xEF):
            return
        at = stop


@part
def _begins(data, at, name):
    return (
        data[at] == name[0]
        and data[at + 1] == name[1]
        and data[at + 2] == name[2]
        and data[at + 3] == name[3]
    )


@kernel
def _are_tables(data, at, left):
    """Whether a segment consists of whole quantisation tables (T.81, B.2.4.1)."""
    while left > 0:
        size = 65 if data[at] < 16 else 129
        at, left = at + size, left - size
    return left == 0


@kernel
def _orientation(data, at, known, size):
    """Orientation by the Exif in a segment of `size` bytes, of which `known` are there; 0: it has none.

    -1: it is unusual. Anything but 2 to 8 is upright, 1.
    """
    if known < 8:
        return -1
    little = data[at] == 0x49 and data[at + 1] == 0x49 and data[at + 2] == 42 and data[at + 3] == 0
    big = data[at] == 0x4D and data[at + 1] == 0x4D and data[at + 2] == 0 and data[at + 3] == 42
    if not (little or big):
        return -1
    first = _four(data, at + 4, little)
    if first + 2 > known:
        return -1
    count, value = _two(data, at + first, little), 0
    if first + 6 + 12 * count > known:
        return -1
    for n in range(count):
        entry = at + first + 2 + 12 * n
        tag, kind = _two(data, entry, little), _two(data, entry + 2, little)
        items = _four(data, entry + 4, little)
        if kind == 1 or kind == 2 or kind == 6 or kind == 7:
            unit = 1
        elif kind == 3 or kind == 8:
            unit = 2
        elif kind == 4 or kind == 9 or kind == 11:
            unit = 4
        elif kind == 5 or kind == 10 or kind == 12:
            unit = 8
        else:
            return -1
        if items * unit > 4 and _four(data, entry + 8, little) + items * unit > size:
            return -1
        if tag == _ORIENTATION:
            if value > 0 or kind != 3 or items != 1:
                return -1
            value = _two(data, entry + 8, little)
            value = value if 2 <= value <= 8 else 1
    return value


@kernel
def _two(data, at, little):
    one, other = np.int64(data[at]), np.int64(data[at + 1])
    return one | other << 8 if little else one << 8 | other


@kernel
def _four(data, at, little):
    one, other = _two(data, at, little), _two(data, at + 2, little)
    return one | other << 16 if little else one << 16 | other

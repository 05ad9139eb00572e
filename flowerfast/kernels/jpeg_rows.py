"""Planes of luma and chroma samples to rows of pixels.

Chroma is brought to the size of luma as libjpeg's "fancy upsampling" does it (weights 3:1 of the two nearest
samples along each axis), and YCbCr to RGB with JFIF's matrix in 16-bit fixed-point numbers.
"""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_transform import LANES
from flowerfast.kernels.vectors import address_of, colour_sixteen, double_sixteen, load_int32

_i4 = np.int32
BAND = 16
"""Rows that are turned at once: so many pixels of four bytes are a cache line."""


@kernel
def rgb_row(planes, region, y, left, chroma, out):
    """Pixels (left ... left + n) of row y of the photo into `out`, uint32 (n,): red lowest, then green, blue.

    `planes` may be read up to 32 bytes behind their end. `chroma` is scratch, uint8 (3, n + 64) at least.
    """
    count = len(out)
    down, across = region.down * region.chroma, region.across * region.chroma  # of an MCU, in pixels
    pitch = region.luma_groups * LANES * region.luma
    luma = (y - region.top * down) * pitch + left - region.left * across
    light = planes[luma : luma + count]
    if region.chroma_groups == 0:
        for x in range(count):
            level = np.uint32(light[x])
            out[x] = level | (level << np.uint32(8)) | (level << np.uint32(16))
        return
    skip = _chroma_row(planes, region, y, (left, count, region.blue), chroma[0])
    _chroma_row(planes, region, y, (left, count, region.red), chroma[1])
    whole = count - count % 16
    level, blue = address_of(light), address_of(chroma) + skip
    red, target = blue + chroma.shape[1], address_of(out)
    for x in range(0, whole, 16):
        colour_sixteen(level + x, blue + x, red + x, target + 4 * x)
    if whole < count:
        rest = address_of(chroma[2])
        colour_sixteen(level + whole, blue + whole, red + whole, rest)
        for x in range(count - whole):
            out[whole + x] = np.uint32(load_int32(rest + 4 * x))


@kernel
def turned_rows(planes, region, window, orientation, chroma, band, out):
    """Pixels of a window, turned upright (see `photos.orientation`).

    Args:
        window: (top, left, height, width) in the photo as it is stored.
        orientation: 2 to 8.
        chroma: as for `rgb_row`.
        band: scratch, uint32 (BAND, width) at least.
        out: uint32 (height * width,), the turned window row after row.
    """
    top, left, height, width = window
    upside_down, mirrored = ((orientation - 1) & 2) != 0, (orientation & 2) != 0
    for first in range(0, height, BAND):
        count = min(BAND, height - first)
        for k in range(count):
            rgb_row(planes, region, top + first + k, left, chroma, band[k, :width])
        if orientation > 4:
            for x in range(width):
                at = (width - 1 - x if upside_down else x) * height
                for k in range(count):
                    out[at + (height - 1 - first - k if mirrored else first + k)] = band[k, x]
        else:
            for k in range(count):
                at = (height - 1 - first - k if upside_down else first + k) * width
                for x in range(width):
                    out[at + (width - 1 - x if mirrored else x)] = band[k, x]


@kernel
def _chroma_row(planes, region, y, where, out):
    """Chroma for pixels of row y: into `out`, from the returned place on."""
    left, count, origin = where
    near, far = y // region.down, y // region.down
    if region.down == 2:
        last = (region.height + 1) // 2 - 1
        far = max(near - 1, 0) if y % 2 == 0 else min(near + 1, last)
    pitch, top = region.chroma_groups * LANES * region.chroma, region.top * region.chroma
    first, end = left // region.across, (left + count - 1) // region.across + 1  # samples
    base = origin + first - region.left * region.chroma
    a, b = planes[base + (near - top) * pitch :], planes[base + (far - top) * pitch :]
    if region.across == 1:
        if region.down == 1:
            for x in range(count):
                out[x] = a[x]
        else:
            half = _i4(1) if y % 2 == 0 else _i4(2)
            for x in range(count):
                out[x] = np.uint8(_i4(_i4(a[x]) * _i4(3) + _i4(b[x]) + half) >> _i4(2))
        return 0
    upper, lower, target = address_of(a), address_of(b), address_of(out)
    for x in range(0, end - first, 16):
        if region.down == 2:
            double_sixteen(upper + x, lower + x, 2, target + 2 * x)
        else:
            double_sixteen(upper + x, lower + x, 1, target + 2 * x)
    # Beyond the photo its last sample is repeated.
    if first == 0:
        out[0] = (3 * a[0] + b[0] + 2) // 4 if region.down == 2 else a[0]
    n = end - first - 1
    if end == (region.width + region.across - 1) // region.across:
        out[2 * n + 1] = (4 * (3 * np.int64(a[n]) + b[n]) + 7) // 16 if region.down == 2 else a[n]
    return left - first * 2

"""Planes of luma and chroma samples to rows of pixels.

Chroma is brought to the size of luma as libjpeg's "fancy upsampling" does it (weights 3:1 of the two nearest
samples along each axis), and YCbCr to RGB with JFIF's matrix in 16-bit fixed-point numbers.
"""

import numpy as np

from flowerfast.kernels.compiling import kernel
from flowerfast.kernels.jpeg_transform import LANES

_i4 = np.int32
BAND = 16
"""Rows that are turned at once: so many pixels of four bytes are a cache line."""


@kernel
def rgb_row(planes, region, y, left, chroma, out):
    """Pixels (left ... left + n) of row y of the photo into `out`, uint32 (n,): red lowest, then green, blue.

    `chroma` is scratch, int32 (4, n + 8) at least.
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
    skip = _chroma_row(planes, region, y, (left, count, region.blue), chroma[0], chroma[2])
    _chroma_row(planes, region, y, (left, count, region.red), chroma[1], chroma[2])
    blue, red = chroma[0][skip : skip + count], chroma[1][skip : skip + count]
    for x in range(count):
        level, b, r = _i4(light[x]), _i4(blue[x] - _i4(128)), _i4(red[x] - _i4(128))
        high = _clamp(_i4(level + (_i4(_i4(r * _i4(91881)) + _i4(32768)) >> _i4(16))))
        middle = _i4(_i4(b * _i4(-22554)) + _i4(_i4(r * _i4(-46802)) + _i4(32768)))
        middle = _clamp(_i4(level + (middle >> _i4(16))))
        low = _clamp(_i4(level + (_i4(_i4(b * _i4(116130)) + _i4(32768)) >> _i4(16))))
        out[x] = np.uint32(high | _i4(middle << _i4(8)) | _i4(low << _i4(16)))


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
def _clamp(level):
    return min(max(level, _i4(0)), _i4(255))


@kernel
def _chroma_row(planes, region, y, where, out, mixed):
    """Chroma for pixels of row y: into `out`, from the returned place on."""
    left, count, origin = where
    near, far = y // region.down, y // region.down
    if region.down == 2:
        last = (region.height + 1) // 2 - 1
        far = max(near - 1, 0) if y % 2 == 0 else min(near + 1, last)
    pitch, top = region.chroma_groups * LANES * region.chroma, region.top * region.chroma
    base = origin - region.left * region.chroma
    first, end = left // region.across, (left + count - 1) // region.across + 1  # samples
    last = (region.width + region.across - 1) // region.across - 1
    low, high = max(first - 1, 0), min(end, last) + 1
    a = planes[base + (near - top) * pitch + low : base + (near - top) * pitch + high]
    b = planes[base + (far - top) * pitch + low : base + (far - top) * pitch + high]
    if region.across == 1:
        shift = first - low
        if region.down == 1:
            for x in range(count):
                out[x] = a[x + shift]
        else:
            half = _i4(1) if y % 2 == 0 else _i4(2)
            for x in range(count):
                out[x] = (_i4(a[x + shift]) * _i4(3) + _i4(b[x + shift]) + half) >> _i4(2)
        return 0
    # mixed[1 + j] is sample first + j, with one more on either side; beyond the photo the last is repeated.
    inner = mixed[low - first + 1 : high - first + 1]
    for j in range(high - low):
        inner[j] = _i4(_i4(a[j]) * _i4(3) + _i4(b[j])) if region.down == 2 else _i4(a[j])
    if low == first:
        mixed[0] = mixed[1]
    if high == end:
        mixed[end - first + 1] = mixed[end - first]
    before, here, after = mixed[0 : end - first], mixed[1 : end - first + 1], mixed[2 : end - first + 2]
    bits, half = (_i4(4), _i4(8)) if region.down == 2 else (_i4(2), _i4(1))
    other = _i4(7) if region.down == 2 else _i4(2)
    for j in range(end - first):
        centre = _i4(here[j] * _i4(3))
        out[2 * j] = _i4(centre + before[j] + half) >> bits
        out[2 * j + 1] = _i4(centre + after[j] + other) >> bits
    return left - first * 2

"""Rotation, brightness, contrast and shift of small square images, as Pillow does them, in compiled loops.

Images here are uint32 (S, S), one pixel each: red in the lowest byte, then green and blue; the highest is
nobody's.
"""

import math

import numpy as np

from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.vectors import address_of, copy_slanted, store_int32


@kernel
def _span(start, step, side):
    """First and last + 1 x in [0, side) for which 0 <= start + step * x < side * 65536."""
    end = side << 16
    if step == 0:
        return (0, side) if 0 <= start < end else (0, 0)
    if step > 0:
        low, high = -(start // step), (end - 1 - start) // step + 1
    else:
        low, high = -((end - 1 - start) // -step), start // -step + 1
    return max(low, 0), min(high, side)


@kernel
def rotate(image, degrees, out):
    """`image` turned counter-clockwise about its centre into `out`, nearest neighbour, corners black.

    Positions are 16.16 fixed-point numbers, as in Pillow's `rotate` (Image.py, Geometry.c).
    """
    side = len(image)
    angle = -math.radians(degrees % 360.0)
    cos, sin, centre = math.cos(angle), math.sin(angle), side / 2.0
    across_x, across_y = centre - cos * centre - sin * centre, centre + sin * centre - cos * centre
    step_x, step_y = math.floor(cos * 65536.0 + 0.5), math.floor(-sin * 65536.0 + 0.5)
    down_x, down_y = math.floor(sin * 65536.0 + 0.5), math.floor(cos * 65536.0 + 0.5)
    x = np.int64(math.floor((across_x + cos * 0.5 + sin * 0.5) * 65536.0 + 0.5))
    y = np.int64(math.floor((across_y - sin * 0.5 + cos * 0.5) * 65536.0 + 0.5))
    step_x, step_y, down_x, down_y = np.int64(step_x), np.int64(step_y), np.int64(down_x), np.int64(down_y)
    each_x, each_y = np.int32(step_x), np.int32(step_y)
    flat, source = image.ravel(), address_of(image)
    for line in range(side):
        low_x, high_x = _span(x, step_x, side)
        low_y, high_y = _span(y, step_y, side)
        low, high = max(low_x, low_y), min(high_x, high_y)
        target = out[line]
        if low >= high:
            target[:] = 0
        else:
            target[:low] = 0
            target[high:] = 0
            eights = (high - low) // 8 * 8 if side < 1 << 15 else 0
            for i in range(low, low + eights, 8):
                at_x, at_y = np.int32(x + step_x * i), np.int32(y + step_y * i)
                copy_slanted(source, side, at_x, at_y, each_x, each_y, address_of(target) + 4 * i)
            for i in range(low + eights, high):
                target[i] = flat[((y + step_y * i) >> 16) * side + ((x + step_x * i) >> 16)]
        x += down_x
        y += down_y


@kernel
def grey_mean(image, brightness):
    """Mean of the grey image made so much brighter, rounded to a whole level as Pillow's contrast does."""
    total, factor = np.int64(0), np.float32(brightness)
    for y in range(len(image)):
        line = image[y]
        row = np.int32(0)
        for x in range(len(line)):
            pixel = np.int32(line[x])
            red, green = _brighter(pixel, factor), _brighter(np.int32(pixel >> np.int32(8)), factor)
            blue = _brighter(np.int32(pixel >> np.int32(16)), factor)
            weighted = np.int32(np.int32(red * np.int32(19595)) + np.int32(green * np.int32(38470)))
            weighted = np.int32(weighted + np.int32(np.int32(blue * np.int32(7471)) + np.int32(32768)))
            row = np.int32(row + np.int32(weighted >> np.int32(16)))
        total += row
    return int(total / (len(image) * len(image)) + 0.5)


@part
def _brighter(level, factor):
    """The lowest byte as `blend_table` makes it, with 0 to blend with."""
    blended = factor * np.float32(np.int32(level & np.int32(255)))
    return np.int32(min(max(blended, np.float32(0)), np.float32(255)))


@kernel
def blend_table(factor, level, table):
    """`table` becomes 256 values of clamp(level + factor * (x - level)), truncated: Pillow's blend."""
    level, factor = np.float32(level), np.float32(factor)
    for x in range(256):
        blended = level + factor * (np.float32(x) - level)
        table[x] = np.uint8(min(max(blended, np.float32(0)), np.float32(255)))


@kernel
def jitter_table(image, brightness, contrast, contrast_first, tables):
    """The table that does both steps of the jitter, each value in the place that it has in a pixel.

    Args:
        tables: uint32 (3, 256), of red, green and blue.
    """
    first, second = (2, 1) if contrast_first else (1, 2)  # the row of brightness is 1
    blend_table(brightness, 0, tables[1])
    blend_table(contrast, grey_mean(image, 1 if contrast_first else brightness), tables[2])
    for x in range(256):
        tables[0, x] = tables[second, tables[first, x]]
    for x in range(256):
        tables[1, x], tables[2, x] = tables[0, x] << 8, tables[0, x] << 16


@kernel
def shift_into(image, tables, right, down, out):
    """`image` through `tables`, moved by whole pixels, into `out`, uint8 (S, S, 3); the rest is black."""
    side = len(image)
    left, end = max(right, 0), min(side + right, side)
    for y in range(side):
        target = out[y]
        if y < down or y >= side + down or left >= end:
            target[:] = 0
            continue
        source, at = image[y - down], address_of(target)
        target[:left] = 0
        target[end:] = 0
        for x in range(left, end - 1):
            pixel = _changed(source[x - right], tables)
            store_int32(np.int32(pixel), at + 3 * x)  # and a byte of the next one, which is still to come
        pixel = _changed(source[end - 1 - right], tables)
        for channel in range(3):
            target[end - 1, channel] = np.uint8(pixel >> (8 * channel))


@part
def _changed(pixel, tables):
    return tables[0, pixel & 255] | tables[1, (pixel >> 8) & 255] | tables[2, (pixel >> 16) & 255]

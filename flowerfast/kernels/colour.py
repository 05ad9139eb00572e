"""Rotation, brightness, contrast and shift of small square images, as Pillow does them, in compiled loops.

Images here are uint32 (S, S), one pixel each: red in the lowest byte, then green and blue; the highest is
nobody's.
"""

import math

import numpy as np

from flowerfast.kernels.compiling import kernel, part


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
    flat = image.ravel()
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
            for i in range(low, high):
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
    """The table that does both steps of the jitter: tables[0], of scratch uint8 (3, 256)."""
    first, second = (2, 1) if contrast_first else (1, 2)  # the row of brightness is 1
    blend_table(brightness, 0, tables[1])
    blend_table(contrast, grey_mean(image, 1 if contrast_first else brightness), tables[2])
    for x in range(256):
        tables[0, x] = tables[second, tables[first, x]]


@kernel
def shift_into(image, table, right, down, out):
    """`image` through `table`, moved by whole pixels, into `out`, uint8 (S, S, 3); the rest is black."""
    side = len(image)
    left, end = max(right, 0), min(side + right, side)
    for y in range(side):
        target = out[y]
        if y < down or y >= side + down or left >= end:
            target[:] = 0
            continue
        source = image[y - down]
        target[:left] = 0
        target[max(end, 0) :] = 0
        for x in range(left, end):
            pixel = source[x - right]
            target[x, 0] = table[pixel & 255]
            target[x, 1] = table[(pixel >> 8) & 255]
            target[x, 2] = table[(pixel >> 16) & 255]

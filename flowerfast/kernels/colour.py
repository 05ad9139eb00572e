"""Rotation, brightness, contrast and shift of small square images, as Pillow does them, in compiled loops.

Images here are uint32 (S, S), one pixel each: red in the lowest byte, then green and blue; the highest is
nobody's.
"""

import math

import numpy as np

from flowerfast.kernels.compiling import kernel


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
def grey_mean(image):
    """Mean of the grey image, rounded to a whole level as Pillow's contrast does."""
    total = np.int64(0)
    for y in range(len(image)):
        line = image[y]
        row = np.uint32(0)
        for x in range(len(line)):
            pixel = line[x]
            red, green, blue = pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255
            row += np.uint32((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)
        total += row
    return int(total / (len(image) * len(image)) + 0.5)


@kernel
def blend_table(factor, level, table):
    """`table` becomes 256 values of clamp(level + factor * (x - level)), truncated: Pillow's blend."""
    level, factor = np.float32(level), np.float32(factor)
    for x in range(256):
        blended = level + factor * (np.float32(x) - level)
        table[x] = np.uint8(min(max(blended, np.float32(0)), np.float32(255)))


@kernel
def look_up(image, table):
    """Every byte of `image` through `table`, uint8 (256,), in place."""
    levels = image.view(np.uint8)
    for y in range(len(levels)):
        line = levels[y]
        for x in range(len(line)):
            line[x] = table[line[x]]


@kernel
def jitter_table(image, brightness, contrast, contrast_first, tables):
    """The table that does both steps of the jitter: tables[0], of scratch uint8 (3, 256).

    `image` has been through the first step when that is brightness, and is otherwise as it was.
    """
    if contrast_first:
        blend_table(contrast, grey_mean(image), tables[1])
        blend_table(brightness, 0, tables[2])
        for x in range(256):
            tables[0, x] = tables[2, tables[1, x]]
    else:
        if brightness != 1:
            blend_table(brightness, 0, tables[1])
            look_up(image, tables[1])
        blend_table(contrast, grey_mean(image), tables[0])


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

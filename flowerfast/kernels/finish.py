"""What is done to finished squares, in compiled loops: flip, colours, a policy's operations, blur, erasing.

Images are uint8 (S, S, 3) and changed in place, one after the other. What each step does is in
docs/augmentation.md; the pixels are those of `pixels.finish_reference`.
"""

from collections import namedtuple

import numpy as np

from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.finish_levels import change_levels, copy, drop_colours, saturate, sharpen, turn_hue
from flowerfast.kernels.operations import Operation

_ROTATE, _COLOUR, _SHARPNESS = int(Operation.rotate), int(Operation.colour), int(Operation.sharpness)

FinishSteps = namedtuple(
    "FinishSteps",
    "vflip saturation hue grey operation amount path taps erase_top erase_left erase_height erase_width",
)
"""A `Finish` in the loops' numbers, n rows each; those that are not named here are as there.

hue: int64, 0 to 255, how many 1/256 of the circle; -1: none.
operation: int64 (n, K).
amount: float64 (n, K), factor, bits or level of each operation.
path: int64 (n, K, 6), of operations that move pixels, in 1/65536 pixels: x and y of the source of the first
    pixel's centre, and by how much x and y change from a pixel to the next one to the right, and downwards.
taps: int32 (n, T), weights of the blur along one axis, in 1/16384; all 0: none.
"""
ROWS_BITS, COLUMNS_BITS = 7, 21
"""Bits that are dropped of a sum along a row, and then along a column: weights have 14, and so 7 are left."""


@kernel
def finish(images, which, steps):
    """Finish the images `which`, int64 (n,), of uint8 (N, S, S, 3); row i of `steps` is for which[i]."""
    side = images.shape[1]
    other, tables = np.empty((side, side, 3), np.uint8), np.empty((3, 256), np.uint8)
    for i in range(len(which)):
        image = images[which[i]]
        if steps.vflip[i]:
            _flip(image)
        if steps.saturation[i] != 1:
            saturate(image, np.float64(steps.saturation[i]))
        if steps.hue[i] >= 0:
            turn_hue(image, steps.hue[i])
        if steps.grey[i]:
            drop_colours(image)
        for k in range(steps.operation.shape[1]):
            operation, amount = steps.operation[i, k], steps.amount[i, k]
            if operation == _COLOUR:
                saturate(image, amount)
            elif operation == _SHARPNESS:
                sharpen(image, other, amount)
            elif operation > _ROTATE:
                change_levels(image, operation, amount, tables)
            elif operation > 0:
                _warp(image, steps.path[i, k], other)
        if steps.taps[i].any():
            _blur(image, steps.taps[i])
        for y in range(steps.erase_top[i], steps.erase_top[i] + steps.erase_height[i]):
            for x in range(steps.erase_left[i], steps.erase_left[i] + steps.erase_width[i]):
                for c in range(3):
                    image[y, x, c] = 0


@kernel
def _flip(image):
    side = len(image)
    for y in range(side // 2):
        for x in range(side):
            for c in range(3):
                image[y, x, c], image[side - 1 - y, x, c] = image[side - 1 - y, x, c], image[y, x, c]


@kernel
def _warp(image, path, out):
    """Each pixel from where `path` says, the nearest one there; black from beyond the edge."""
    side, pixels = len(image), image.reshape(-1, 3)
    for row in range(side):
        x, y, target = path[0] + row * path[4], path[1] + row * path[5], out[row]
        for column in range(side):
            at_x, at_y = x >> 16, y >> 16
            if at_x >= 0 and at_x < side and at_y >= 0 and at_y < side:
                source = pixels[at_y * side + at_x]
                for c in range(3):
                    target[column, c] = source[c]
            else:
                for c in range(3):
                    target[column, c] = 0
            x += path[2]
            y += path[3]
    copy(out, image)


@kernel
def _blur(image, taps):
    """Weighted sums along rows, then along columns, in whole numbers; beyond the edge lies its reflection."""
    side, reach = len(image), len(taps) // 2
    line, total = np.empty(3 * (side + 2 * reach), np.int32), np.empty(3 * side, np.int32)
    rows = np.empty((side, 3 * side), np.int32)
    for y in range(side):
        for x in range(-reach, side + reach):
            for c in range(3):
                line[3 * (x + reach) + c] = image[y, _reflected(x, side), c]
        total[:] = 0
        for k in range(len(taps)):
            weight, first = taps[k], 3 * k
            if weight != 0:
                for i in range(len(total)):
                    total[i] += np.int32(weight * line[first + i])
        for i in range(len(total)):
            rows[y, i] = (total[i] + (1 << (ROWS_BITS - 1))) >> ROWS_BITS
    lines = image.reshape(side, -1)
    for y in range(side):
        total[:] = 0
        for k in range(len(taps)):
            weight, source = taps[k], rows[_reflected(y + k - reach, side)]
            if weight != 0:
                for i in range(len(total)):
                    total[i] += np.int32(weight * source[i])
        for i in range(len(total)):
            lines[y, i] = (total[i] + (1 << (COLUMNS_BITS - 1))) >> COLUMNS_BITS


@part
def _reflected(place, side):
    return abs(place) if place < side else 2 * (side - 1) - place

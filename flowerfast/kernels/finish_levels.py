"""Colours of finished squares, as Pillow changes them, in compiled loops.

Images here are uint8 (S, S, 3), changed in place. Sources: Pillow's Blend.c, Convert.c, Filter.c and
ImageOps.py.
"""

import numpy as np

from flowerfast.kernels.colour import blend_table
from flowerfast.kernels.compiling import kernel, part
from flowerfast.kernels.operations import Operation

# Compiled loops compare plain numbers.
_BRIGHTNESS, _CONTRAST, _POSTERIZE, _SOLARIZE, _AUTO_CONTRAST = map(
    int,
    (
        Operation.brightness,
        Operation.contrast,
        Operation.posterize,
        Operation.solarize,
        Operation.auto_contrast,
    ),
)


@part
def _grey(red, green, blue):
    """Pillow's conversion to grey, in 16.16 fixed-point numbers."""
    return np.int32((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)


@part
def _blend(base, factor, level):
    """Pillow's blend from `base` to `level` and beyond, in float32 as there."""
    start = np.float32(base)
    blended = start + factor * (np.float32(level) - start)
    return np.uint8(min(max(blended, np.float32(0)), np.float32(255)))


@kernel
def copy(image, target):
    """Into another image, level by level: numba takes seconds to compile an assignment of slices."""
    source, flat = image.reshape(-1), target.reshape(-1)
    for i in range(len(source)):
        flat[i] = source[i]


@kernel
def saturate(image, factor):
    """Blended with its grey image; a factor of 0 leaves that."""
    pixels, share = image.reshape(-1, 3), np.float32(factor)
    for i in range(len(pixels)):
        red, green, blue = np.int32(pixels[i, 0]), np.int32(pixels[i, 1]), np.int32(pixels[i, 2])
        grey = _grey(red, green, blue)
        pixels[i, 0] = _blend(grey, share, red)
        pixels[i, 1] = _blend(grey, share, green)
        pixels[i, 2] = _blend(grey, share, blue)


@kernel
def turn_hue(image, shift):
    """Hues turned by so many 1/256 of the circle, by way of Pillow's HSV, which loses a little of each."""
    pixels = image.reshape(-1, 3)
    for i in range(len(pixels)):
        red, green, blue = np.int32(pixels[i, 0]), np.int32(pixels[i, 1]), np.int32(pixels[i, 2])
        most, least = max(red, green, blue), min(red, green, blue)
        if most == least:
            continue
        spread = np.float32(most - least)
        saturation = int(np.float64(spread / np.float32(most)) * 255.0)
        to_red, to_green = np.float32(most - red) / spread, np.float32(most - green) / spread
        to_blue = np.float32(most - blue) / spread
        if red == most:
            hue = to_blue - to_green
        elif green == most:
            hue = np.float32(2.0 + np.float64(to_red) - np.float64(to_blue))
        else:
            hue = np.float32(4.0 + np.float64(to_green) - np.float64(to_red))
        circle = np.float64(hue) / 6.0 + 1.0
        hue = np.float32(circle - 1.0 if circle >= 1.0 else circle)
        turned = (int(np.float64(hue) * 255.0) + shift) & 255
        if saturation == 0:
            pixels[i, 0] = pixels[i, 1] = pixels[i, 2] = np.uint8(most)
            continue
        place, value = turned * 6.0 / 255.0, np.float64(most)
        sector = int(place)
        rest, share = np.float32(place - sector), np.float32(saturation / 255.0)
        low = np.uint8(int(value * (1.0 - np.float64(share)) + 0.5))
        falling = np.uint8(int(value * (1.0 - np.float64(share * rest)) + 0.5))
        rising = np.uint8(int(value * (1.0 - np.float64(share) * (1.0 - np.float64(rest))) + 0.5))
        top, sector = np.uint8(most), sector % 6
        pixels[i, 0] = (top, falling, low, low, rising, top)[sector]
        pixels[i, 1] = (rising, top, top, falling, low, low)[sector]
        pixels[i, 2] = (low, low, rising, top, top, falling)[sector]


@kernel
def drop_colours(image):
    """Its grey image."""
    pixels = image.reshape(-1, 3)
    for i in range(len(pixels)):
        grey = _grey(np.int32(pixels[i, 0]), np.int32(pixels[i, 1]), np.int32(pixels[i, 2]))
        pixels[i, 0] = pixels[i, 1] = pixels[i, 2] = np.uint8(grey)


@kernel
def sharpen(image, before, factor):
    """Blended with a smoothed copy; the edge stays. `before` takes a copy, as large as the image."""
    side, share = len(image), np.float32(factor)
    copy(image, before)
    lines, targets = before.reshape(side, -1), image.reshape(side, -1)
    for y in range(1, side - 1):
        above, line, below, target = lines[y - 1], lines[y], lines[y + 1], targets[y]
        for i in range(3, 3 * side - 3):
            total = np.int32(above[i - 3]) + np.int32(above[i]) + np.int32(above[i + 3])
            total += np.int32(line[i - 3]) + 5 * np.int32(line[i]) + np.int32(line[i + 3])
            total += np.int32(below[i - 3]) + np.int32(below[i]) + np.int32(below[i + 3])
            target[i] = _blend(np.int32(2 * total + 13) // np.int32(26), share, line[i])


@kernel
def change_levels(image, operation, amount, tables):
    """An operation that knows levels alone. `tables`, uint8 (3, 256), takes what becomes of each."""
    pixels = image.reshape(-1, 3)
    if operation == _BRIGHTNESS:
        blend_table(amount, 0, tables[0])
    elif operation == _CONTRAST:
        total = np.int64(0)
        for i in range(len(pixels)):
            total += _grey(np.int32(pixels[i, 0]), np.int32(pixels[i, 1]), np.int32(pixels[i, 2]))
        blend_table(amount, int(total / len(pixels) + 0.5), tables[0])
    elif operation == _POSTERIZE:
        for x in range(256):
            tables[0, x] = x >> (8 - int(amount)) << (8 - int(amount))
    elif operation == _SOLARIZE:
        for x in range(256):
            tables[0, x] = x if x < amount else 255 - x
    else:
        counts = np.zeros((3, 256), np.int64)
        for i in range(len(pixels)):
            for c in range(3):
                counts[c, pixels[i, c]] += 1
        for c in range(3):
            if operation == _AUTO_CONTRAST:
                _stretch(counts[c], tables[c])
            else:
                _equalize(counts[c], tables[c])
    if operation < _AUTO_CONTRAST:
        for x in range(256):
            tables[1, x] = tables[2, x] = tables[0, x]
    for i in range(len(pixels)):
        for c in range(3):
            pixels[i, c] = tables[c, pixels[i, c]]


@kernel
def _stretch(counts, table):
    """The darkest level becomes 0, the brightest 255: Pillow's autocontrast."""
    low, high = 0, 255
    while low < 255 and counts[low] == 0:
        low += 1
    while high > 0 and counts[high] == 0:
        high -= 1
    scale = 255.0 / (high - low) if high > low else 1.0
    offset = -low * scale if high > low else 0.0
    for x in range(256):
        table[x] = min(max(int(x * scale + offset), 0), 255)


@kernel
def _equalize(counts, table):
    """About as many pixels of each level: Pillow's equalize."""
    total, last = np.int64(0), np.int64(0)
    for x in range(256):
        total += counts[x]
        last = counts[x] if counts[x] > 0 else last
    step = (total - last) // 255
    reached = step // 2
    for x in range(256):
        table[x] = min(reached // step, 255) if step > 0 else x
        reached += counts[x]

"""EXIF orientation: how a photo must be turned to stand upright, by what `ImageOps.exif_transpose` does.

1 is upright, 3 upside down, 6 and 8 lie on their sides; 2, 4, 5 and 7 are mirrored as well. To turn is to
swap the axes (5 to 8), then to mirror top and bottom (3, 4, 7, 8), then left and right (2, 3, 6, 7).
Source: Exif 2.32, 4.6.4, tag 274; the order of the steps is ours.
"""

import struct
from collections.abc import Mapping

import numpy as np
from PIL import Image

_TAG = 0x112
_KNOWN: Mapping[object, int] = {n: n for n in range(2, 9)}
_TAIL = 1 << 16  # bytes at the end of a PNG in which text and EXIF behind its pixels are looked for
_SAYS = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # in Pillow's `info`
_BEHIND = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # in the bytes of a PNG
# What Pillow raises for EXIF that is damaged.
_DAMAGED = (SyntaxError, struct.error, AttributeError, TypeError, LookupError, ValueError, OSError)


def read_orientation(image: Image.Image) -> int:
    """Orientation, 1 to 8, of an image that has just been opened; its pixels are not decoded.

    1 where `exif_transpose` leaves the image as it is or fails on damaged EXIF. So also for TIFF, which
    Pillow turns when it decodes. Only a PNG that has EXIF behind its pixels is decoded: Pillow finds it so.
    """
    try:
        if image.format == "PNG" and "exif" not in image.info and _may_follow(image):
            image.load()
        if image.format == "TIFF" or not any(name in image.info for name in _SAYS):
            return 1
        # Not image.getexif(): of a PNG without EXIF that decodes the pixels.
        return _KNOWN.get(Image.Image.getexif(image).get(_TAG), 1)
    except _DAMAGED:
        return 1


def decoded_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in pixels that an image which has just been opened will have when it is decoded.

    A TIFF is turned by Pillow then. If a tag of its own says how, its size is that of the turned image from
    the start; if its XMP alone does, not before it is decoded.
    """
    width, height = image.size
    if image.format != "TIFF" or "xmp" not in image.info or _TAG in getattr(image, "tag_v2", ()):
        return width, height
    try:
        swapped = _KNOWN.get(Image.Image.getexif(image).get(_TAG), 1) > 4
    except _DAMAGED:
        swapped = False  # decoding it says what is wrong
    return (height, width) if swapped else (width, height)


def _may_follow(image: Image.Image) -> bool:
    """Whether something in the end of a PNG that is yet to be decoded looks like EXIF."""
    file = getattr(image, "fp", None)
    if file is None or file.closed:
        return False
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(max(end - _TAIL, here))
    tail = file.read()
    file.seek(here)
    return any(name in tail for name in _BEHIND)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels as stored, (h, w, 3), upright: contiguous, (h, w, 3), or (w, h, 3) from orientation 5 on."""
    if orientation == 1:
        return pixels
    if orientation > 4:
        pixels = pixels.transpose(1, 0, 2)
    if (orientation - 1) & 2:
        pixels = pixels[::-1]
    if orientation & 2:
        pixels = pixels[:, ::-1]
    return np.array(pixels)  # of a photo one pixel thin ascontiguousarray leaves strides below 0

"""What a photo's header says, and whether the photo is one that can be taken."""

import io
from pathlib import Path
from typing import NamedTuple

from flowerfast.errors import one_line
from flowerfast.photos.formats import open_image
from flowerfast.photos.orientation import read_orientation

_PIXEL_BYTES, _FILE_BYTES = 16, 256 << 20  # most bytes of a file: so many for each pixel allowed, or so many


class LimitError(ValueError):
    """A photo of too many pixels or bytes."""


class Header(NamedTuple):
    """What a photo's header says: pixels as stored, orientation (1 to 8), and Pillow's mode."""

    width: int
    height: int
    orientation: int
    mode: str


def read_header(file: Path | io.BytesIO, max_pixels: int) -> Header:
    """The header alone. Raises OSError or ValueError when it is no photo, or one of too many pixels."""
    try:
        with open_image(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise LimitError(f"{width}x{height} pixels, more than data.max_pixels={max_pixels}")
            return Header(width, height, read_orientation(image), image.mode)
    except (OSError, ValueError):
        raise
    except Exception as error:  # of damage Pillow's plugins make almost any
        raise ValueError(one_line(error)) from error


def checked_header(file: Path, max_pixels: int) -> Header:
    """See `read_header`. LimitError also for a file of too many bytes."""
    check_bytes(file.stat().st_size, max_pixels)
    return read_header(file, max_pixels)


def check_bytes(size: int, max_pixels: int) -> None:
    """Raise LimitError for a file that no photo of so many pixels fills: it is not worth its memory."""
    most = max(max_pixels * _PIXEL_BYTES, _FILE_BYTES)
    if size > most:
        raise LimitError(f"has {size} bytes, more than {most}: no photo is that large")

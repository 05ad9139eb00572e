"""What a photo's header says, and whether the photo is one that can be taken."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flowerfast.errors import one_line
from flowerfast.photos.formats import open_image
from flowerfast.photos.orientation import decoded_size, read_orientation
from flowerfast.photos.walk import some

_PIXEL_BYTES, _FILE_BYTES = 16, 256 << 20  # most bytes of a file: so many for each pixel allowed, or so many
MAX_SIDE = 1_000_000
"""Pixels of a photo's long side at most: libpng's own limit, below which every decoder takes any format."""


class LimitError(OSError):
    """A photo of too many pixels or bytes: it is not to be read."""


class Header(NamedTuple):
    """What a photo's header says: pixels as `decode` gives them, orientation (1 to 8), and Pillow's mode."""

    width: int
    height: int
    orientation: int
    mode: str


def read_header(file: Path | io.BytesIO, max_pixels: int) -> Header:
    """The header alone. Raises OSError or ValueError when it is no photo, or one of too many pixels."""
    try:
        with open_image(file) as image:
            width, height = decoded_size(image)
            if width * height > max_pixels:
                raise LimitError(f"{width}x{height} pixels, more than data.max_pixels={max_pixels}")
            if max(width, height) > MAX_SIDE:
                raise LimitError(f"{width}x{height} pixels: no photo has a side of more than {MAX_SIDE}")
            return Header(width, height, read_orientation(image), image.mode)
    except (OSError, ValueError):
        raise
    except Exception as error:  # of damage Pillow's plugins make almost any
        raise ValueError(one_line(error)) from error


def checked_header(file: Path, max_pixels: int) -> Header:
    """See `read_header`. LimitError also for a file of too many bytes."""
    check_bytes(file.stat().st_size, max_pixels)
    return read_header(file, max_pixels)


def clipped_note(paths: Sequence[str]) -> str:
    """A line on photos whose modes are clipped, see `formats.is_clipped`."""
    what = "1 photo has" if len(paths) == 1 else f"{len(paths)} photos have"
    white = "more than 8 bits a channel, which Pillow turns white where it passes 255"
    return f"{what} {white}: {some(paths)}; convert to 8 bits"


def check_bytes(size: int, max_pixels: int) -> None:
    """Raise LimitError for a file that no photo of so many pixels fills: it is not worth its memory."""
    most = max(max_pixels * _PIXEL_BYTES, _FILE_BYTES)
    if size > most:
        raise LimitError(f"has {size} bytes, more than {most}: no photo is that large")

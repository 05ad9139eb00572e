"""Encoded bytes to RGB pixels, as the reference (Pillow, EXIF orientation ignored) would give them."""

import io
import re
import warnings

import numpy as np
import simplejpeg
from PIL import Image

_JPEG = b"\xff\xd8"
_PILLOW = re.compile(r"PIL\.")


class DecodeError(Exception):
    """A photo that the reference cannot decode either; the message is one line."""


def decode(
    encoded: np.ndarray, width: int, height: int, buffer: np.ndarray | None = None, shrink: int = 1
) -> np.ndarray:
    """RGB pixels of a photo: uint8 (height, width, 3), contiguous.

    Args:
        encoded: uint8 (bytes,), a whole JPEG, PNG, WebP or BMP file.
        width, height: size in pixels that the manifest promises.
        buffer: uint8, at least height * width * 3 long; JPEG pixels are decoded into it (a fifth faster than
            fresh memory), so the result is valid until the buffer's next use.
        shrink: 1, 2, 4 or 8: a JPEG may come at 1 / shrink of its size, rounded up. What cannot be decoded so
            comes whole.

    simplejpeg (libjpeg-turbo) gives the same pixels as Pillow and is faster; what it refuses (CMYK, damage
    that Pillow tolerates, other formats) goes to Pillow.
    Raises DecodeError when the file is no photo, is damaged, or has changed size since it was scanned.
    """
    if len(encoded) >= 2 and encoded[:2].tobytes() == _JPEG:
        try:
            found_height, found_width, space, _ = simplejpeg.decode_jpeg_header(encoded)
            _same_size((found_width, found_height), (width, height))
            if space in ("YCbCr", "Gray", "RGB"):
                least = (-(-height // shrink), -(-width // shrink)) if shrink > 1 else (0, 0)
                pixels: np.ndarray = simplejpeg.decode_jpeg(
                    encoded, "RGB", min_height=least[0], min_width=least[1], min_factor=1, buffer=buffer
                )
                return pixels
        except ValueError:
            pass  # damaged, perhaps tolerably: Pillow decides, as in the reference
    return _decode_pillow(encoded, width, height)


def _decode_pillow(encoded: np.ndarray, width: int, height: int) -> np.ndarray:
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(encoded.tobytes())) as image:
            _same_size(image.size, (width, height))
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(_one_line(error)) from error


def _silence_pillow() -> None:
    """Ignore Pillow's warnings, for good: the scan has checked data.max_pixels, and what Pillow says of
    palettes and EXIF does not concern the pixels. `catch_warnings` is not safe in threads: of two that
    overlap one leaves its filter in place for ever, and the other works without.
    """
    if ("ignore", None, Warning, _PILLOW, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW.pattern)


def _same_size(found: tuple[int, int], promised: tuple[int, int]) -> None:
    if tuple(found) != tuple(promised):
        raise DecodeError(
            f"is {found[0]}x{found[1]} now, was {promised[0]}x{promised[1]} when scanned: changed since"
        )


def _one_line(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return (str(error) or type(error).__name__).splitlines()[0]

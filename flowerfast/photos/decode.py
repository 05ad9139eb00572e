"""Encoded bytes to RGB pixels as they are stored, those that the reference (Pillow) would give."""

import io

import numpy as np
import simplejpeg
from PIL import UnidentifiedImageError

from flowerfast.errors import one_line
from flowerfast.photos.formats import open_image

_JPEG = b"\xff\xd8"
_FAST = ("YCbCr", "Gray", "RGB")  # colour spaces that simplejpeg turns into RGB as Pillow does


class DecodeError(Exception):
    """A photo that the reference cannot decode either; the message is one line."""


class ChangedError(DecodeError):
    """A photo of another size in pixels than when it was scanned."""


def decode(
    encoded: np.ndarray, width: int, height: int, buffer: np.ndarray | None = None, shrink: int = 1
) -> np.ndarray:
    """RGB pixels of a photo: uint8 (height, width, 3), contiguous.

    Args:
        encoded: uint8 (bytes,), a whole file in one of `formats.FORMATS`.
        width, height: size in pixels that the scan found.
        buffer: uint8, at least height * width * 3 long; JPEG pixels are decoded into it (a fifth faster than
            fresh memory), so the result is valid until the buffer's next use.
        shrink: 1, 2, 4 or 8: a JPEG may come at 1 / shrink of its size, rounded up. What cannot be decoded so
            comes whole.

    simplejpeg (libjpeg-turbo) gives the same pixels as Pillow and is faster; what it refuses (CMYK, damage
    that Pillow tolerates, other formats) goes to Pillow.
    Raises DecodeError when the file is no photo, is damaged, or has changed size since it was scanned.
    """
    if encoded[:2].tobytes() == _JPEG:
        header = jpeg_header(encoded)
        if header is not None:
            _same_size(header[:2], (width, height))
        if header is not None and header[2] in _FAST:
            least = (-(-height // shrink), -(-width // shrink)) if shrink > 1 else (0, 0)
            try:
                pixels: np.ndarray = simplejpeg.decode_jpeg(
                    encoded, "RGB", min_height=least[0], min_width=least[1], min_factor=1, buffer=buffer
                )
                return pixels
            except Exception:  # damaged, perhaps tolerably: Pillow decides, as in the reference
                pass
    return _decode_pillow(encoded, width, height)


def jpeg_header(encoded: np.ndarray) -> tuple[int, int, str] | None:
    """(width, height, colour space) of a JPEG; None: simplejpeg does not know it, Pillow may."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
    except Exception:  # ValueError: damaged; KeyError: chroma sampled in a way it has no name for, as 4:4:1
        return None
    return width, height, space


def _decode_pillow(encoded: np.ndarray, width: int, height: int) -> np.ndarray:
    try:
        with open_image(io.BytesIO(encoded.tobytes())) as image:
            _same_size(image.size, (width, height))
            pixels = np.array(image.convert("RGB"))
            _same_size((pixels.shape[1], pixels.shape[0]), (width, height))  # decoding may turn a TIFF
            return pixels
    except DecodeError:
        raise
    except Exception as error:  # of damage its plugins make almost any: RuntimeError, KeyError, struct.error
        raise DecodeError(reason(error)) from error


def _same_size(now: tuple[int, int], scanned: tuple[int, int]) -> None:
    if tuple(now) != tuple(scanned):
        raise ChangedError(
            f"is {now[0]}x{now[1]} now, was {scanned[0]}x{scanned[1]} when scanned: changed since"
        )


def reason(error: Exception) -> str:
    """Why a file is no photo, in one line."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)

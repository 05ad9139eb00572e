"""Encoded bytes to RGB pixels as they are stored, those that the reference (Pillow) would give."""

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from flowerfast.errors import one_line
from flowerfast.photos.formats import open_image
from flowerfast.photos.orientation import decoded_size, read_orientation, turn

_JPEG = b"\xff\xd8"
_FRAMES = range(0xC0, 0xD0)  # markers of frame headers, but for 4, 8 and 12
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
_SCALED_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, all of Huffman codes
_SCALED_LUMA = (0x11, 0x12, 0x21, 0x22)  # samples of luma per sample of chroma, across and down: at most two
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
        shrink: 1, 2, 4 or 8: a JPEG that `can_scale` names comes at 1 / shrink of its size, rounded up. All
            else comes whole.

    simplejpeg (libjpeg-turbo) gives the same pixels as Pillow and is faster; what it refuses (CMYK, damage
    that Pillow tolerates, other formats) goes to Pillow.
    Raises DecodeError when the file is no photo, is damaged, or has changed size since it was scanned.
    """
    if encoded[:2].tobytes() == _JPEG:
        header = jpeg_header(encoded)
        if header is not None:
            _same_size(header[:2], (width, height))
        if shrink > 1 and not can_scale(encoded):
            shrink = 1
        if header is not None and header[2] in _FAST:
            least = (-(-height // shrink), -(-width // shrink)) if shrink > 1 else (0, 0)
            try:
                pixels: np.ndarray = simplejpeg.decode_jpeg(
                    encoded, "RGB", min_height=least[0], min_width=least[1], min_factor=1, buffer=buffer
                )
                return pixels
            except Exception:  # damaged, perhaps tolerably: Pillow decides, as in the reference
                pass
        return _decode_pillow(encoded, width, height, shrink)
    return _decode_pillow(encoded, width, height)


def can_scale(encoded: np.ndarray) -> bool:
    """Whether a JPEG, uint8 (bytes,), is of a kind that is decoded at a part of its size.

    Those that nearly all photos are: 8 bits, Huffman codes, grey or three components, chroma sampled as luma
    or at half the rate along either axis. Decoders are little tried at scaling others.
    Source: ITU-T T.81, B.2.2.
    """
    at, end = 2, len(encoded)
    while at + 4 <= end and encoded[at] == 0xFF:
        marker, length = int(encoded[at + 1]), int(encoded[at + 2]) << 8 | int(encoded[at + 3])
        if marker in _FRAMES and marker not in _NO_FRAMES:
            return marker in _SCALED_FRAMES and _is_usual(encoded[at + 4 : at + 2 + length].tobytes())
        at += 1 if marker == 0xFF else 2 + length  # a byte that only fills, or a segment
    return False


def _is_usual(frame: bytes) -> bool:
    """Whether a frame header is of the kinds that `can_scale` names."""
    count = len(frame) // 3 - 2
    if count not in (1, 3) or len(frame) != 6 + 3 * count or (frame[0], frame[5]) != (8, count):
        return False
    luma, *chroma = frame[7::3]
    return set(chroma) <= {0x11} and luma in (_SCALED_LUMA if chroma else (0x11,))


def jpeg_header(encoded: np.ndarray) -> tuple[int, int, str] | None:
    """(width, height, colour space) of a JPEG; None: simplejpeg does not know it, Pillow may."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
    except Exception:  # ValueError: damaged; KeyError: chroma sampled in a way it has no name for, as 4:4:1
        return None
    return width, height, space


def _decode_pillow(encoded: np.ndarray, width: int, height: int, shrink: int = 1) -> np.ndarray:
    try:
        with open_image(io.BytesIO(encoded.tobytes())) as image:
            _same_size(decoded_size(image), (width, height))
            if shrink > 1:
                image.draft(None, (width // shrink, height // shrink))
            return np.array(image.convert("RGB"))
    except DecodeError:
        raise
    except Exception as error:  # of damage its plugins make almost any: RuntimeError, KeyError, struct.error
        raise DecodeError(reason(error)) from error


def decode_image(image: Image.Image, upright: bool) -> np.ndarray:
    """RGB pixels of an image that has been opened elsewhere: uint8 (h, w, 3); `upright`: turned as EXIF says.

    Raises DecodeError.
    """
    try:
        orientation = read_orientation(image) if upright else 1
        return turn(np.array(image.convert("RGB")), orientation)
    except Exception as error:  # as above
        raise DecodeError(reason(error)) from error


def _same_size(now: tuple[int, int], scanned: tuple[int, int]) -> None:
    if tuple(now) != tuple(scanned):
        raise ChangedError(
            f"is {now[0]}x{now[1]} now, was {scanned[0]}x{scanned[1]} when scanned: changed since"
        )


def reason(error: Exception) -> str:
    """Why a file is no photo, in one line."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else one_line(error)

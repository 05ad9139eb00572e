"""One photo as it will lie in a shard: copied, shrunk, as a JPEG, or coded anew."""

from dataclasses import replace

import numpy as np
import simplejpeg

from flowerfast.errors import one_line
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.tar_shard import Photo
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos
from flowerfast.pixels.reference import resize
from flowerfast.plans.geometry import limited

_MAGIC = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"GIF8": "gif",
    b"II": "tif",
    b"MM": "tif",
    b"P": "ppm",
}
_JPEG_SIDE = 65_500  # pixels; libjpeg writes no longer one


def prepare(photos: Photos, settings: PackSettings, sample: np.ndarray) -> Photo | str:
    """The photo of one sample as it will be packed, or why it cannot be."""
    photo = _chosen(photos, settings, sample)
    if settings.seekable and not isinstance(photo, str) and photo.extension == "jpg":
        from flowerfast.packing.seekable import seekable  # imports numba

        encoded = seekable(photo.encoded, photo.width, photo.height)
        if encoded is not None:
            return replace(photo, encoded=encoded, seekable=True)
    return photo


def _chosen(photos: Photos, settings: PackSettings, sample: np.ndarray) -> Photo | str:
    """The photo of one sample copied, shrunk or re-coded, or why it cannot be."""
    table, row = photos.table, int(sample[0])
    width, height = int(table.width[row]), int(table.height[row])
    try:
        encoded = photos.read_one(row)
        if len(encoded) != table.size[row]:
            return f"has {len(encoded)} bytes, had {table.size[row]} when scanned: changed since"
        large = settings.max_side is not None and min(width, height) > settings.max_side
        if not large and (not settings.jpeg or encoded[:2].tobytes() == b"\xff\xd8"):
            shape = width, height, int(table.orientation[row])
            return Photo(encoded, _extension(encoded), *shape)
        pixels = photos.decode(row, encoded)
        if large and settings.max_side is not None:
            pixels = _shrink(pixels, settings.max_side)
        return _as_jpeg(pixels, settings.quality, recoded=not large)
    except (OSError, DecodeError) as error:
        return one_line(error)


def _shrink(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """Pixels, uint8 (h, w, 3), with a short side of `max_side`."""
    height, width = pixels.shape[:2]
    new_width, new_height = limited((np.array([width]), np.array([height])), max_side)
    return resize(pixels, int(new_height[0]), int(new_width[0]))


def _as_jpeg(pixels: np.ndarray, quality: int, recoded: bool) -> Photo:
    """Pixels, uint8 (h, w, 3), as a JPEG. Raises DecodeError when they are too many for one.

    Chroma at half the resolution (4:2:0), as cameras write it: full chroma comes a little closer to the
    pixels, and is paid for in bytes that every epoch reads.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > _JPEG_SIDE:
        raise DecodeError(f"{width}x{height} pixels cannot be a JPEG, whose sides have {_JPEG_SIDE} at most")
    encoded = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    return Photo(np.frombuffer(encoded, np.uint8), "jpg", width, height, orientation=1, recoded=recoded)


def _extension(encoded: np.ndarray) -> str:
    """Extension by content, by which other readers choose a decoder."""
    start = encoded[:4].tobytes()
    return next((extension for magic, extension in _MAGIC.items() if start.startswith(magic)), "avif")

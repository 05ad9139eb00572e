"""Small pictures of photos, for pages that hold all they show."""

import base64
import io
from contextlib import closing

import numpy as np
from PIL import Image

from flowerfast.machine import Progress, usable_cores
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos
from flowerfast.photos.workers import Workers, in_order, iter_chunks

SIDE = 128
"""Pixels of a thumbnail's long side, where not said otherwise."""
QUALITY = 75
"""Of their JPEGs."""
_CHUNK = 4  # photos per task


def thumbnails(
    photos: Photos, rows: list[int], progress: Progress | None = None, side: int = SIDE
) -> dict[int, str]:
    """Data URIs of small JPEGs, by sample index; rising `rows`. Those that cannot be decoded are left out.

    `progress` is told (photos done, photos in all). Raises RunFailed when a disk does not answer.
    """

    def work(some: np.ndarray) -> list[str | None]:
        return [_thumbnail(photos, row, side) for row in some.tolist()]

    made: dict[int, str] = {}
    pieces, threads = [*iter_chunks(np.array(rows, np.int64), _CHUNK)], usable_cores()
    with closing(Workers(threads, "flowerfast-thumbnails")) as pool:
        for piece, drawn in zip(pieces, in_order(pool, work, pieces, 2 * threads, photos.place), strict=True):
            made |= {row: uri for row, uri in zip(piece.tolist(), drawn, strict=True) if uri is not None}
            if progress:
                progress(int(np.searchsorted(rows, piece[-1])) + 1, len(rows))
    return made


def data_uri(pixels: np.ndarray, side: int = SIDE) -> str:
    """A picture, uint8 (h, w, 3), as a JPEG of at most `side` pixels on its long side."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def enough(photos: Photos, row: int, side: int) -> int:
    """By how much a photo may be shrunk in decoding, 1 to 8, and keep `side` pixels on its short side."""
    short = min(int(photos.table.width[row]), int(photos.table.height[row]))
    return next((by for by in (8, 4, 2) if short // by >= side), 1)


def _thumbnail(photos: Photos, row: int, side: int) -> str | None:
    try:
        return data_uri(photos.decode(row, shrink=enough(photos, row, side)), side)
    except (OSError, DecodeError):
        return None

"""Whether the photos of shards are those that were packed, by the checksums in the index."""

import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.errors import UserError
from flowerfast.machine import Progress, usable_cores
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import is_packed
from flowerfast.photos.workers import Workers, in_order, iter_chunks
from flowerfast.places import url_of

_CHUNK = 16  # photos per task


def damaged(folder: Path, threads: int | None = None, progress: Progress | None = None) -> list[str]:
    """Photos of a folder of shards whose bytes are not those that were packed: shard, member and path.

    Reads every byte of every photo, in the order in which they lie, also at a URL. Raises UserError when a
    shard is missing or has another size.
    """
    if url_of(folder) is None and folder.is_dir() and not is_packed(folder):
        raise _no_shards(folder)  # tar files of others have no checksums
    with tempfile.TemporaryDirectory() as nowhere:  # what is kept of remote shards says nothing of these
        none: dict[str, Any] = {"cache_dir": nowhere, "cache_gb": 1e-9} if url_of(folder) is not None else {}
        photos = Photos(folder, max_pixels=1 << 62, exif="ignore", min_classes=1, **none)
        return _damaged(photos, folder, threads or usable_cores(), progress)


def _no_shards(folder: Path) -> UserError:
    return UserError(f"{folder}: no packed photos there; give the OUT of `flowerfast pack DATA OUT`")


def _damaged(photos: Photos, folder: Path, threads: int, progress: Progress | None) -> list[str]:
    shards = photos.table.shards
    if shards is None:
        raise _no_shards(folder)
    order = np.lexsort((shards.offset, shards.shard))
    damaged_photos: list[str] = []
    done = 0

    def wrong(rows: np.ndarray) -> list[int]:
        found, _ = photos.read(rows)  # which compares each with its checksum
        return [row for row, photo in zip(rows.tolist(), found, strict=True) if isinstance(photo, OSError)]

    with closing(Workers(threads, "flowerfast-verify")) as pool:
        for rows in in_order(pool, wrong, iter_chunks(order, _CHUNK), 2 * threads, photos.place):
            damaged_photos += [photos.where(row) for row in rows]
            done = min(done + _CHUNK, len(order))
            if progress:
                progress(done, len(order))
    return damaged_photos

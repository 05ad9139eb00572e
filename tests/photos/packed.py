"""Photos beside their shards."""

from pathlib import Path

import numpy as np

from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos

SMALL = PackSettings(shard_bytes=20_480)


def packed(photos: Path, settings: PackSettings = SMALL) -> tuple[Photos, Photos]:
    """Photos of a folder and of its shards, which are beside it."""
    pack(photos, photos.parent / "shards", settings, DataConfig())
    return Photos(photos), Photos(photos.parent / "shards")


def contents(photos: Photos) -> list[bytes]:
    """Encoded bytes of all photos of a set."""
    found, _ = photos.read(photos.indices)
    assert all(isinstance(photo, np.ndarray) for photo in found), found
    return [photo.tobytes() for photo in found if isinstance(photo, np.ndarray)]

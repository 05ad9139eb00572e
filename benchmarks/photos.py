"""Photos made of others for comparisons, shrunk, camera-sized or progressive; kept in the user's cache."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.peers import made_once
from flowerfast.bench.sources import sample
from flowerfast.machine import usable_cores, user_cache_dir
from flowerfast.photos.photos import Photos

SHORT_SIDE, SHRUNK_QUALITY = 256, 90
CAMERA, CAMERA_QUALITY = (4000, 3000), 92
Change = Callable[[Image.Image], Image.Image]


def cache_folder(data: Path) -> Path:
    """Where files made of these photos are kept; another one when a photo changes."""
    key = hashlib.sha256(f"{data.resolve()} {Photos(data).table.fingerprint}".encode()).hexdigest()[:12]
    folder = user_cache_dir() / "compare" / f"{data.name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shrunk(data: Path) -> Path:
    """All photos with a short side of at most 256 pixels, re-encoded at quality 90."""

    def change(image: Image.Image) -> Image.Image:
        ratio = SHORT_SIDE / min(image.size)
        if ratio >= 1:
            return image
        width, height = (round(side * ratio) for side in image.size)
        return image.resize((width, height), Image.Resampling.BILINEAR)

    return _changed(Photos(data), cache_folder(data) / "short-side-256", change, quality=SHRUNK_QUALITY)


def enlarged(data: Path, count: int) -> Path:
    """`count` photos, spread over the classes, enlarged to about 12 megapixels at quality 92.

    An enlarged photo has less fine detail than a camera's: its file is smaller, and decodes faster.
    """

    def change(image: Image.Image) -> Image.Image:
        wide = image.width >= image.height
        return image.resize(CAMERA if wide else CAMERA[::-1], Image.Resampling.BICUBIC)

    chosen = sample(Photos(data), count)
    return _changed(chosen, cache_folder(data) / f"camera-{len(chosen)}", change, quality=CAMERA_QUALITY)


def progressive(data: Path) -> Path:
    """All photos re-encoded as progressive JPEGs at quality 90."""
    folder = cache_folder(data) / "progressive"
    return _changed(Photos(data), folder, lambda image: image, quality=SHRUNK_QUALITY, progressive=True)


def _changed(photos: Photos, folder: Path, change: Change, **options: Any) -> Path:
    def one(sample: tuple[int, int]) -> None:
        index, label = sample
        file = folder / photos.classes[label] / f"{index:08d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photos.root / photos.path(index)) as image:
            change(image.convert("RGB")).save(file, **options)

    def fill(_: Path) -> None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(one, zip(photos.indices.tolist(), photos.labels.tolist(), strict=True)))

    return made_once(folder, fill)

"""Photos made of other photos for the comparison, shrunk or camera-sized; kept in the user's cache."""

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from flowerfast.data.manifest import Manifest, load_manifest, user_cache_dir
from flowerfast.loaders.torchvision import usable_cores

SHORT_SIDE, SHRUNK_QUALITY = 256, 90
CAMERA, CAMERA_QUALITY = (4000, 3000), 92
Change = Callable[[Image.Image], Image.Image]


def cache_folder(data: Path) -> Path:
    """Where files made of these photos are kept; another one when a photo changes."""
    key = hashlib.sha256(f"{data.resolve()} {load_manifest(data).fingerprint}".encode()).hexdigest()[:12]
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

    manifest = load_manifest(data)
    return _make(
        manifest, range(len(manifest)), cache_folder(data) / "short-side-256", change, SHRUNK_QUALITY
    )


def enlarged(data: Path, count: int) -> Path:
    """`count` photos, spread over the classes, enlarged to about 12 megapixels at quality 92.

    An enlarged photo has less fine detail than a camera's: its file is smaller, and decodes faster.
    """

    def change(image: Image.Image) -> Image.Image:
        wide = image.width >= image.height
        return image.resize(CAMERA if wide else CAMERA[::-1], Image.Resampling.BICUBIC)

    manifest = load_manifest(data)
    chosen = np.unique(np.linspace(0, len(manifest) - 1, count).round().astype(int))
    return _make(manifest, chosen, cache_folder(data) / f"camera-{len(chosen)}", change, CAMERA_QUALITY)


def _make(manifest: Manifest, indices: object, folder: Path, change: Change, quality: int) -> Path:
    if folder.is_dir():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)

    def one(index: int) -> None:
        source = Path(manifest.path(int(index)))
        file = part / manifest.classes[manifest.label[index]] / f"{index:08d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(manifest.root / source) as image:
            change(image.convert("RGB")).save(file, quality=quality)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(one, indices))
    part.rename(folder)
    return folder

"""Photos made of others for comparisons: shrunk, camera-sized or progressive, kept in the user's cache.

    python benchmarks/photos.py OUT DATA [DATA ...] [--each N]

writes a folder OUT of the size that photos of data sets from the web have: 400x500 pixels at quality 92, made
of N photos of each folder DATA, evenly spread over its classes.
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import made_once
from flowerfast.bench.sources import sample
from flowerfast.errors import UserError
from flowerfast.machine import usable_cores, user_cache_dir
from flowerfast.photos.photos import Photos

SHORT_SIDE, SHRUNK_QUALITY = 256, 90
CAMERA, CAMERA_QUALITY = (4000, 3000), 92
WEB, WEB_QUALITY = (500, 400), 92
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


def like_the_web(photos: Photos, folder: Path) -> None:
    """All photos cut to 5:4 or 4:5 and resized to 500x400 or 400x500, at quality 92.

    Of a photo that was smaller the file is too, for want of fine detail.
    """

    def change(image: Image.Image) -> Image.Image:
        size = WEB if image.width >= image.height else WEB[::-1]
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)

    _fill(photos, folder, change, f"{photos.root.name}-", quality=WEB_QUALITY)


def numbered(data: Path, count: int, folder: Path) -> Photos:
    """Copies `count` photos, spread over the classes, to CLASS/ID.jpg with ids in order, and says which."""
    chosen = sample(Photos(data), count)
    for number, index in enumerate(chosen.indices):
        file = folder / f"class-{chosen.table.label[index]:03d}" / f"{number:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chosen.root / chosen.path(index), file)
    return chosen


def _changed(photos: Photos, folder: Path, change: Change, **options: Any) -> Path:
    return made_once(folder, lambda _: _fill(photos, folder, change, **options))


def _fill(photos: Photos, folder: Path, change: Change, prefix: str = "", **options: Any) -> None:
    def one(sample: tuple[int, int]) -> None:
        index, label = sample
        file = folder / photos.classes[label] / f"{prefix}{index:08d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photos.root / photos.path(index)) as image:
            change(image.convert("RGB")).save(file, **options)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(one, zip(photos.indices.tolist(), photos.labels.tolist(), strict=True)))


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2: a folder cannot be read, or is there already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("data", type=Path, nargs="+", help="folders of class folders of photos")
    parser.add_argument("--each", type=int, metavar="N", help="photos of each folder; all if not given")
    given = parser.parse_args(arguments)
    try:
        if given.out.exists():
            raise UserError(f"{given.out}: it is there already; name a new folder")
        chosen = [sample(Photos(folder), given.each) for folder in given.data]
    except UserError as error:
        print(f"photos.py: error: {error}", file=sys.stderr)
        return 2
    for photos in chosen:
        like_the_web(photos, given.out)
    print(f"{given.out}: {sum(map(len, chosen)):,} photos")
    return 0


if __name__ == "__main__":
    sys.exit(main())

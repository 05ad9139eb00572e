"""The photos that rows work on, rendered on the spot: no machine need have any at hand.

flowers   rendered flowers as `flowerfast synth` makes them, for training
small     224 x 224 pixels, cut from them
camera    666 x 500 and 500 x 666
odd       one file of each kind that a folder may hold
many      of many sizes, 16 to 2,000 pixels a side, with full and halved chroma, baseline and progressive
"""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.acceptance.place import Sizes
from flowerfast.data.synthetic import synthesize
from flowerfast.loaders.torchvision import usable_cores

SETS = ("flowers", "small", "camera", "odd", "many")
SMALL, CAMERA = (224, 224), (666, 500)
_SHORTEST, _LONGEST = 16, 2000  # sides of `many`, in pixels
_ORIENTATION = 0x112  # EXIF tag
_CLASSES = 2


@dataclass(frozen=True)
class Picture:
    """A file to be written: its name, pixels and Pillow's options."""

    name: str
    image: Image.Image
    options: dict[str, Any]


def make_sets(root: Path, sizes: Sizes, names: Iterable[str]) -> dict[str, str]:
    """Folders of the sets `names` by name; those made before by this call are kept."""
    flowers = root / f"flowers-{sizes.per_class}"
    synthesize(flowers, sizes.per_class)
    base = sorted(flowers.glob("*/*.jpg"))
    makers: dict[str, Callable[[Path], None]] = {
        "small": lambda folder: _write(folder, sizes.pictures, lambda i: _small(base, i)),
        "camera": lambda folder: _write(folder, sizes.pictures, lambda i: _camera(base, i)),
        "odd": lambda folder: _write_odd(folder, base),
        "many": lambda folder: _write(folder, sizes.many, lambda i: _any_size(base, i)),
    }
    found = {}
    for name in names:
        folder = flowers if name == "flowers" else root / f"{name}-{sizes.name}"
        if not folder.exists():
            part = folder.with_name(f"{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            makers[name](part)
            part.rename(folder)
        found[name] = str(folder)
    return found


def _write(folder: Path, count: int, make: Callable[[int], Picture]) -> None:
    for number in range(_CLASSES):
        (folder / f"class_{number}").mkdir(parents=True)

    def one(index: int) -> None:
        picture = make(index)
        picture.image.save(folder / f"class_{index % _CLASSES}" / picture.name, **picture.options)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(one, range(count)))


def _part(base: list[Path], index: int, size: tuple[int, int]) -> Image.Image:
    """A random part of a flower, scaled to `size` (width, height)."""
    rng = np.random.default_rng((7, index))
    with Image.open(base[index % len(base)]) as flower:
        width, height = size
        scale = min(flower.width / width, flower.height / height) * rng.uniform(0.7, 1.0)
        wide, high = max(width * scale, 1.0), max(height * scale, 1.0)
        left, top = rng.uniform(0, flower.width - wide), rng.uniform(0, flower.height - high)
        box = (left, top, left + wide, top + high)
        return flower.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=box)


def _small(base: list[Path], index: int) -> Picture:
    return Picture(f"{index:05}.jpg", _part(base, index, SMALL), {"quality": 90})


def _camera(base: list[Path], index: int) -> Picture:
    size = CAMERA if index % 3 else CAMERA[::-1]
    return Picture(f"{index:05}.jpg", _part(base, index, size), {"quality": 92})


def _any_size(base: list[Path], index: int) -> Picture:
    rng = np.random.default_rng((8, index))
    width, height = np.exp(rng.uniform(np.log(_SHORTEST), np.log(_LONGEST), 2)).astype(int).tolist()
    image = _part(base, index, (width, height))
    options = {
        "quality": int(rng.integers(60, 98)),
        "subsampling": int(rng.integers(0, 3)),
        "progressive": bool(rng.random() < 0.1),
    }
    if rng.random() < 0.05:
        image, options = image.convert("L"), {"quality": options["quality"]}
    return Picture(f"{index:05}.jpg", image, options)


def _write_odd(folder: Path, base: list[Path]) -> None:
    odd = list(_odd(base))
    _write(folder, len(odd), lambda index: odd[index])


def _odd(base: list[Path]) -> Iterable[Picture]:
    photo, exif = _part(base, 0, (400, 300)), Image.Exif()
    exif[_ORIENTATION] = 6  # "turn right by 90 degrees", which loaders must leave alone
    for name, subsampling in (("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0")):
        yield Picture(f"chroma_{name}.jpg", photo, {"subsampling": subsampling, "quality": 90})
    yield Picture("progressive.jpg", photo, {"progressive": True})
    yield Picture("exif.jpg", photo, {"exif": exif})
    yield Picture("rgb_space.jpg", photo, {"keep_rgb": True})
    yield Picture("grey.jpg", photo.convert("L"), {})
    yield Picture("cmyk.jpg", photo.convert("CMYK"), {})
    yield Picture("one_pixel.jpg", _part(base, 1, (1, 1)), {})
    yield Picture("wide.jpg", _part(base, 2, (3000, 40)), {})
    yield Picture("tall.jpg", _part(base, 3, (40, 3000)), {})
    yield Picture("odd_sides.jpg", _part(base, 4, (333, 257)), {})
    yield Picture("really_jpeg.png", photo, {"format": "JPEG"})
    yield Picture("plain.png", photo, {})
    yield Picture("grey.png", photo.convert("L"), {})
    yield Picture("palette.png", photo.quantize(64), {})
    alpha = photo.copy()
    alpha.putalpha(photo.convert("L"))
    yield Picture("alpha.png", alpha, {})
    yield Picture("deep.png", Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * 257), {})
    yield Picture("lossy.webp", photo, {"quality": 80})
    yield Picture("lossless.webp", photo, {"lossless": True})
    yield Picture("plain.bmp", photo, {})

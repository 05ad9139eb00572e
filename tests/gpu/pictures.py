"""The photos that the checks work on, rendered on the spot: no machine need have any at hand.

flowers   rendered flowers as `flowerfast synth` makes them, for training
small     224 x 224 pixels, cut from them
camera    666 x 500 and 500 x 666
odd       one file of each kind that a folder may hold
many      of many sizes, 16 to 2,000 pixels a side, with full and halved chroma, baseline and progressive

Pillow keeps a writer's settings on the image object, so no object is ever in the hands of two threads: the
sets that are made by several are of photos that each makes for itself, from the file of a flower to its own.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flowerfast.demo.synthetic import synthesize
from flowerfast.machine import usable_cores
from tests.gpu.place import Sizes

SMALL, CAMERA = (224, 224), (666, 500)
_SHORTEST, _LONGEST = 16, 2000  # sides of `many`, in pixels
_ORIENTATION = 0x112  # EXIF tag
_CLASSES = 2
_FEW = 50  # photos: not worth threads or processes
_Save = Callable[[list[Path], int, Path], None]
"""Makes picture number i of a set from the flowers and writes it: (flowers, i, path without suffix)."""


def make_set(name: str, root: Path, sizes: Sizes) -> Path:
    """The folder of a set, made when it is first asked for."""
    folder = root / name
    if not folder.exists():
        if name == "flowers":
            synthesize(folder, sizes.per_class, processes=1 if sizes.per_class * 5 < _FEW else None)
        else:
            base = sorted(make_set("flowers", root, sizes).glob("*/*.jpg"))
            for number in range(_CLASSES):
                (folder / f"class_{number}").mkdir(parents=True)
            if name == "odd":
                _write_odd(base, folder)
            else:
                counts = {"small": sizes.pictures, "camera": sizes.pictures, "many": sizes.many}
                _write(folder, base, counts[name], {"small": _small, "camera": _camera, "many": _any}[name])
    return folder


def _write(folder: Path, base: list[Path], count: int, save: _Save) -> None:
    def one(index: int) -> None:
        save(base, index, folder / f"class_{index % _CLASSES}" / f"{index:05}.jpg")

    with ThreadPoolExecutor(usable_cores() if count > _FEW else 1) as pool:
        list(pool.map(one, range(count)))


def _part(base: list[Path], index: int, size: tuple[int, int]) -> Image.Image:
    """A random part of a flower, scaled to `size` (width, height): an image of the caller's own."""
    rng = np.random.default_rng((7, index))
    with Image.open(base[index % len(base)]) as flower:
        width, height = size
        scale = min(flower.width / width, flower.height / height) * rng.uniform(0.7, 1.0)
        wide, high = max(width * scale, 1.0), max(height * scale, 1.0)
        left, top = rng.uniform(0, flower.width - wide), rng.uniform(0, flower.height - high)
        box = (left, top, left + wide, top + high)
        return flower.convert("RGB").resize(size, Image.Resampling.BICUBIC, box=box)


def _small(base: list[Path], index: int, file: Path) -> None:
    _part(base, index, SMALL).save(file, quality=90)


def _camera(base: list[Path], index: int, file: Path) -> None:
    _part(base, index, CAMERA if index % 3 else CAMERA[::-1]).save(file, quality=92)


def _any(base: list[Path], index: int, file: Path) -> None:
    rng = np.random.default_rng((8, index))
    width, height = np.exp(rng.uniform(np.log(_SHORTEST), np.log(_LONGEST), 2)).astype(int).tolist()
    image, quality = _part(base, index, (width, height)), int(rng.integers(60, 98))
    if rng.random() < 0.05:
        image.convert("L").save(file, quality=quality)
    else:
        progressive = bool(rng.random() < 0.1)
        image.save(file, quality=quality, subsampling=int(rng.integers(0, 3)), progressive=progressive)


def _write_odd(base: list[Path], folder: Path) -> None:
    photo, exif = _part(base, 0, (400, 300)), Image.Exif()
    grey, alpha = photo.convert("L"), photo.copy()
    alpha.putalpha(grey)
    exif[_ORIENTATION] = 6  # "turn right by 90 degrees", which loaders do
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    odd: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "chroma_444.jpg": (photo, {"subsampling": "4:4:4", "quality": 90}),
        "chroma_422.jpg": (photo, {"subsampling": "4:2:2", "quality": 90}),
        "chroma_420.jpg": (photo, {"subsampling": "4:2:0", "quality": 90}),
        "progressive.jpg": (photo, {"progressive": True}),
        "exif.jpg": (photo, {"exif": exif}),
        "rgb_space.jpg": (photo, {"keep_rgb": True}),
        "grey.jpg": (grey, {}),
        "cmyk.jpg": (photo.convert("CMYK"), {}),
        "one_pixel.jpg": (_part(base, 1, (1, 1)), {}),
        "wide.jpg": (_part(base, 2, (3000, 40)), {}),
        "tall.jpg": (_part(base, 3, (40, 3000)), {}),
        "odd_sides.jpg": (_part(base, 4, (333, 257)), {}),
        "really_jpeg.png": (photo, {"format": "JPEG"}),
        "plain.png": (photo, {}),
        "grey.png": (grey, {}),
        "palette.png": (photo.quantize(64), {}),
        "alpha.png": (alpha, {}),
        "deep.png": (deep, {}),
        "lossy.webp": (photo, {"quality": 80}),
        "lossless.webp": (photo, {"lossless": True}),
        "plain.bmp": (photo, {}),
    }
    for number, (name, (image, options)) in enumerate(odd.items()):  # one after another: they share objects
        image.save(folder / f"class_{number % _CLASSES}" / name, **options)

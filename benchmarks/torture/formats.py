"""Damaged files of every format but JPEG, and photos of extreme shapes: a bad file, or one picture for all.

Whatever is left of a file, the scan, `decode`, the CPU's two executors and DALI on the CPU must agree on
whether it is a photo, and the two executors on every pixel.
"""

import io
import shutil
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.torture.memory import Growth
from benchmarks.torture.trial import Tally, Trial
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.kernels.ready import LOOPS
from flowerfast.loaders.loader import Loader
from flowerfast.photos.decode import DecodeError, decode
from flowerfast.photos.header import MAX_SIDE, read_header
from flowerfast.photos.photos import Photos

_MUTANTS, _SHAPES = 1701, 1702  # first numbers of the generators' seeds
_SIDE = 32
_MAX_PIXELS = 2_000_000
_TOGETHER = 64  # cases of one folder
_DALI_EVERY = 4  # of so many folders DALI reads one: a file that only its decoders refuse costs a new graph
_MOST_BYTES = 2 << 30
"""What photos may take beside what the process had before them; DALI's own libraries are in it."""
_COLOUR = (200, 100, 50)
Found = dict[int, np.ndarray | None]
"""Pixels of photos by sample index, uint8 (3, S, S); None: a bad file."""


@cache
def _seeds() -> list[tuple[str, bytes]]:
    """(suffix, file) of a small generated picture in every format and form but JPEG."""
    y, x = np.mgrid[0:37, 0:53]
    noise = np.random.default_rng(0).integers(0, 40, (37, 53, 3))
    pixels = np.stack([4 * x, 5 * y, 2 * (x + y)], 2) + noise
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    grey, bits, alpha = picture.convert("L"), picture.convert("1"), picture.copy()
    alpha.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey, np.uint16) * 3)
    palette, more = picture.quantize(16), {"save_all": True, "append_images": [picture.rotate(180)]}
    made: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("png", picture, {}), ("png", palette, {}), ("png", palette, {"transparency": bytes(range(16))}),
        ("png", deep, {}), ("png", alpha, {}), ("png", grey.convert("LA"), {}), ("png", bits, {}),
        ("png", picture, more), ("webp", picture, {"quality": 80}), ("webp", alpha, {"lossless": True}),
        ("webp", picture, more), ("bmp", picture, {}), ("bmp", palette, {}), ("bmp", bits, {}),
        ("gif", palette, {}), ("gif", picture, more), ("gif", palette, {"transparency": 3}),
        ("tiff", picture, {}), ("tiff", picture, {"compression": "tiff_lzw"}), ("tiff", deep, {}),
        ("tiff", picture, {"compression": "tiff_adobe_deflate"}), ("tiff", palette, {}),
        ("tiff", bits, {"compression": "group4"}), ("tiff", picture.convert("CMYK"), {}),
        ("tiff", picture, {"compression": "jpeg"}), ("tiff", picture, {"tiffinfo": {0x112: 6}}),
        ("avif", picture, {"speed": 10}), ("avif", alpha, {"speed": 10}),
        ("ppm", picture, {}), ("ppm", grey, {}), ("ppm", bits, {}),
    ]  # fmt: skip
    files = []
    for suffix, image, options in made:
        stream = io.BytesIO()
        image.save(stream, suffix, **options)
        files.append((suffix, stream.getvalue()))
    return [*files, ("png", _interlaced(picture))]


def _interlaced(picture: Image.Image) -> bytes:
    """A PNG whose header promises Adam7: Pillow writes none, so its pixels come in another order."""
    stream = io.BytesIO()
    picture.resize((8, 8)).save(stream, "png")
    content = bytearray(stream.getvalue())
    content[28] = 1
    content[29:33] = int.to_bytes(zlib.crc32(content[12:29]), 4, "big")
    return bytes(content)


def mutant(case: int) -> tuple[str, bytes]:
    """(suffix, file) of a number: a seed with one or two kinds of damage."""
    rng = np.random.default_rng([_MUTANTS, case])
    suffix, content = _seeds()[case % len(_seeds())]
    data = bytearray(content)
    for _ in range(rng.integers(1, 3)):
        # Some of the damage strikes the first bytes, where headers are.
        end = min(len(data), 96) if rng.random() < 0.3 else len(data)
        at, long = int(rng.integers(end)), int(rng.integers(1, 9))
        kind = rng.integers(7)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + long] = rng.bytes(long)
        elif kind == 2:
            data[at : at + long] = rng.choice([b"\0", b"\xff", b"\x7f"]) * long
        elif kind == 3:
            del data[at : at + long]
        elif kind == 4:
            data[at:at] = data[at : at + 16]
        elif kind == 5:
            del data[max(at, 8) :]
        else:
            other = _seeds()[int(rng.integers(len(_seeds())))][1]
            data[at:] = other[min(at, len(other)) :]
    return suffix, bytes(data)


def _folders(cases: range, folder: Path, write: Callable[[int, Path], None]) -> Iterator[tuple[range, Path]]:
    """Cases and the folder of their photos, in two classes; `write` is given a path without a suffix."""
    for start in range(cases.start, cases.stop, _TOGETHER):
        part, root = range(start, min(start + _TOGETHER, cases.stop)), folder / str(start)
        for name in "ab":
            (root / name).mkdir(parents=True)
            Image.new("RGB", (40, 40), _COLOUR).save(root / name / "good.png")
        for case in part:
            write(case, root / "ab"[case % 2])
        yield part, root
        shutil.rmtree(root)


@cache
def _has_dali() -> bool:
    from flowerfast.loaders.device import pick_device
    from flowerfast.loaders.engine import choose_backend

    try:
        return bool(choose_backend(DataConfig(backend="dali-cpu"), pick_device("cpu"))[0])
    except ValueError:
        return False


def _loaded(root: Path, backend: str, kernels: str, augment: Augment | None) -> tuple[Found, set[str]]:
    """What a loader makes of a folder, and the paths of its bad files."""
    photos = Photos(root, max_bad=1, max_pixels=_MAX_PIXELS)
    options = DataConfig(kernels=kernels, workers=2, max_pixels=_MAX_PIXELS)
    found: Found = {int(index): None for index in photos.indices}
    with Loader(
        photos, size=_SIDE, batch_size=16, augment=augment, device="cpu", backend=backend, options=options
    ) as loader:
        for batch in loader.epoch(0):
            for index, image in zip(batch.indices, batch.images, strict=True):
                found[int(index)] = image.numpy()
    return found, {bad.path for bad in photos.bad}


def _compare(root: Path, tally: Tally, dali: bool, augment: Augment | None) -> Found:
    """Load a folder by all backends; failures are noted by the path, which holds the number of the case."""
    found, bad = _loaded(root, "cpu", "numba", augment)
    plain, plainly_bad = _loaded(root, "cpu", "torchvision", augment)
    others = [("torchvision", plainly_bad)]
    if dali and _has_dali():
        others.append(("dali-cpu", _loaded(root, "dali-cpu", "auto", augment)[1]))
    for name, theirs in others:
        for path in bad ^ theirs:
            tally.fail(_case(path), f"{path}: {'good' if path in bad else 'bad'} for {name} alone")
    photos = Photos(root, max_bad=1, max_pixels=_MAX_PIXELS)
    for index, pixels in found.items():
        other = plain[index]
        if pixels is not None and other is not None and not np.array_equal(pixels, other):
            tally.fail(_case(photos.path(index)), f"{photos.path(index)}: the executors' pixels differ")
    tally.count("bad files", len(bad))
    return found


def _case(path: str) -> int:
    name = path.rpartition("/")[2].partition(".")[0]
    return int(name) if name.isdigit() else -1


def try_formats(cases: range, folder: Path) -> Tally:
    """Damaged files, alone and in folders."""
    tally = Tally()

    def write(case: int, place: Path) -> None:
        suffix, content = mutant(case)
        (place / f"{case}.{suffix}").write_bytes(content)

    for part, root in _folders(cases, folder, write):
        for case in part:
            content = mutant(case)[1]
            try:
                header = read_header(io.BytesIO(content), _MAX_PIXELS)
                pixels = decode(np.frombuffer(content, np.uint8), header.width, header.height)
                if pixels.shape != (header.height, header.width, 3) or pixels.dtype != np.uint8:
                    tally.fail(case, f"pixels of shape {pixels.shape}")
            except (OSError, ValueError, DecodeError):
                pass
        _compare(root, tally, part.start // _TOGETHER % _DALI_EVERY == 0, Augment())
        tally.tried += len(part)
    return tally


def shape(case: int) -> tuple[int, int, str, int]:
    """(width, height, suffix, orientation) of a number: one side up to some millions of pixels."""
    rng = np.random.default_rng([_SHAPES, case])
    suffix = str(rng.choice(["png", "jpg", "bmp", "gif"]))
    largest = {"jpg": 65_500, "gif": 65_535}.get(suffix, 2 * MAX_SIDE)
    long = int(np.exp(rng.uniform(np.log(1000), np.log(largest))))
    short = int(np.exp(rng.uniform(0, np.log(min(long, 2 * _MAX_PIXELS / long) + 1))))
    width, height = (long, short) if rng.random() < 0.5 else (short, long)
    return max(width, 1), max(height, 1), suffix, int(rng.integers(1, 9))


def try_shapes(cases: range, folder: Path) -> Tally:
    """Photos of one colour, which must come in that colour or be bad files."""
    tally = Tally()
    LOOPS.begin()
    LOOPS.demand()  # in a process of its own if need be: compiling takes memory too
    growth = Growth()

    def write(case: int, place: Path) -> None:
        width, height, suffix, orientation = shape(case)
        picture, exif = Image.new("RGB", (width, height), _COLOUR), Image.Exif()
        exif[0x112] = orientation
        options: dict[str, Any] = {"exif": exif} if suffix in ("jpg", "png") else {}
        picture.save(place / f"{case}.{suffix}", "JPEG" if suffix == "jpg" else suffix, **options)

    for part, root in _folders(cases, folder, write):
        _compare(root, tally, part.start // _TOGETHER % _DALI_EVERY == 0, Augment())
        found = _compare(root, tally, False, None)
        photos = Photos(root, max_bad=1, max_pixels=_MAX_PIXELS)
        bad = {_case(file.path) for file in photos.bad}
        for case in part:
            width, height, _, _ = shape(case)
            if (case in bad) != (max(width, height) > MAX_SIDE or width * height > _MAX_PIXELS):
                tally.fail(case, f"{width}x{height}: {'bad' if case in bad else 'good'}")
        for index, pixels in found.items():
            far = 255 if pixels is None else np.abs(pixels - np.int64(_COLOUR)[:, None, None]).max()
            if far > 8:  # a palette or a JPEG of one colour comes close to it
                tally.fail(_case(photos.path(index)), f"{photos.path(index)}: off by {far} levels")
        tally.tried += len(part)
    tally.count("most MB more", growth.most() // 1_000_000)
    if growth.most() > _MOST_BYTES:
        tally.fail(cases.start, f"to {cases.stop}: took {growth.most() / 1e6:,.0f} MB")
    return tally


FORMATS = Trial(
    name="formats",
    promise="A damaged PNG, WebP, BMP, GIF, TIFF, AVIF or PPM is a bad file for all, or the same picture.",
    unit="damaged files",
    run=try_formats,
    full=37_000,
    quick=256,
    chunk=9_250,
)
SHAPES = Trial(
    name="shapes",
    promise="A photo thousands of times as long as wide is a bad file for all, or comes in its own colour.",
    unit="photos of extreme shapes",
    run=try_shapes,
    full=160,
    quick=6,
    chunk=80,
)
